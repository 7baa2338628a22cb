"""The digits of an Examples artifact, span by span."""

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import artifact_utils
from tfx.utils import io_utils

from components.data_gate.statistics import Digits

_BATCH = 4096
_IMAGE = "image"
_TYPES = {schema_pb2.INT: tf.int64, schema_pb2.FLOAT: tf.float32, schema_pb2.BYTES: tf.string}


def read_spans_digits(
    examples: Any, spans: list[dict[str, Any]], schema: schema_pb2.Schema
) -> dict[int, dict[str, Digits]]:
    """Reads the train and the eval split.

    Args:
      examples: an Examples artifact of MnistExampleGen.
      spans: of its `spans.json`.
      schema: whose features are read.

    Returns:
      By span, the digits of each split that has any.
    """
    found: dict[int, dict[str, Digits]] = {span["span"]: {} for span in spans}
    for split in ("train", "eval"):
        digits = _read(artifact_utils.get_split_uri([examples], split), schema)
        start = 0
        for span in spans:
            stop = start + span[split]
            if stop > start:
                found[span["span"]][split] = digits.rows(start, stop)
            start = stop
    return found


def _read(uri: str, schema: schema_pb2.Schema) -> Digits:
    features = {
        feature.name: tf.io.FixedLenFeature([], _TYPES[feature.type]) for feature in schema.feature
    }
    files = sorted(tf.io.gfile.glob(io_utils.all_files_pattern(uri)))
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(_BATCH)
    batches = [tf.io.parse_example(batch, features) for batch in records]
    columns = {
        name: np.concatenate([batch[name].numpy() for batch in batches])
        for name in features
        if name != _IMAGE
    }
    images = [tf.io.decode_raw(batch[_IMAGE], tf.uint8).numpy() for batch in batches]
    return Digits(np.concatenate(images), columns)
