"""The histograms of new data beside those of the data behind what is served, as plain numbers."""

from typing import Any

from tensorflow_metadata.proto.v0 import statistics_pb2

from components.data_gate.drift import CLASSES
from components.data_gate.statistics import DataStatistics


def histograms(new: DataStatistics, served: DataStatistics | None) -> dict[str, dict[str, Any]]:
    """By feature: `edges`, one more than bins, and `new` and `served`, the share of each bin.

    The label has `classes` in place of edges. `served` is None where there is nothing to compare
    with, or its bins are others.
    """
    mine, theirs = _features(new), _features(served) if served else {}
    found = {}
    for name, (where, bins, shares) in mine.items():
        other = theirs.get(name)
        same = other is not None and other[1] == bins
        found[name] = {where: bins, "new": shares, "served": other[2] if other and same else None}
    return found


def _features(statistics: DataStatistics) -> dict[str, tuple[str, list[float], list[float]]]:
    found = {}
    for feature in statistics.features.datasets[0].features:
        [name] = feature.path.step
        if feature.HasField("string_stats"):
            ranks = feature.string_stats.rank_histogram.buckets
            counts = {int(bucket.label): bucket.sample_count for bucket in ranks}
            values = [counts.get(digit, 0.0) for digit in range(CLASSES)]
            found[name] = ("classes", [float(digit) for digit in range(CLASSES)], _shares(values))
        for histogram in feature.num_stats.histograms:
            if histogram.type == statistics_pb2.Histogram.STANDARD and histogram.buckets:
                edges = [histogram.buckets[0].low_value, *(b.high_value for b in histogram.buckets)]
                found[name] = ("edges", edges, _shares([b.sample_count for b in histogram.buckets]))
    return found


def _shares(counts: list[float]) -> list[float]:
    total = sum(counts) or 1.0
    return [count / total for count in counts]
