"""The metric table, and what is made from it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from evaluation.metric_table import METRICS, as_markdown
from evaluation.settings import Thresholds, Tolerances

ROOT = Path(__file__).parents[3]


def test_every_bounded_metric_has_a_threshold_with_its_default() -> None:
    bounded = {m.name: m.threshold for m in METRICS.values() if m.is_bounded}
    assert Thresholds().model_dump() == bounded
    assert not bounded.keys() & {"fid", "kid", "nearest_neighbor_distance"}


def test_every_metric_that_is_measured_on_half_samples_has_a_tolerance() -> None:
    comparable = {m.name: m.tolerance for m in METRICS.values() if m.direction and m.compute}
    assert Tolerances().model_dump() == comparable


def test_no_default_is_lost() -> None:
    """A default in a row that makes no setting would have no effect."""
    for metric in METRICS.values():
        assert metric.threshold is None or metric.name in Thresholds.model_fields
        assert metric.tolerance is None or metric.name in Tolerances.model_fields


@pytest.mark.parametrize(
    ("section", "value"),
    [
        (Thresholds, {"precision": 1.5}),
        (Thresholds, {"classifier_score": 0.5}),
        (Thresholds, {"fid_ratio": float("nan")}),
        (Thresholds, {"density": float("inf")}),
        (Thresholds, {"nearest_neighbor_distance": 1.0}),
        (Thresholds, {"fid": 1.0}),
        (Tolerances, {"recall": -0.1}),
        (Tolerances, {"fid_ratio": 0.1}),
    ],
)
def test_a_bound_that_could_not_be_meant_is_refused(section: type, value: dict) -> None:
    with pytest.raises(ValidationError):
        section(**value)


def test_the_page_of_the_docs_is_current() -> None:
    """`python -m evaluation.metric_table > docs/metrics.md` makes it."""
    assert (ROOT / "docs" / "metrics.md").read_text() == as_markdown()
