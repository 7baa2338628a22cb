"""Reads one span of IDX files and writes it as sharded TFRecords of `tf.Example`."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import tensorflow as tf
from absl import logging
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils
from tfx.v1.dsl.io import fileio

from components.mnist_example_gen.features import serialize_examples
from components.mnist_example_gen.spans import SpanFiles, resolve_span
from components.mnist_example_gen.splits import TRAIN, load_splits


@dataclass(frozen=True)
class _Shard:
    """One TFRecord file to write: the rows start..stop of a split."""

    files: SpanFiles
    eval_share: float
    split: str
    start: int
    stop: int
    path: str


class Executor(base_beam_executor.BaseBeamExecutor):
    """Resolves the span, checks its files, and writes the splits with Beam."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes `Split-train` and `Split-eval` and describes them in the artifact's properties.

        Args:
          input_dict: empty.
          output_dict: `examples`, one Examples artifact.
          exec_properties: `data_dir`, `span` (the latest when None or negative),
            `eval_share`, `shards` of the train split, and `source`, which is recorded as it is.

        Raises:
          SpanError: when the span cannot be found.
          IdxError: when a file is not what it should be.
          SplitError: when a split would be empty.
        """
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        span = exec_properties.get("span")
        files = resolve_span(
            exec_properties["data_dir"], None if span is None or span < 0 else span
        )
        eval_share = exec_properties["eval_share"]
        load_splits.cache_clear()
        splits = load_splits(files, eval_share)
        examples.split_names = artifact_utils.encode_split_names(list(splits))
        per_shard = -(-len(splits[TRAIN]) // exec_properties["shards"])
        shards = [
            shard
            for split, digits in splits.items()
            for shard in _plan(examples, files, eval_share, split, len(digits), per_shard)
        ]
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | "Shards" >> beam.Create(shards, reshuffle=True)
                | "Write" >> beam.Map(_write_shard)
            )
        examples.span = files.span
        examples.version = 0
        examples.set_string_custom_property("file_format", "tfrecords_gzip")
        examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
        for split, digits in splits.items():
            examples.set_int_custom_property(f"{split}_count", len(digits))
            examples.set_string_custom_property(f"{split}_fingerprint", digits.fingerprint())
        examples.set_string_custom_property("source", exec_properties["source"])
        load_splits.cache_clear()
        logging.info("Ingested span %d of %s: %s", files.span, files.directory, _count_text(splits))


def _count_text(splits: dict[str, Any]) -> str:
    return ", ".join(f"{len(digits)} {split}" for split, digits in splits.items())


def _plan(
    examples: Any, files: SpanFiles, eval_share: float, split: str, count: int, per_shard: int
) -> Iterator[_Shard]:
    directory = artifact_utils.get_split_uri([examples], split)
    fileio.makedirs(directory)
    total = -(-count // per_shard)
    for index in range(total):
        name = f"data_tfrecord-{index:05d}-of-{total:05d}.gz"
        start = index * per_shard
        stop = min(start + per_shard, count)
        yield _Shard(files, eval_share, split, start, stop, os.path.join(directory, name))


def _write_shard(shard: _Shard) -> None:
    digits = load_splits(shard.files, shard.eval_share)[shard.split]
    images = digits.images[shard.start : shard.stop]
    labels = digits.labels[shard.start : shard.stop]
    options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
    with tf.io.TFRecordWriter(shard.path, options) as writer:
        for record in serialize_examples(images, labels):
            writer.write(record)
