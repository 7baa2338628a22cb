"""Reads the IDX files of a window of spans and writes them as sharded TFRecords of `tf.Example`."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils
from tfx.v1.dsl.io import fileio

from components.run_id import run_id
from mnist.digits import forget_digits
from mnist.quarantine import quarantine, read_quarantine
from mnist.records import serialize_examples, write_spans
from mnist.settings import DataSettings
from mnist.splits import TRAIN, Joined, SplitError, join_spans
from mnist.windows import Window, reopen_window, resolve_window

_SHARDS = 4  # TFRecord files of the train split
_progress_log = logging.getLogger("mnist_gan.progress")


@dataclass(frozen=True)
class _Shard:
    """One TFRecord file to write: the rows start..stop of a split."""

    window: Window
    eval_share: float
    split: str
    start: int
    stop: int
    path: str


class Executor(base_beam_executor.BaseBeamExecutor):
    """Finds the spans, checks their files, and writes the splits with Beam."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes a folder per split and `spans.json`, and describes them in the properties.

        Args:
          input_dict: empty.
          output_dict: `examples`, one Examples artifact: `Split-train`, `Split-eval` and, where the
            data folder has a fixed one, `Split-test`.
          exec_properties: `data_dir`; `span` (None or negative for those of `window`), `window`,
            `content` and `quarantine`; `settings`, DataSettings as JSON; and `source`, which is
            recorded as it is.

        Raises:
          WindowError, SpanError: when the spans cannot be found, or have changed since the run
            resolved its window.
          QuarantineError: when the record of quarantined spans cannot be used.
          IdxError: when a file is not what it should be.
          SplitError: when a split would be empty. The span at fault is quarantined.
        """
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        settings = DataSettings.model_validate_json(exec_properties["settings"])
        window = self._find(exec_properties, settings.settle_seconds)
        eval_share = settings.eval_share
        join_spans.cache_clear()
        try:
            joined = join_spans(window, eval_share)
        except SplitError as error:
            at_fault = [state for state in window.spans if state.span == error.span]
            self._hold(exec_properties, {s.span: (s.fingerprint, str(error)) for s in at_fault})
            raise
        finally:
            forget_digits()
        examples.split_names = artifact_utils.encode_split_names(list(joined.splits))
        per_shard = -(-len(joined.splits[TRAIN]) // _SHARDS)
        shards = [
            shard
            for split, digits in joined.splits.items()
            for shard in _plan(examples, window, eval_share, split, len(digits), per_shard)
        ]
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | "Shards" >> beam.Create(shards, reshuffle=True)
                | "Write" >> beam.Map(_write_shard)
            )
        _describe(examples, window, joined)
        examples.set_string_custom_property("source", exec_properties["source"])
        join_spans.cache_clear()
        _tell(joined)

    def _find(self, exec_properties: dict[str, Any], settle_seconds: float) -> Window:
        data_dir, content = exec_properties["data_dir"], exec_properties.get("content")
        if content:
            return reopen_window(data_dir, exec_properties["window"], content)
        span, address = exec_properties.get("span"), exec_properties.get("quarantine")
        span = None if span is None or span < 0 else span
        named = exec_properties.get("window") if span is None else None
        window = resolve_window(
            data_dir,
            span=span,
            window=named or "latest",
            settle_seconds=settle_seconds,
            quarantine=read_quarantine(address) if address else None,
        )
        self._hold(exec_properties, window.damaged)
        for line in window.notices():
            _progress_log.warning(line)
        return window

    def _hold(self, exec_properties: dict[str, Any], faults: Mapping[int, tuple[str, str]]) -> None:
        """Quarantines spans, each with its fingerprint and the reason, where a record is kept."""
        address = exec_properties.get("quarantine")
        if address and faults:
            run = run_id(self, exec_properties)
            quarantine(address, faults, run or "")


def _describe(examples: Any, window: Window, joined: Joined) -> None:
    """Writes down the spans, in a file too: a property does not survive every backend."""
    spans = [
        asdict(counts) | {"fingerprint": state.fingerprint}
        for counts, state in zip(joined.counts, window.spans, strict=True)
    ]
    examples.span = window.newest
    examples.version = 0
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("spans", json.dumps(spans))
    for split, digits in joined.splits.items():
        examples.set_int_custom_property(f"{split}_count", len(digits))
        examples.set_string_custom_property(f"{split}_fingerprint", digits.fingerprint())
    write_spans(examples.uri, spans)


def _tell(joined: Joined) -> None:
    counts = ", ".join(f"{len(digits)} {split}" for split, digits in joined.splits.items())
    spans = ", ".join(str(each.span) for each in joined.counts)
    _progress_log.info(f"span {spans}: {counts}")
    for each in joined.counts:
        if each.dropped:
            _progress_log.warning(
                f"span {each.span}: {each.dropped} training digits are left out, as the same "
                "images are held out or in an earlier span"
            )
        if each.near_empty():
            digits = ", ".join(f"{digit} ({each.labels[digit]})" for digit in each.near_empty())
            _progress_log.warning(f"span {each.span} has next to none of these digits: {digits}")


def _plan(
    examples: Any, window: Window, eval_share: float, split: str, count: int, per_shard: int
) -> Iterator[_Shard]:
    directory = artifact_utils.get_split_uri([examples], split)
    fileio.makedirs(directory)
    total = -(-count // per_shard)
    for index in range(total):
        name = f"data_tfrecord-{index:05d}-of-{total:05d}.gz"
        start = index * per_shard
        stop = min(start + per_shard, count)
        yield _Shard(window, eval_share, split, start, stop, os.path.join(directory, name))


def _write_shard(shard: _Shard) -> None:
    digits = join_spans(shard.window, shard.eval_share).splits[shard.split]
    images = digits.images[shard.start : shard.stop]
    labels = digits.labels[shard.start : shard.stop]
    options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
    with tf.io.TFRecordWriter(shard.path, options) as writer:
        for record in serialize_examples(images, labels):
            writer.write(record)
