"""Stops the run on data that is not what the schema says or too far from what is served."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

import storage
from components.anomalies import find_anomalies
from components.data_blessing import BLESSING_FILE, STATISTICS_FOLDER
from components.data_gate.digits import read_spans_digits
from components.data_gate.histograms import histograms
from components.data_gate.served import Served, find_served
from components.data_gate.settings import GateSettings
from components.data_gate.statistics import DataStatistics, Digits, class_means, describe, join
from components.data_gate.verdict import Verdict, check_span
from components.run_id import run_id
from errors import UserError
from mnist.quarantine import quarantine, read_quarantine
from mnist.records import read_spans

_STATISTICS_FILE = "FeatureStats.pb"
_LONGEST_REASON = 1000
_progress_log = logging.getLogger("mnist_gan.progress")


class DataRejectedError(UserError):
    """The data is not fit to train on; `findings` has each anomaly and fault."""


class Executor(base_executor.BaseExecutor):
    """Writes a DataBlessing, or fails, names what is wrong and quarantines the span."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Judges from the files: a property set by an executor does not survive every backend.

        Each span that is not behind what is served yet is checked by itself, so that a bad one is
        found among good ones.

        Args:
          input_dict: `examples`, `statistics`, `schema` and `anomalies`, one artifact each.
          output_dict: `blessing`, one DataBlessing. Its `data_blessing.json` has `span`,
            `examples` (count by split), `spans`, `schema_sha256`, `compared` and `version`,
            `verdicts` (distances and label agreement by span) and `histograms`.
          exec_properties: `settings`, GateSettings as JSON; `serving_dir`; `quarantine`, path or
            URI of the record, "" for none.

        Raises:
          DataRejectedError: when a split has an anomaly or a span is at fault; a finding names
            span or split, feature, what was seen and what was expected.
        """
        artifacts = {
            name: artifact_utils.get_single_instance(found)
            for name, found in (input_dict | output_dict).items()
        }
        settings = GateSettings.model_validate_json(exec_properties.get("settings") or "{}")
        address = exec_properties.get("quarantine") or ""
        schema = tfdv.load_schema_text(os.path.join(artifacts["schema"].uri, "schema.pbtxt"))
        spans = read_spans(artifacts["examples"].uri)
        parts = read_spans_digits(artifacts["examples"], spans, schema)
        served = find_served(
            exec_properties.get("serving_dir") or "", [span["fingerprint"] for span in spans]
        )
        _progress_log.info(served.message)
        found = find_anomalies(artifacts["anomalies"])
        verdicts = list(_check_spans(spans, parts, schema, served, settings, bool(found)))
        _let_released_through(verdicts, spans, address)
        if found or any(verdict.anomalies or verdict.faults for verdict in verdicts):
            run = run_id(self, exec_properties)
            raise _reject(found, verdicts, spans, artifacts, address, run or "")
        for line in (line for verdict in verdicts for line in verdict.warnings):
            _progress_log.warning(line)
        digits = join([part for by_split in parts.values() for part in by_split.values()])
        # Those of a single span are there already, and take seconds to make.
        of_one = verdicts[0].features if len(spans) == len(verdicts) == 1 else None
        new = DataStatistics(of_one or describe(digits, schema), class_means(digits), spans)
        content = _document(artifacts, spans, served, verdicts) | {
            "histograms": histograms(new, served.statistics)
        }
        _write(artifacts["blessing"], content, new)


def _check_spans(
    spans: list[dict[str, Any]],
    parts: Mapping[int, Mapping[str, Digits]],
    schema: schema_pb2.Schema,
    served: Served,
    settings: GateSettings,
    all_of_them: bool,
) -> Iterator[Verdict]:
    """Judges the spans that are not behind what is served, or all by the schema at least."""
    behind = served.statistics.fingerprints if served.statistics else []
    for span in spans:
        is_new = span["fingerprint"] not in behind
        if (is_new or all_of_them) and parts[span["span"]]:
            before = served.statistics if is_new else None
            yield check_span(span["span"], parts[span["span"]], schema, before, settings)


def _let_released_through(
    verdicts: list[Verdict], spans: list[dict[str, Any]], address: str
) -> None:
    """Makes warnings of the faults of spans that somebody released."""
    entries = read_quarantine(address) if address else {}
    fingerprints = {span["span"]: span["fingerprint"] for span in spans}
    for verdict in verdicts:
        entry = entries.get(verdict.span)
        if entry and entry.released and entry.fingerprint == fingerprints[verdict.span]:
            verdict.warnings += [f"{fault}; the span was released" for fault in verdict.faults]
            verdict.faults = []


def _reject(
    found: list[str],
    verdicts: list[Verdict],
    spans: list[dict[str, Any]],
    artifacts: Mapping[str, Any],
    address: str,
    run: str,
) -> DataRejectedError:
    """Quarantines the spans at fault and says what is wrong."""
    faults = {each.span: each.anomalies + each.faults for each in verdicts}
    in_spans = [line for line in found if not line.startswith("test: ")]
    if len(spans) == 1 and in_spans:
        # What is wrong with the splits is wrong with their only span.
        faults = {each.span: in_spans + each.faults for each in verdicts}
    faults = {span: each for span, each in faults.items() if each}
    lines = list(dict.fromkeys([*found, *(line for each in faults.values() for line in each)]))
    fingerprints = {span["span"]: span["fingerprint"] for span in spans}
    held = {
        span: (fingerprints[span], "; ".join(each)[:_LONGEST_REASON])
        for span, each in sorted(faults.items())
    }
    fixes = []
    if address and held:
        quarantine(address, held, run)
        fixes.append(
            f"span {', '.join(map(str, held))} is quarantined, and later runs leave it out; if it "
            "is right, let it through with `python local_runner.py release SPAN`"
        )
    if found:
        fixes.append("if the data is right, change pipeline/schema/schema.pbtxt")
    return DataRejectedError(
        "the data is not fit to train on",
        f"{artifacts['statistics'].uri} (tfdv.visualize_statistics), "
        f"{artifacts['anomalies'].uri} (tfdv.display_anomalies)",
        "; ".join(fixes),
        lines,
    )


def _document(
    artifacts: Mapping[str, Any],
    spans: list[dict[str, Any]],
    served: Served,
    verdicts: list[Verdict],
) -> dict[str, Any]:
    statistics, anomalies = artifacts["statistics"], artifacts["anomalies"]
    schema = storage.read(os.path.join(artifacts["schema"].uri, "schema.pbtxt"))
    return {
        "span": spans[-1]["span"],
        "examples": {
            split: _count_examples(artifact_utils.get_split_uri([statistics], split))
            for split in artifact_utils.decode_split_names(anomalies.split_names)
        },
        "spans": spans,
        "schema_sha256": hashlib.sha256(schema).hexdigest(),
        "compared": served.message,
        "version": served.version,
        "verdicts": [verdict.as_json() for verdict in verdicts],
    }


def _write(blessing: Any, content: dict[str, Any], statistics: DataStatistics) -> None:
    for name, part in statistics.as_files().items():
        storage.write(os.path.join(blessing.uri, STATISTICS_FOLDER, name), part)
    blessing.set_int_custom_property("blessed", 1)
    text = json.dumps(content, indent=2, allow_nan=False)
    storage.write(os.path.join(blessing.uri, BLESSING_FILE), text.encode())


def _count_examples(directory: str) -> int:
    statistics = tfdv.load_stats_binary(os.path.join(directory, _STATISTICS_FILE))
    return int(statistics.datasets[0].num_examples)
