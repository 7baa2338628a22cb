"""How far new data are from the data behind the served version.

The distances are those of TFDV's drift comparators, computed with NumPy and SciPy, so that a look
before a run need not import TFDV. A test compares both.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy
from tensorflow_metadata.proto.v0 import statistics_pb2

LABEL = "label"
CLASSES = 10


@dataclass(frozen=True)
class Distance:
    """The distance of a feature from the served data.

    Attributes:
      feature: name of the feature.
      kind: `l_infinity` for the label, the largest change of a label's share; `jensen_shannon` for
        any other feature, the divergence of its histograms in bits.
      value: 0 to 1.
    """

    feature: str
    kind: str
    value: float


def measure(
    columns: Mapping[str, np.ndarray], served: statistics_pb2.DatasetFeatureStatistics
) -> list[Distance]:
    """Measures the distance of each feature that has statistics of the served data.

    Args:
      columns: values of the new data [n] by feature, n of 1 or more; labels are 0 to 9.
      served: TFDV's statistics of the served data. A numeric feature needs a STANDARD histogram,
        whose outermost bins hold what is outside.

    Returns:
      The distances in the order of the columns.
    """
    features = {feature.path.step[-1]: feature for feature in served.features}
    return [
        distance
        for name, values in columns.items()
        if name in features
        for distance in _distances(values, features[name])
    ]


def _distances(
    values: np.ndarray, served: statistics_pb2.FeatureNameStatistics
) -> Iterator[Distance]:
    name = served.path.step[-1]
    if name == LABEL:
        shares = np.bincount(values, minlength=CLASSES)[:CLASSES] / len(values)
        yield Distance(name, "l_infinity", float(np.abs(shares - _label_shares(served)).max()))
    for histogram in served.num_stats.histograms:
        if histogram.type == statistics_pb2.Histogram.STANDARD and histogram.buckets:
            highs = [bucket.high_value for bucket in histogram.buckets]
            edges = np.array([histogram.buckets[0].low_value, *highs])
            new, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
            old = np.array([bucket.sample_count for bucket in histogram.buckets])
            yield Distance(name, "jensen_shannon", jensen_shannon(new, old))


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the Jensen-Shannon divergence of two histograms over the same bins.

    Args:
      first: counts [k].
      second: counts [k].

    Returns:
      The divergence in bits, 0 to 1.
    """
    # SciPy's is the root, which rounding makes NaN for equal histograms.
    return float(np.nan_to_num(scipy.spatial.distance.jensenshannon(first, second, base=2)) ** 2)


def _label_shares(served: statistics_pb2.FeatureNameStatistics) -> np.ndarray:
    counts = {
        bucket.label: bucket.sample_count for bucket in served.string_stats.rank_histogram.buckets
    }
    shares = np.array([counts.get(str(digit), 0.0) for digit in range(CLASSES)])
    return shares / max(shares.sum(), 1.0)
