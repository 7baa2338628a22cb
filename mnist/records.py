"""What ingestion writes: TFRecord files of `tf.Example`, and `spans.json` beside the splits."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import storage
from mnist.features import (
    FLOAT_FEATURES,
    IMAGE_FEATURE,
    INT_FEATURES,
    LABEL_FEATURE,
    derive_scalars,
)
from mnist.splits import Shard

SPANS_FILE = "spans.json"
_BATCH = 4096
_FEATURES = {
    IMAGE_FEATURE: tf.io.FixedLenFeature([], tf.string),
    LABEL_FEATURE: tf.io.FixedLenFeature([], tf.int64),
}


def serialize_examples(images: np.ndarray, labels: np.ndarray) -> Iterator[bytes]:
    """Serializes digits as `tf.Example`, the same digits always to the same bytes.

    Args:
        images: uint8 [n, 28, 28].
        labels: uint8 [n].

    Yields:
        One serialized example a digit.
    """
    scalars = {LABEL_FEATURE: labels, **derive_scalars(images)}
    columns = {name: values.tolist() for name, values in scalars.items()}
    example = tf.train.Example()
    features = example.features.feature
    for row, image in enumerate(images):
        features[IMAGE_FEATURE].bytes_list.value[:] = [image.tobytes()]
        for name in INT_FEATURES:
            features[name].int64_list.value[:] = [columns[name][row]]
        for name in FLOAT_FEATURES:
            features[name].float_list.value[:] = [columns[name][row]]
        yield example.SerializeToString(deterministic=True)


def write_shard(path: str, shard: Shard) -> None:
    """Writes digits as a gzipped TFRecord file, the same digits always as the same bytes.

    Args:
        path: A local path or URI that TensorFlow can write to.
        shard: The digits.

    Raises:
        IdxError, SpanError: As `Shard.chunks` does, and leaves a part of the file.
    """
    options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
    with tf.io.TFRecordWriter(path, options) as writer:
        for digits in shard.chunks():
            for record in serialize_examples(digits.images, digits.labels):
                writer.write(record)


def load_split(patterns: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Reads the digits of whole TFRecord files of `tf.Example` with `image` and `label`.

    Args:
        patterns: Patterns of gzipped files, which are read in the order of their names.

    Returns:
        Images uint8 [n, 28, 28, 1] and labels int64 [n].

    Raises:
        ValueError: No file matches, or the files hold no example.
    """
    files = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    if not files:
        raise ValueError(f"no TFRecord file matches {', '.join(patterns)}")
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(_BATCH)
    batches = [tf.io.parse_example(batch, _FEATURES) for batch in records]
    if not batches:
        raise ValueError(f"the files {', '.join(files)} hold no example")
    images = [tf.io.decode_raw(batch[IMAGE_FEATURE], tf.uint8).numpy() for batch in batches]
    labels = [batch[LABEL_FEATURE].numpy() for batch in batches]
    return np.concatenate(images).reshape(-1, 28, 28, 1), np.concatenate(labels)


def write_spans(folder: str, spans: Sequence[dict[str, Any]]) -> None:
    """Writes `spans.json` into the folder of an Examples artifact; see `read_spans`."""
    storage.write(os.path.join(folder, SPANS_FILE), json.dumps(spans, indent=2).encode())


def read_spans(folder: str) -> list[dict[str, Any]]:
    """Reads the spans of an Examples artifact, in the order in which each split holds their digits.

    Args:
        folder: Path or URI of the artifact.

    Returns:
        For each `span`, `fingerprint` of its files, `train` and `eval` (how many digits), `dropped`
        (training digits that are held out or in an earlier span) and `labels` (of each class).

    Raises:
        FileNotFoundError: The folder has no `spans.json`.
    """
    return json.loads(storage.read(os.path.join(folder, SPANS_FILE)))
