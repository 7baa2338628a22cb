"""Computes the metrics of the table on samples, with intervals from half-samples."""

from dataclasses import dataclass

import numpy as np

from evaluation.image_statistics import ReferenceStatistics, SampleStatistics
from evaluation.metric_table import METRICS
from metrics.resampling import Estimate, Interval, interval_of


@dataclass(frozen=True)
class MetricValues:
    """Metrics of one set of images.

    Attributes:
      values: by name of the metric, on all images.
      draws: by name of the metric, float64 [resamples], on each half-sample.
    """

    values: dict[str, float]
    draws: dict[str, np.ndarray]

    def estimates(self) -> dict[str, Estimate]:
        """Returns each metric with its interval, clipped to the metric's limits."""
        return {
            name: Estimate(
                value,
                Interval(*np.clip(interval_of(value, self.draws[name]), *METRICS[name].limits)),
            )
            for name, value in self.values.items()
        }


def measure(
    images: SampleStatistics, reference: ReferenceStatistics, halves: list[np.ndarray]
) -> MetricValues:
    """Computes every metric whose row has a function, and `fid_infinity`.

    Args:
      images: statistics of samples.
      reference: statistics of real images.
      halves: rows of each half-sample, among all samples.
    """
    available = {
        "labels": images.samples.labels is not None,
        "test split": reference.test_gaussian is not None,
        "deep": False,
    }
    values, draws = {}, {}
    for name, metric in METRICS.items():
        if metric.compute is None or not all(available[each] for each in metric.requires):
            continue
        total = len(images.features) if metric.uses_all_samples else len(images.predicted)
        values[name] = metric.compute(images, reference, np.arange(total))
        draws[name] = np.array(
            [metric.compute(images, reference, rows[rows < total]) for rows in halves]
        )
    # The bias falls as 1 / n (Chong and Forsyth 2020), so from n / 2 to n by half.
    values["fid_infinity"] = 2 * values["fid"] - float(draws["fid"].mean())
    draws["fid_infinity"] = draws["fid"]
    return MetricValues(values, draws)


def with_ratios(measured: MetricValues, floor: MetricValues) -> MetricValues:
    """Adds each Frechet distance divided by the Frechet distance of real training images."""
    values, draws = dict(measured.values), dict(measured.draws)
    for name in ("fid", "test_fid"):
        if name in values:
            unit = max(floor.values[name], 1e-12)
            values[f"{name}_ratio"] = values[name] / unit
            draws[f"{name}_ratio"] = draws[name] / unit
    return MetricValues(values, draws)


def difference(candidate: MetricValues, baseline: MetricValues) -> dict[str, Estimate]:
    """Returns candidate minus baseline for each metric of both, paired by half-sample."""
    return {
        name: Estimate(gap, interval_of(gap, candidate.draws[name] - baseline.draws[name]))
        for name, value in candidate.values.items()
        if name in baseline.values
        for gap in [value - baseline.values[name]]
    }
