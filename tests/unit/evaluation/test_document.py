"""`evaluation.json`: what any parser reads, whatever the numbers are."""

import json
import math

import pytest

from evaluation import document
from evaluation.decision import Check
from evaluation.metric_table import METRICS
from metrics.resampling import Estimate, Interval


def test_numbers_that_do_not_exist_are_null() -> None:
    section = document.metrics_section(
        {"fid": Estimate(math.inf, Interval(-math.inf, math.nan)), "kid": Estimate(0.5, None)},
        {"fid": Estimate(math.nan, None)},
        {},
        {},
    )
    unknown = dict.fromkeys(("value", "interval", "floor", "baseline", "difference"))
    assert json.loads(document.encode(section)) == {
        "fid": unknown
        | {
            "title": "FID",
            "unit": METRICS["fid"].unit,
            "direction": "lower",
            "interval": [None, None],
        },
        "kid": unknown
        | {"title": "KID", "unit": METRICS["kid"].unit, "direction": "lower", "value": 0.5},
    }


def test_metrics_stand_in_the_order_of_the_table() -> None:
    candidate = {name: Estimate(1.0, None) for name in reversed(METRICS)}
    assert list(document.metrics_section(candidate, {}, {}, {})) == list(METRICS)


def test_the_verdict_names_what_failed_and_nothing_else() -> None:
    good = Check("threshold", "fid_ratio", 2.0, None, "at most 10", True)
    bad = Check("threshold", "conditional_accuracy", None, None, "at least 0.95", False)
    assert document.verdict_section([good]) == {"blessed": True, "reasons": []}
    verdict = document.verdict_section([good, bad])
    assert verdict == {
        "blessed": False,
        "reasons": ["conditional_accuracy not measured, must be at least 0.95"],
    }
    assert document.checks_section([bad]) == [
        {
            "kind": "threshold",
            "metric": "conditional_accuracy",
            "value": None,
            "interval": None,
            "bound": "at least 0.95",
            "passed": False,
        }
    ]


def test_a_number_that_slips_through_is_an_error_and_no_nan() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        document.encode({"x": math.nan})


def test_about_tells_where_it_is_from() -> None:
    given = {
        "data": {"span": 1},
        "train": {"seed": 0},
        "tuned": {"latent_dim": 32},
        "classifier": {"steps": 5},
        "evaluation": {"samples": 10},
    }
    about = document.about_section(**given)
    assert {name: about[name] for name in given} == given
    assert {"python", "tensorflow", "tfx", "keras", "numpy"} <= set(about["versions"])
    assert about["created"].endswith("+00:00")
    assert about["commit"] is None or len(about["commit"]) == 40
