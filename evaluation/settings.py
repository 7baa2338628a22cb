"""Typed settings of the evaluation. Thresholds and tolerances are made from the metric table."""

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from evaluation.metric_table import METRICS, Metric


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _threshold(metric: Metric) -> tuple[Any, Any]:
    low, high = (limit if math.isfinite(limit) else None for limit in metric.limits)
    bound = "highest" if metric.direction == "lower" else "lowest"
    field = Field(
        metric.threshold,
        ge=low,
        le=high,
        allow_inf_nan=False,  # as JSON either is null, which means no bound
        description=f"{metric.title}, {bound} accepted value: {metric.description} ({metric.unit})",
    )
    return float | None, field


def _tolerance(metric: Metric) -> tuple[Any, Any]:
    description = f"{metric.title}, largest accepted loss, as a share of the served model's value"
    return float | None, Field(metric.tolerance, ge=0, allow_inf_nan=False, description=description)


_thresholds: dict[str, Any] = {
    metric.name: _threshold(metric) for metric in METRICS.values() if metric.is_bounded
}
_tolerances: dict[str, Any] = {
    metric.name: _tolerance(metric)
    for metric in METRICS.values()
    if metric.in_feature_units and metric.tolerance is not None
}
# As a base, mypy accepts no class made at run time, but a value of type Any.
_Thresholds: Any = create_model("_Thresholds", __base__=_Section, **_thresholds)
_Tolerances: Any = create_model("_Tolerances", __base__=_Section, **_tolerances)


class Thresholds(_Thresholds):
    """The worst accepted value of each metric that `is_bounded`; None for no bound."""


class Tolerances(_Tolerances):
    """How much worse than the served model's each metric may be; None for no bound."""

    others: float | None = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="factor on the tolerances of all other metrics, see docs/metrics.md; null: "
        "these are not compared",
    )

    def of(self, metric: Metric) -> float | None:
        """The tolerance of a metric, in its unit or, `in_feature_units`, a share of the value."""
        if metric.in_feature_units or metric.tolerance is None or self.others is None:
            return getattr(self, metric.name, None)
        return metric.tolerance * self.others


class EvaluationSettings(_Section):
    """How a generator is measured, and what blesses it."""

    samples: int = Field(10_000, ge=100, le=1_000_000, description="generated images")
    fid_samples: int = Field(
        20_000, ge=100, le=1_000_000, description="generated images for the FID, if more"
    )
    deep: bool = Field(
        False, description="also compute the metrics that train a network: minutes per generator"
    )
    thresholds: Thresholds = Thresholds()
    tolerances: Tolerances = Tolerances()
    broken_baseline: Literal["fail", "ignore"] = Field(
        "fail", description="what to do if the served model cannot be loaded"
    )
