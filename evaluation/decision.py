"""The decision whether a generator is blessed, from its metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evaluation.metric_table import METRICS
from evaluation.settings import Thresholds, Tolerances
from metrics.resampling import Estimate, Interval


@dataclass(frozen=True)
class Check:
    """One bound, with the value that was held against it.

    Attributes:
      kind: `threshold`, or `baseline` for a bound on the difference from the served model.
      metric: name of the metric.
      value: value of the metric, or its difference, candidate minus baseline; None if the metric
        was not measured.
      interval: 95 % interval of the value; None without one.
      bound: the bound in words.
      passed: whether the value is within the bound.
    """

    kind: Literal["threshold", "baseline"]
    metric: str
    value: float | None
    interval: Interval | None
    bound: str
    passed: bool

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Check":
        """Reads an entry of `checks` in `evaluation.json`."""
        interval = content["interval"]
        is_known = interval is not None and None not in interval
        return cls(**{**content, "interval": Interval(*interval) if is_known else None})

    def __str__(self) -> str:
        sign = "+" if self.kind == "baseline" else ""
        value = "not measured" if self.value is None else f"{self.value:{sign}.4g}"
        if self.interval is not None:
            value += " ({:{s}.4g} to {:{s}.4g})".format(*self.interval, s=sign)
        return f"{self.metric} {value}, must be {self.bound}"


def check_thresholds(estimates: Mapping[str, Estimate], thresholds: Thresholds) -> list[Check]:
    """Checks every metric that has a threshold; a metric that was not measured fails."""
    checks = []
    for name, threshold in thresholds:
        if threshold is None:
            continue
        metric = METRICS[name]
        value, interval = estimates.get(name, (None, None))
        passed = value is not None and metric.accepts(value, threshold)
        word = "at least" if metric.direction == "higher" else "at most"
        checks.append(Check("threshold", name, value, interval, f"{word} {threshold:g}", passed))
    return checks


def check_baseline(
    differences: Mapping[str, Estimate], baseline: Mapping[str, Estimate], tolerances: Tolerances
) -> list[Check]:
    """Checks that no metric is worse than the served model's by more than its tolerance.

    A metric fails if the whole interval of its difference is beyond the tolerance, so that an equal
    candidate fails by chance less often than 1 time in 40.

    Args:
      differences: candidate minus baseline, paired by half-sample.
      baseline: metrics of the served model. One that the candidate lacks fails.
      tolerances: bounds; a metric whose tolerance is None is not checked.
    """
    checks = []
    for name, metric in METRICS.items():
        tolerance = tolerances.of(metric)
        if tolerance is None or name not in baseline:
            continue
        value, interval = differences.get(name, (None, None))
        reference = baseline[name].value
        allowed = tolerance * abs(reference) if metric.in_feature_units else tolerance
        higher = metric.direction == "higher"
        bound = f"at most {allowed:.3g} {'below' if higher else 'above'} the baseline's"
        checks.append(
            Check(
                "baseline",
                name,
                value,
                interval,
                f"{bound} {reference:.4g}",
                value is not None and _least_loss(value, interval, higher) <= allowed,
            )
        )
    return checks


def _least_loss(value: float, interval: Interval | None, higher_is_better: bool) -> float:
    """Returns how much worse the candidate is at the better end of the interval."""
    low, high = interval or (value, value)
    return -high if higher_is_better else low
