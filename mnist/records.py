"""Reads the digits of a split, as MnistExampleGen writes them."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

_BATCH = 4096
_FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
}


def load_split(patterns: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Reads whole TFRecord files of `tf.Example` with `image` and `label`.

    Args:
      patterns: of gzipped files; read in the order of their names.

    Returns:
      Images uint8 [n, 28, 28, 1] and labels int64 [n].

    Raises:
      ValueError: when no file matches, or the files hold no example.
    """
    files = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    if not files:
        raise ValueError(f"no TFRecord file matches {', '.join(patterns)}")
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(_BATCH)
    batches = [tf.io.parse_example(batch, _FEATURES) for batch in records]
    if not batches:
        raise ValueError(f"the files {', '.join(files)} hold no example")
    images = [tf.io.decode_raw(batch["image"], tf.uint8).numpy() for batch in batches]
    labels = [batch["label"].numpy() for batch in batches]
    return np.concatenate(images).reshape(-1, 28, 28, 1), np.concatenate(labels)
