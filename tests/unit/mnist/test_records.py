"""Examples are the same bytes wherever they are made, and are read whole and in order."""

import gzip
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist.features import FLOAT_FEATURES, IMAGE_FEATURE, INT_FEATURES, derive_scalars
from mnist.records import load_split, read_spans, serialize_examples, write_spans

REPOSITORY = Path(__file__).parents[3]
BLANK, FULL = np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)


def write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for record in serialize_examples(images, labels):
            writer.write(record)


def random_digits(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 28, 28), np.uint8)
    return images, generator.integers(0, 10, count, np.uint8)


def test_reads_files_in_the_order_of_their_names_whatever_the_patterns_order(tmp_path):
    images, labels = random_digits(12)
    for shard in (2, 0, 1):
        rows = slice(4 * shard, 4 * shard + 4)
        write(tmp_path / f"data_tfrecord-{shard:05}-of-00003.gz", images[rows], labels[rows])
    names = [str(tmp_path / f"data_tfrecord-{shard:05}*") for shard in (1, 2, 0)]
    read_images, read_labels = load_split(names)
    np.testing.assert_array_equal(read_images[..., 0], images)
    np.testing.assert_array_equal(read_labels, labels)


def test_reads_more_rows_than_a_batch_holds_and_passes_over_empty_shards(tmp_path):
    images, labels = random_digits(5000)
    write(tmp_path / "data_tfrecord-00000-of-00003.gz", images[:10], labels[:10])
    write(tmp_path / "data_tfrecord-00001-of-00003.gz", images[:0], labels[:0])
    write(tmp_path / "data_tfrecord-00002-of-00003.gz", images[10:], labels[10:])
    read_images, read_labels = load_split([str(tmp_path / "*")])
    assert (read_images.dtype, read_images.shape) == (np.uint8, (5000, 28, 28, 1))
    assert read_labels.dtype == np.int64
    np.testing.assert_array_equal(read_images[..., 0], images)
    np.testing.assert_array_equal(read_labels, labels)


def test_no_file_is_an_error_that_names_the_patterns(tmp_path):
    with pytest.raises(ValueError, match=r"no TFRecord file matches .*absent-\*"):
        load_split([str(tmp_path / "absent-*")])
    with pytest.raises(ValueError, match="no TFRecord file"):
        load_split([])


def test_no_row_is_an_error_that_names_the_files(tmp_path):
    path = tmp_path / "data_tfrecord-00000-of-00001.gz"
    write(path, *random_digits(0))
    with pytest.raises(ValueError, match=f"{path.name} hold no example"):
        load_split([str(tmp_path / "*")])


def test_a_record_without_a_label_is_an_error_that_names_the_feature(tmp_path):
    example = tf.train.Example()
    example.features.feature["image"].bytes_list.value.append(bytes(784))
    with tf.io.TFRecordWriter(str(tmp_path / "records.gz"), "GZIP") as writer:
        writer.write(example.SerializeToString())
    with pytest.raises(tf.errors.InvalidArgumentError, match="label"):
        load_split([str(tmp_path / "records.gz")])


@pytest.mark.parametrize("position", [500, None], ids=["altered", "truncated"])
def test_a_damaged_file_is_an_error(tmp_path, position):
    path = tmp_path / "records.gz"
    write(path, *random_digits(100))
    content = bytearray(gzip.decompress(path.read_bytes()))
    if position is not None:
        content[position] ^= 0xFF
    path.write_bytes(gzip.compress(bytes(content))[: None if position else -1000])
    with pytest.raises(tf.errors.DataLossError):
        load_split([str(path)])


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.integers(0, 999), min_size=1, max_size=40))
def test_an_example_does_not_depend_on_its_neighbors(
    digits: tuple[np.ndarray, np.ndarray], rows: list[int]
) -> None:
    images, labels = digits[0][rows], digits[1][rows]
    together = list(serialize_examples(images, labels))
    alone = [
        next(serialize_examples(images[i : i + 1], labels[i : i + 1])) for i in range(len(rows))
    ]
    assert together == alone


def test_examples_parse_to_what_went_in(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images = np.concatenate([[BLANK, FULL], digits[0][:30]])
    labels = np.concatenate([[0, 9], digits[1][:30]]).astype(np.uint8)
    kinds = {IMAGE_FEATURE: tf.string}
    kinds |= dict.fromkeys(INT_FEATURES, tf.int64) | dict.fromkeys(FLOAT_FEATURES, tf.float32)
    serialized = list(serialize_examples(images, labels))
    parsed = tf.io.parse_example(
        serialized, {name: tf.io.FixedLenFeature([], kind) for name, kind in kinds.items()}
    )
    assert set(tf.train.Example.FromString(serialized[0]).features.feature) == set(kinds)
    for name, values in {"label": labels, **derive_scalars(images)}.items():
        np.testing.assert_array_equal(parsed[name].numpy(), values)
    pixels = tf.io.decode_raw(parsed[IMAGE_FEATURE], tf.uint8).numpy()
    np.testing.assert_array_equal(pixels.reshape(-1, 28, 28), images)


def test_processes_agree_on_the_bytes(digits: tuple[np.ndarray, np.ndarray]) -> None:
    script = (
        "import hashlib, sys\n"
        "import numpy as np\n"
        "from mnist.records import serialize_examples\n"
        "data = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(-1, 785)\n"
        "examples = serialize_examples(data[:, 1:].reshape(-1, 28, 28), data[:, 0])\n"
        "print(hashlib.sha256(b''.join(examples)).hexdigest())\n"
    )
    images, labels = digits[0][:100], digits[1][:100]
    content = np.concatenate([labels[:, np.newaxis], images.reshape(-1, 784)], axis=1).tobytes()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONHASHSEED": seed, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for seed in ("1", "2")
    ]
    here = hashlib.sha256(b"".join(serialize_examples(images, labels))).hexdigest()
    for process in running:
        assert process.communicate(content)[0].decode().strip() == here


def test_spans_are_read_back(tmp_path: Path, s3_bucket: str) -> None:
    spans = [{"span": 2**63 - 1, "fingerprint": "9f", "train": 2, "labels": [1, 1]}]
    for folder in (str(tmp_path / "new"), f"{s3_bucket}/examples"):
        with pytest.raises(FileNotFoundError):
            read_spans(folder)
        write_spans(folder, spans)
        assert read_spans(folder) == spans
