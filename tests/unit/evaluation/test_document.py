"""`evaluation.json`: what any parser reads, whatever the numbers are."""

import json
import math

import pytest

from evaluation import document
from evaluation.decision import Check
from evaluation.metric_table import FIGURES, Estimate
from metrics.resampling import Interval


def test_numbers_that_do_not_exist_are_null() -> None:
    figures = document.figures_section(
        {"fid": Estimate(math.inf, Interval(-math.inf, math.nan)), "kid": Estimate(0.5, None)},
        {"fid": Estimate(math.nan, None)},
        {},
        {},
    )
    assert json.loads(document.encode(figures)) == {
        "fid": {
            "value": None,
            "interval": [None, None],
            "floor": None,
            "baseline": None,
            "difference": None,
        },
        "kid": {
            "value": 0.5,
            "interval": None,
            "floor": None,
            "baseline": None,
            "difference": None,
        },
    }


def test_figures_stand_in_the_order_of_their_table() -> None:
    candidate = {name: Estimate(1.0, None) for name in reversed(FIGURES)}
    assert list(document.figures_section(candidate, {}, {}, {})) == list(FIGURES)


def test_the_verdict_names_what_failed_and_nothing_else() -> None:
    good = Check("threshold", "fid_ratio", 2.0, None, "at most 10", True)
    bad = Check("threshold", "agreement", None, None, "at least 0.95", False)
    assert document.verdict_section([good]) == {"blessed": True, "reasons": []}
    verdict = document.verdict_section([good, bad])
    assert verdict == {
        "blessed": False,
        "reasons": ["agreement not measured, must be at least 0.95"],
    }
    assert document.checks_section([bad]) == [
        {
            "kind": "threshold",
            "figure": "agreement",
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
