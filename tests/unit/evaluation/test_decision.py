"""From figures to a blessing."""

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evaluation.decision import Check, check_baseline, check_thresholds
from evaluation.metric_table import FIGURES, Estimate
from evaluation.settings import (
    CONDITIONAL_FIGURES,
    DEEP_FIGURES,
    Bounds,
    Thresholds,
    Tolerances,
)
from metrics.resampling import Interval

NUMBERS = st.floats(allow_nan=False)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
NONE = Bounds(min=None, max=None)


def thresholds(**given_bounds: Bounds) -> Thresholds:
    """These bounds and no others, whatever the defaults are."""
    fields: dict[str, Any] = dict.fromkeys(Thresholds.model_fields, NONE)
    return Thresholds(**(fields | given_bounds))


def alone(**values: float) -> dict[str, Estimate]:
    """Figures without intervals."""
    return {name: Estimate(value, None) for name, value in values.items()}


def tolerances(**given_tolerances: float) -> Tolerances:
    """These tolerances and no others, whatever the defaults are."""
    fields: dict[str, Any] = dict.fromkeys(Tolerances.model_fields)
    return Tolerances(**(fields | given_tolerances))


@given(value=NUMBERS, low=st.none() | FINITE, high=st.none() | FINITE)
def test_bounds_hold_between_their_ends(
    value: float, low: float | None, high: float | None
) -> None:
    assume(low is None or high is None or low <= high)
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
    checks = check_thresholds(
        alone(fid=3.0, agreement=0.9, other=5.0),
        thresholds(fid=Bounds(max=12), agreement=Bounds(min=0.95)),
    )
    assert checks == [
        Check("threshold", "fid", 3.0, None, "at most 12", True),
        Check("threshold", "agreement", 0.9, None, "at least 0.95", False),
    ]


def test_no_bounds_no_checks() -> None:
    assert check_thresholds(alone(fid=1e9, agreement=math.nan), thresholds()) == []


def test_a_bound_of_zero_is_a_bound() -> None:
    checks = check_thresholds(alone(fid=0.1), thresholds(fid=Bounds(max=0)))
    assert [check.passed for check in checks] == [False]


@pytest.mark.parametrize("name", list(Thresholds.model_fields))
def test_what_was_not_measured_does_not_pass(name: str) -> None:
    bounded = thresholds(**{name: Bounds(max=1e9)})
    assert [str(check) for check in check_thresholds({}, bounded)] == [
        f"{name} not measured, must be at most 1e+09"
    ]
    for figures in ({}, alone(**{name: math.nan}), alone(**{name: math.inf})):
        assert [check.passed for check in check_thresholds(figures, bounded)] == [False]
    assert [check.passed for check in check_thresholds(alone(**{name: 1e9}), bounded)] == [True]


def test_a_check_in_words() -> None:
    checks = check_thresholds(
        {"fid": Estimate(13.61804, Interval(12.5, 14.75)), "agreement": Estimate(math.nan, None)},
        thresholds(fid=Bounds(max=12.0), agreement=Bounds(min=0.95, max=1)),
    )
    assert [str(check) for check in checks] == [
        "fid 13.62 (12.5 to 14.75), must be at most 12",
        "agreement nan, must be at least 0.95 and at most 1",
    ]


@pytest.mark.parametrize(
    ("figure", "difference", "passed"),
    [
        # Lower is better; 5 % of 2 is 0.1.
        ("fid", Estimate(0.3, Interval(0.11, 0.5)), False),
        ("fid", Estimate(0.3, Interval(0.09, 0.5)), True),
        ("fid", Estimate(-0.3, Interval(-0.5, -0.11)), True),
        ("fid", Estimate(0.11, None), False),
        # Higher is better; 0.05 as it is.
        ("agreement", Estimate(-0.3, Interval(-0.5, -0.06)), False),
        ("agreement", Estimate(-0.3, Interval(-0.5, -0.04)), True),
        ("agreement", Estimate(0.3, Interval(0.06, 0.5)), True),
        ("agreement", Estimate(-0.06, None), False),
    ],
)
def test_worse_is_when_the_whole_interval_is(
    figure: str, difference: Estimate, passed: bool
) -> None:
    [check] = check_baseline(
        {figure: difference}, alone(**{figure: 2.0}), tolerances(**{figure: 0.05})
    )
    assert (check.kind, check.figure, check.passed) == ("baseline", figure, passed)
    assert (check.value, check.interval) == difference


def test_a_check_against_the_baseline_in_words() -> None:
    checks = check_baseline(
        {
            "fid": Estimate(0.037, Interval(0.02, 0.054)),
            "agreement": Estimate(-0.25, Interval(-0.375, -0.125)),
        },
        alone(fid=0.153, agreement=0.994),
        tolerances(fid=0.05, agreement=0.01),
    )
    assert [str(check) for check in checks] == [
        "fid +0.037 (+0.02 to +0.054), must be at most 0.00765 above the baseline's 0.153",
        "agreement -0.25 (-0.375 to -0.125), must be at most 0.01 below the baseline's 0.994",
    ]


@pytest.mark.parametrize(
    ("on_eval", "on_test", "failed"),
    [
        # Served: FID 0.200 on the new window, 0.150 on the test split. The rooms are 3 % of the
        # one, 0.006, and 20 % of the other, 0.030.
        ((-0.05, -0.01), (-0.01, 0.00), []),
        # Better on what is new, a bit worse on what is old: it wins.
        ((-0.05, -0.01), (0.01, 0.05), []),
        ((-0.05, -0.01), (0.030, 0.05), []),
        # Better on what is new and has forgotten what is old.
        ((-0.05, -0.01), (0.031, 0.05), ["test_fid"]),
        # Worse on what is new, and the test split cannot make up for it.
        ((0.007, 0.05), (-0.05, -0.01), ["fid"]),
        ((0.007, 0.05), (0.031, 0.05), ["fid", "test_fid"]),
        # By chance, either way.
        ((-0.01, 0.02), (-0.01, 0.04), []),
    ],
)
def test_the_new_window_decides_and_the_test_split_has_a_wider_room(
    on_eval: tuple[float, float], on_test: tuple[float, float], failed: list[str]
) -> None:
    differences = {
        name: Estimate(sum(interval) / 2, Interval(*interval))
        for name, interval in (("fid", on_eval), ("test_fid", on_test))
    }
    checks = check_baseline(differences, alone(fid=0.2, test_fid=0.15), Tolerances())
    assert [check.figure for check in checks if not check.passed] == failed


def test_without_a_baseline_there_is_nothing_to_be_worse_than() -> None:
    assert check_baseline({}, {}, Tolerances()) == []


def test_what_only_the_baseline_has_does_not_pass() -> None:
    """A generator that takes no digit in place of one that does."""
    [check] = check_baseline({}, alone(agreement=0.99), tolerances(agreement=0.01))
    assert not check.passed
    assert str(check).startswith("agreement not measured, must be at most 0.01 below")


def test_a_figure_without_a_tolerance_may_be_anything() -> None:
    assert check_baseline(alone(fid=1e9), alone(fid=0.1), tolerances()) == []


def test_every_figure_has_a_threshold_and_every_tolerance_a_direction() -> None:
    assert set(Thresholds.model_fields) == set(FIGURES)
    assert all(FIGURES[name].better for name in Tolerances.model_fields)
    conditional = {name for name, figure in FIGURES.items() if figure.conditional}
    assert conditional == set(CONDITIONAL_FIGURES)
    assert set(DEEP_FIGURES) < set(FIGURES)
