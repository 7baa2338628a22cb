"""From figures to a blessing."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.generator_evaluator.decision import Check, check_bounds
from components.generator_evaluator.settings import Bounds, Thresholds

NUMBERS = st.floats(allow_nan=False)
NONE = Bounds(min=None, max=None)


def thresholds(**given_bounds: Bounds) -> Thresholds:
    """These bounds and no others, whatever the defaults are."""
    fields: dict[str, Any] = dict.fromkeys(Thresholds.model_fields, NONE)
    return Thresholds(**(fields | given_bounds))


@given(value=NUMBERS, low=st.none() | NUMBERS, high=st.none() | NUMBERS)
def test_bounds_hold_between_their_ends(
    value: float, low: float | None, high: float | None
) -> None:
    outside = (low is not None and value < low) or (high is not None and value > high)
    assert Bounds(min=low, max=high).holds(value) is not outside


@pytest.mark.parametrize("bounds", [NONE, Bounds(min=0), Bounds(max=0), Bounds(min=-1, max=1)])
def test_nan_never_passes(bounds: Bounds) -> None:
    assert bounds.holds(math.nan) is False


def test_the_ends_pass() -> None:
    bounds = Bounds(min=0.95, max=12)
    assert [bounds.holds(x) for x in (0.95, 12, math.nextafter(12, 13))] == [True, True, False]


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        (NONE, ""),
        (Bounds(min=0), "at least 0"),
        (Bounds(max=12.5), "at most 12.5"),
        (Bounds(min=0.95, max=1), "at least 0.95 and at most 1"),
    ],
)
def test_bounds_in_words(bounds: Bounds, text: str) -> None:
    assert str(bounds) == text


def test_one_check_for_each_figure_with_a_bound() -> None:
    checks = check_bounds(
        {"fid": 3.0, "agreement": 0.9, "other": 5.0},
        thresholds(fid=Bounds(max=12), agreement=Bounds(min=0.95)),
    )
    assert checks == [
        Check("fid", 3.0, "at most 12", True),
        Check("agreement", 0.9, "at least 0.95", False),
    ]


def test_no_bounds_no_checks() -> None:
    assert check_bounds({"fid": 1e9, "agreement": math.nan}, thresholds()) == []


def test_a_bound_of_zero_is_a_bound() -> None:
    checks = check_bounds({"fid": 0.1}, thresholds(fid=Bounds(max=0)))
    assert [check.passed for check in checks] == [False]


@pytest.mark.parametrize("name", list(Thresholds.model_fields))
def test_what_was_not_measured_does_not_pass(name: str) -> None:
    bounded = thresholds(**{name: Bounds(max=1e9)})
    assert [str(check) for check in check_bounds({}, bounded)] == [
        f"{name} not measured, must be at most 1e+09"
    ]
    for figures in ({}, {name: math.nan}, {name: math.inf}):
        assert [check.passed for check in check_bounds(figures, bounded)] == [False]
    assert [check.passed for check in check_bounds({name: 1e9}, bounded)] == [True]


def test_a_check_in_words() -> None:
    checks = check_bounds(
        {"fid": 13.61804, "agreement": math.nan},
        thresholds(fid=Bounds(max=12.0), agreement=Bounds(min=0.95, max=1)),
    )
    assert [str(check) for check in checks] == [
        "fid 13.62, must be at most 12",
        "agreement nan, must be at least 0.95 and at most 1",
    ]
