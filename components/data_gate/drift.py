"""How far the statistics of new data are from those of the data before, as TFDV measures it."""

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components.data_gate.distance import Distance

_Measurement = anomalies_pb2.DriftSkewInfo.Measurement
_KINDS = {
    _Measurement.JENSEN_SHANNON_DIVERGENCE: "jensen_shannon",
    _Measurement.L_INFTY: "l_infinity",
}
_LABEL = "label"


def measure(
    new: statistics_pb2.DatasetFeatureStatisticsList,
    before: statistics_pb2.DatasetFeatureStatisticsList,
    schema: schema_pb2.Schema,
) -> list[Distance]:
    """TFDV's drift of each feature that the schema bounds, in the schema's order."""
    asked = schema_pb2.Schema()
    asked.CopyFrom(schema)
    for feature in asked.feature:
        if feature.WhichOneof("domain_info"):
            comparator = feature.drift_comparator
            kind = "infinity_norm" if feature.name == _LABEL else "jensen_shannon_divergence"
            getattr(comparator, kind).threshold = 0.0
    report = tfdv.validate_statistics(new, asked, previous_statistics=before)
    found = {
        (info.path.step[0], _KINDS[each.type]): each.value
        for info in report.drift_skew_info
        for each in info.drift_measurements
    }
    return [
        Distance(name, kind, found[name, kind])
        for name in (feature.name for feature in schema.feature)
        for kind in _KINDS.values()
        if (name, kind) in found
    ]
