"""How far new spans lie from the data behind the served version, in numpy: no TFX is loaded.

A look before a run. Within it `DataGate` measures the same distances with TFDV.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.data_gate.distance import Distance
from mnist.completeness import SpanState
from mnist.digits import read_digits
from mnist.features import LABEL_FEATURE, derive_scalars
from pipeline.local.places import UsageError
from registry.layout import STATISTICS_FILES, newest_version, version_dir
from registry.records import data_fingerprints, read_statistics

# More pictures of a span change a divergence by a hundredth, and cost time.
_PICTURES = 5_000
_DIGITS = 10


def find_drift(
    serving_dir: Path, spans: Sequence[SpanState], limits: Mapping[str, float | None]
) -> tuple[bool, str]:
    """Whether a span that the served version was not made of lies too far from those it was.

    Args:
      serving_dir: with a folder per version.
      spans: complete ones.
      limits: by kind of distance; None: any distance will do.

    Returns:
      Whether there is such a span; and which, how far and in what, or why there is none. It holds
      too where nothing is served, or a version that does not say what it was made of.

    Raises:
      UsageError: what the version says of its data cannot be read.
    """
    version = newest_version(serving_dir)
    if version is None:
        return True, "nothing is served yet"
    served = _read_served(version_dir(serving_dir, version))
    if served is None:
        return True, f"version {version} does not say what data it was made of"
    known, statistics = served
    new = [state for state in spans if state.fingerprint not in known]
    if not new:
        return False, f"version {version} was made of these very data"
    for state in new:
        over = [
            f"{each.feature} by {each.value:.3f} (let pass: {limit:g})"
            for each in measure(statistics, *_read_digits(state))
            if (limit := limits[each.kind]) is not None and each.value > limit
        ]
        if over:
            return True, f"span {state.span} has drifted in {', '.join(over)}"
    names = ", ".join(str(state.span) for state in new)
    return False, f"span {names} has not drifted from the data behind version {version}"


def measure(
    statistics: statistics_pb2.DatasetFeatureStatistics, images: np.ndarray, labels: np.ndarray
) -> list[Distance]:
    """Compares pictures with the statistics of others, as TFDV's drift comparator does.

    Args:
      statistics: TFDV's, of the others; each numeric feature with a STANDARD histogram, whose
        outermost bins take in what lies outside.
      images: uint8 [n, 28, 28], n at least 1; of more than 5,000 as many are taken, evenly spaced.
      labels: uint8 [n].

    Returns:
      The distance of each feature that has statistics, the label first.
    """
    features = {feature.path.step[-1]: feature for feature in statistics.features}
    rows = np.linspace(0, len(images) - 1, min(len(images), _PICTURES)).astype(np.int64)
    found = []
    if LABEL_FEATURE in features:
        shares = np.bincount(labels, minlength=_DIGITS)[:_DIGITS] / max(len(labels), 1)
        change = np.abs(shares - _label_shares(features[LABEL_FEATURE])).max()
        found.append(Distance(LABEL_FEATURE, "l_infinity", float(change)))
    for name, values in derive_scalars(images[rows]).items():
        for edges, counts in _standard_histograms(features.get(name)):
            new, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
            found.append(Distance(name, "jensen_shannon", jensen_shannon(new, counts)))
    return found


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> float:
    """The Jensen-Shannon divergence of two histograms over the same bins, counts [k], in bits."""
    p, q = first / first.sum(), second / second.sum()
    mean = (p + q) / 2
    return (_relative_entropy(p, mean) + _relative_entropy(q, mean)) / 2


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    held = p > 0
    return float((p[held] * np.log2(p[held] / q[held])).sum())


def _label_shares(feature: statistics_pb2.FeatureNameStatistics) -> np.ndarray:
    buckets = feature.string_stats.rank_histogram.buckets
    counts = {bucket.label: bucket.sample_count for bucket in buckets}
    shares = np.array([counts.get(str(digit), 0.0) for digit in range(_DIGITS)])
    return shares / max(shares.sum(), 1.0)


def _standard_histograms(
    feature: statistics_pb2.FeatureNameStatistics | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Edges [k + 1] and counts [k], of one histogram or none."""
    for histogram in feature.num_stats.histograms if feature else ():
        if histogram.type == statistics_pb2.Histogram.STANDARD and histogram.buckets:
            highs = [bucket.high_value for bucket in histogram.buckets]
            counts = np.array([bucket.sample_count for bucket in histogram.buckets])
            yield np.array([histogram.buckets[0].low_value, *highs]), counts


def _read_served(
    version: Path,
) -> tuple[list[str], statistics_pb2.DatasetFeatureStatistics] | None:
    """The fingerprints of the spans behind a version, and their statistics; None where missing."""
    contents, known = read_statistics(version), data_fingerprints(version)
    if contents is None:
        return None
    try:
        found = statistics_pb2.DatasetFeatureStatisticsList()
        found.ParseFromString(contents[STATISTICS_FILES[0]])
        if known is None or not found.datasets:
            raise ValueError("spans or features are missing")
        return known, found.datasets[0]
    except (DecodeError, ValueError) as error:
        raise UsageError(
            f"the data statistics in {version} cannot be read ({error}). Expected what was pushed "
            "with it: take another condition than drift, or roll back to an intact version."
        ) from error


def _read_digits(state: SpanState) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of a span, the training digits first."""
    if state.files is None:
        raise ValueError(f"span {state.span} is not complete")
    parts = read_digits(state.files.paths, state.fingerprint)
    return (
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
