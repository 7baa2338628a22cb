"""The decision from figures to blessing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from evaluation.metric_table import FIGURES, Estimate
from evaluation.settings import Thresholds, Tolerances
from metrics.resampling import Interval


@dataclass(frozen=True)
class Check:
    """One bound against one figure.

    Attributes:
      kind: `threshold`, or `baseline` for a bound on the difference from the model being served.
      figure: its name.
      value: what was measured, or its difference, candidate minus baseline; None when the figure
        does not apply to this generator.
      interval: 95 %, of the value.
      bound: the bound in words.
      passed: whether the value keeps to it.
    """

    kind: Literal["threshold", "baseline"]
    figure: str
    value: float | None
    interval: Interval | None
    bound: str
    passed: bool

    def __str__(self) -> str:
        sign = "+" if self.kind == "baseline" else ""
        value = "not measured" if self.value is None else f"{self.value:{sign}.4g}"
        if self.interval is not None:
            value += " ({:{s}.4g} to {:{s}.4g})".format(*self.interval, s=sign)
        return f"{self.figure} {value}, must be {self.bound}"


def check_thresholds(figures: Mapping[str, Estimate], thresholds: Thresholds) -> list[Check]:
    """Checks every figure that has a bound; one that was not measured does not pass."""
    checks = []
    for name in type(thresholds).model_fields:
        bounds = getattr(thresholds, name)
        if str(bounds):
            value, interval = figures.get(name, (None, None))
            passed = value is not None and bounds.holds(value)
            checks.append(Check("threshold", name, value, interval, str(bounds), passed))
    return checks


def check_baseline(
    differences: Mapping[str, Estimate], baseline: Mapping[str, Estimate], tolerances: Tolerances
) -> list[Check]:
    """Checks that no figure is worse than the baseline's by more than its tolerance.

    It is worse when the whole interval of the difference lies beyond the tolerance, so that chance
    alone rejects an equal candidate for a figure less often than 1 time in 40.

    Args:
      differences: candidate minus baseline, on the same rows of both.
      baseline: its figures; one that the candidate lacks does not pass.
      tolerances: of which a figure with None is not checked.
    """
    checks = []
    for name in type(tolerances).model_fields:
        tolerance = getattr(tolerances, name)
        if tolerance is None or name not in baseline:
            continue
        value, interval = differences.get(name, (None, None))
        reference = baseline[name].value
        room = tolerance * abs(reference) if FIGURES[name].relative else tolerance
        higher = FIGURES[name].better == "higher"
        bound = f"at most {room:.3g} {'below' if higher else 'above'} the baseline's"
        checks.append(
            Check(
                "baseline",
                name,
                value,
                interval,
                f"{bound} {reference:.4g}",
                value is not None and _least_harm(value, interval, higher) <= room,
            )
        )
    return checks


def _least_harm(value: float, interval: Interval | None, higher_is_better: bool) -> float:
    """By how much it is worse at the interval's better end."""
    low, high = interval or (value, value)
    return -high if higher_is_better else low
