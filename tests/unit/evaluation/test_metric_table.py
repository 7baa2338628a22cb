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


def test_the_default_tolerances_are_those_of_the_table() -> None:
    assert {m.name: Tolerances().of(m) for m in METRICS.values()} == {
        m.name: m.tolerance for m in METRICS.values()
    }
    assert all(m.is_comparable for m in METRICS.values() if m.tolerance is not None)


def test_one_factor_widens_all_tolerances_but_those_of_the_fids() -> None:
    recall, fid = METRICS["recall"], METRICS["fid"]
    assert recall.tolerance is not None
    assert Tolerances(others=2.0).of(recall) == 2 * recall.tolerance
    assert Tolerances(others=2.0).of(fid) == fid.tolerance
    assert Tolerances(others=None).of(recall) is None
    assert Tolerances(fid=None).of(fid) is None


def test_no_default_is_lost() -> None:
    """A default in a row that makes no setting would have no effect."""
    for metric in METRICS.values():
        assert metric.threshold is None or metric.name in Thresholds.model_fields


@pytest.mark.parametrize(
    ("section", "value"),
    [
        (Thresholds, {"precision": 1.5}),
        (Thresholds, {"classifier_score": 0.5}),
        (Thresholds, {"fid_ratio": float("nan")}),
        (Thresholds, {"density": float("inf")}),
        (Thresholds, {"nearest_neighbor_distance": 1.0}),
        (Thresholds, {"fid": 1.0}),
        (Tolerances, {"others": -0.1}),
        (Tolerances, {"recall": 0.1}),
    ],
)
def test_a_bound_that_could_not_be_meant_is_refused(section: type, value: dict) -> None:
    with pytest.raises(ValidationError):
        section(**value)


def test_the_page_of_the_docs_is_current() -> None:
    """`python -m evaluation.metric_table > docs/metrics.md` makes it."""
    assert (ROOT / "docs" / "metrics.md").read_text() == as_markdown()
