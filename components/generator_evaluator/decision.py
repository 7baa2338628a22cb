"""The decision from figures to blessing."""

from collections.abc import Mapping
from dataclasses import dataclass

from components.generator_evaluator.settings import Thresholds


@dataclass(frozen=True)
class Check:
    """One bound against one figure.

    Attributes:
      figure: its name.
      value: what was measured; None when the figure does not apply to this generator.
      bound: the bound in words.
      passed: whether the value keeps to it.
    """

    figure: str
    value: float | None
    bound: str
    passed: bool

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.4g}"
        return f"{self.figure} {value}, must be {self.bound}"


def check_bounds(figures: Mapping[str, float], thresholds: Thresholds) -> list[Check]:
    """Checks every figure that has a bound; one that was not measured does not pass."""
    checks = []
    for name in type(thresholds).model_fields:
        bounds = getattr(thresholds, name)
        if str(bounds):
            value = figures.get(name)
            passed = value is not None and bounds.holds(value)
            checks.append(Check(name, value, str(bounds), passed))
    return checks
