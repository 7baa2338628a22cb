"""Reads the IDX files of a window of spans and writes them as sharded TFRecords of `tf.Example`."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import apache_beam as beam
from tfx.dsl.components.base import base_beam_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils

from components.run_id import run_id
from mnist import idx
from mnist.digits import forget_scans
from mnist.quarantine import quarantine, read_quarantine
from mnist.records import write_shard, write_spans
from mnist.settings import DataSettings
from mnist.splits import TRAIN, Joined, Shard, SplitError, join_spans
from mnist.windows import Window, reopen_window, resolve_window

_SHARDS = 4  # TFRecord files of the train split
_WORK_FOLDER = "unpacked"  # beside the splits while the node runs
_progress_log = logging.getLogger("mnist_gan.progress")


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
        joined = self._join(exec_properties, window, settings.eval_share)
        _describe(examples, window, joined)
        examples.set_string_custom_property("source", exec_properties["source"])
        _tell(joined)
        test_paths = window.test.paths if window.test else ()
        paths = [*(path for files in window.files for path in files.paths), *test_paths]
        with _unpacked(paths, os.path.join(examples.uri, _WORK_FOLDER)) as copies:
            shards = list(_plan(examples, joined, exec_properties["data_dir"], copies))
            del joined  # nine bytes a digit
            with self._make_beam_pipeline() as pipeline:
                _ = (
                    pipeline
                    | "Shards" >> beam.Create(shards, reshuffle=True)
                    | "Write" >> beam.MapTuple(write_shard)
                )

    def _join(self, exec_properties: dict[str, Any], window: Window, eval_share: float) -> Joined:
        try:
            return join_spans(window, eval_share)
        except SplitError as error:
            at_fault = [state for state in window.spans if state.span == error.span]
            self._hold(exec_properties, {s.span: (s.fingerprint, str(error)) for s in at_fault})
            raise
        finally:
            forget_scans()

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
    examples.split_names = artifact_utils.encode_split_names(list(joined.splits))
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


@contextlib.contextmanager
def _unpacked(paths: Sequence[str], folder: str) -> Iterator[dict[str, str]]:
    """Copies of the compressed files, by path, which a worker can read from any row on."""
    copies: dict[str, str] = {}
    try:
        for path in filter(idx.is_compressed, paths):
            fileio.makedirs(folder)
            copies[path] = os.path.join(folder, str(len(copies)))
            with fileio.open(copies[path], "wb") as file:
                for chunk in idx.unpacked_chunks(path):
                    file.write(chunk)
        yield copies
    finally:
        if copies:
            fileio.rmtree(folder)


def _plan(
    examples: Any, joined: Joined, data_dir: str, copies: Mapping[str, str]
) -> Iterator[tuple[str, Shard]]:
    """The path of each TFRecord file, and its digits."""
    per_shard = -(-len(joined.splits[TRAIN]) // _SHARDS)
    for name, split in joined.splits.items():
        directory = artifact_utils.get_split_uri([examples], name)
        fileio.makedirs(directory)
        starts = range(0, len(split), per_shard)
        for index, start in enumerate(starts):
            file = f"data_tfrecord-{index:05d}-of-{len(starts):05d}.gz"
            rows = range(start, min(start + per_shard, len(split)))
            yield os.path.join(directory, file), split.shard(rows, data_dir, copies)
