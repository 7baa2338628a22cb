"""The digits of a split are read whole and in order, and what is not there is said."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from mnist.features import serialize_examples
from mnist.records import load_split


def write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for record in serialize_examples(images, labels):
            writer.write(record)


def random_digits(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 28, 28), np.uint8)
    return images, generator.integers(0, 10, count, np.uint8)


def test_reads_what_the_example_gen_writes(tmp_path):
    images, labels = random_digits(30)
    write(tmp_path / "data_tfrecord-00000-of-00001.gz", images, labels)
    read_images, read_labels = load_split([str(tmp_path / "*")])
    assert read_images.dtype == np.uint8
    assert read_labels.dtype == np.int64
    assert read_images.shape == (30, 28, 28, 1)
    np.testing.assert_array_equal(read_images[..., 0], images)
    np.testing.assert_array_equal(read_labels, labels)


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
    np.testing.assert_array_equal(read_images[..., 0], images)
    np.testing.assert_array_equal(read_labels, labels)


def test_no_file_is_an_error_that_names_the_patterns(tmp_path):
    with pytest.raises(ValueError, match=r"no TFRecord file matches .*absent-\*"):
        load_split([str(tmp_path / "absent-*")])


def test_no_pattern_is_an_error():
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


def test_a_truncated_file_is_an_error(tmp_path):
    path = tmp_path / "records.gz"
    write(path, *random_digits(100))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(tf.errors.OpError):
        load_split([str(path)])


def test_a_corrupt_record_is_an_error(tmp_path):
    path = tmp_path / "records.gz"
    write(path, *random_digits(10))
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[500] ^= 0xFF
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(tf.errors.DataLossError):
        load_split([str(path)])
