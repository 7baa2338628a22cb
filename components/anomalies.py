"""What ExampleValidator found, in words."""

import os
from collections.abc import Iterator
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2
from tfx.types import artifact_utils

import storage

_ANOMALIES_FILE = "SchemaDiff.pb"


def find_anomalies(anomalies: Any) -> list[str]:
    """Reads an ExampleAnomalies artifact: a line per anomaly of every split."""
    return [
        line
        for split in artifact_utils.decode_split_names(anomalies.split_names)
        for line in describe_anomalies(
            _read_anomalies(artifact_utils.get_split_uri([anomalies], split)), split
        )
    ]


def describe_anomalies(report: anomalies_pb2.Anomalies, split: str) -> Iterator[str]:
    """Yields a line per anomaly: split, feature, what was seen, what the schema expects.

    Args:
      report: of TFDV.
      split: what the data are called.
    """
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


def _read_anomalies(directory: str) -> anomalies_pb2.Anomalies:
    content = storage.read(os.path.join(directory, _ANOMALIES_FILE))
    return anomalies_pb2.Anomalies.FromString(content)
