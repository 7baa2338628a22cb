"""Reads the anomalies of every split and stops the run on the first sight of one."""

import json
import os
from collections.abc import Iterator
from typing import Any

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.v1.dsl.io import fileio

_ANOMALIES_FILE = "SchemaDiff.pb"
_STATISTICS_FILE = "FeatureStats.pb"


class DataRejectedError(ValueError):
    """The data is not what the schema says; nothing may be trained on it."""


class Executor(base_executor.BaseExecutor):
    """Writes a DataBlessing, or fails and names what is wrong."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Judges from the files: a property set by an executor does not survive every backend.

        Args:
          input_dict: `statistics` and `anomalies`, one artifact each.
          output_dict: `blessing`, one DataBlessing.
          exec_properties: empty.

        Raises:
          DataRejectedError: when a split has an anomaly; the message names split, feature, what
            was seen, what was expected, and how to look closer.
        """
        anomalies = artifact_utils.get_single_instance(input_dict["anomalies"])
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        found: list[str] = []
        counts: dict[str, int] = {}
        for split in artifact_utils.decode_split_names(anomalies.split_names):
            report = _read_anomalies(artifact_utils.get_split_uri([anomalies], split))
            found.extend(describe_anomalies(report, split))
            counts[split] = _count_examples(artifact_utils.get_split_uri([statistics], split))
        if found:
            raise DataRejectedError(_rejection(found, statistics, anomalies))
        blessing.set_int_custom_property("blessed", 1)
        with fileio.open(os.path.join(blessing.uri, "data_blessing.json"), "w") as file:
            json.dump({"span": int(statistics.span), "examples": counts}, file, indent=2)


def describe_anomalies(report: anomalies_pb2.Anomalies, split: str) -> Iterator[str]:
    """Yields a line per anomaly: split, feature, what was seen, what the schema expects."""
    for name, info in sorted(report.anomaly_info.items()):
        reasons = info.reason or [info]
        for reason in reasons:
            yield (
                f"{split}: {name}: {reason.short_description}: {reason.description.strip()} "
                f"Expected: {_expectation(report.baseline, name)}."
            )
    for reason in report.dataset_anomaly_info.reason:
        yield f"{split}: the data set: {reason.short_description}: {reason.description.strip()}"
    if report.data_missing:
        yield f"{split}: the split has no examples"


def _expectation(schema: schema_pb2.Schema, name: str) -> str:
    for feature in schema.feature:
        if feature.name == name:
            return _domain(feature)
    return "no such feature"


def _domain(feature: schema_pb2.Feature) -> str:
    kind = schema_pb2.FeatureType.Name(feature.type).lower()
    domain = getattr(feature, feature.WhichOneof("domain_info") or "int_domain")
    values = ""
    if feature.WhichOneof("domain_info") in ("int_domain", "float_domain"):
        values = f" from {domain.min:g} to {domain.max:g}"
    presence = ", one per example" if feature.presence.min_fraction == 1 else ""
    return f"{kind}{values}{presence}"


def _rejection(found: list[str], statistics: Any, anomalies: Any) -> str:
    lines = "\n".join(f"  - {line}" for line in found)
    return (
        f"the data of span {statistics.span} is not what the schema says; "
        f"the run stops before training on it.\n{lines}\n"
        "To look closer: tfdv.visualize_statistics on the statistics in "
        f"{statistics.uri}, tfdv.display_anomalies on {anomalies.uri}. If the data is right, "
        "change pipeline/schema/schema.pbtxt."
    )


def _read_anomalies(directory: str) -> anomalies_pb2.Anomalies:
    with fileio.open(os.path.join(directory, _ANOMALIES_FILE), "rb") as file:
        return anomalies_pb2.Anomalies.FromString(file.read())


def _count_examples(directory: str) -> int:
    statistics = tfdv.load_stats_binary(os.path.join(directory, _STATISTICS_FILE))
    return int(statistics.datasets[0].num_examples)
