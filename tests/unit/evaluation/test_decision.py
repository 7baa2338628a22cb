"""From metrics to a blessing."""

import math
from typing import Any

import pytest

from evaluation.decision import Check, check_baseline, check_thresholds
from evaluation.metric_table import METRICS
from evaluation.settings import Thresholds, Tolerances
from metrics.resampling import Estimate, Interval


def thresholds(**given_bounds: float) -> Thresholds:
    """These bounds and no others, whatever the defaults are."""
    fields: dict[str, Any] = dict.fromkeys(Thresholds.model_fields)
    return Thresholds(**(fields | given_bounds))


def alone(**values: float) -> dict[str, Estimate]:
    """Metrics without intervals."""
    return {name: Estimate(value, None) for name, value in values.items()}


def tolerances(**given_tolerances: float) -> Tolerances:
    """These tolerances, whatever the defaults are; of the metrics without a setting, one."""
    fields: dict[str, Any] = dict.fromkeys(Tolerances.model_fields)
    for name, value in given_tolerances.items():
        of_table = METRICS[name].tolerance
        fields |= {name: value} if name in fields else {"others": value / (of_table or 1)}
    return Tolerances(**fields)


def test_one_check_for_each_metric_with_a_threshold() -> None:
    checks = check_thresholds(
        alone(fid_ratio=3.0, conditional_accuracy=0.9, other=5.0),
        thresholds(fid_ratio=12, conditional_accuracy=0.95),
    )
    assert checks == [
        Check("threshold", "fid_ratio", 3.0, None, "at most 12", True),
        Check("threshold", "conditional_accuracy", 0.9, None, "at least 0.95", False),
    ]


def test_without_thresholds_there_are_no_checks() -> None:
    assert check_thresholds(alone(fid_ratio=1e9, recall=math.nan), thresholds()) == []


@pytest.mark.parametrize("name", list(Thresholds.model_fields))
def test_the_direction_of_the_table_says_on_which_side_a_value_passes(name: str) -> None:
    low, high = (1.0, 2.0) if METRICS[name].limits[1] > 1 else (0.25, 0.5)
    middle = (low + high) / 2
    better, worse = (high, low) if METRICS[name].direction == "higher" else (low, high)
    passed = [
        [check.passed for check in check_thresholds(alone(**{name: value}), thresholds(**bound))]
        for bound in [{name: middle}]
        for value in (better, middle, worse, math.nan)
    ]
    assert passed == [[True], [True], [False], [False]]
    assert [c.passed for c in check_thresholds({}, thresholds(**{name: middle}))] == [False]


def test_a_threshold_of_zero_is_a_threshold() -> None:
    [check] = check_thresholds(alone(fid_ratio=0.1), thresholds(fid_ratio=0))
    assert not check.passed


def test_a_check_in_words() -> None:
    checks = check_thresholds(
        {
            "fid_ratio": Estimate(13.61804, Interval(12.5, 14.75)),
            "recall": Estimate(math.nan, None),
        },
        thresholds(fid_ratio=12.0, recall=0.95, coverage=0.5),
    )
    assert [str(check) for check in checks] == [
        "fid_ratio 13.62 (12.5 to 14.75), must be at most 12",
        "recall nan, must be at least 0.95",
        "coverage not measured, must be at least 0.5",
    ]


def test_a_check_is_read_back_from_json() -> None:
    check = Check("baseline", "fid", 0.5, Interval(0.25, 0.75), "at most 1", True)
    assert Check.from_json({**vars(check), "interval": [0.25, 0.75]}) == check
    assert Check.from_json({**vars(check), "interval": [None, 0.75]}).interval is None


@pytest.mark.parametrize(
    ("metric", "difference", "passed"),
    [
        # Lower is better; 5 % of 2 is 0.1.
        ("fid", Estimate(0.3, Interval(0.11, 0.5)), False),
        ("fid", Estimate(0.3, Interval(0.09, 0.5)), True),
        ("fid", Estimate(-0.3, Interval(-0.5, -0.11)), True),
        ("fid", Estimate(0.11, None), False),
        # Higher is better; 0.05 as it is.
        ("conditional_accuracy", Estimate(-0.3, Interval(-0.5, -0.06)), False),
        ("conditional_accuracy", Estimate(-0.3, Interval(-0.5, -0.04)), True),
        ("conditional_accuracy", Estimate(0.3, Interval(0.06, 0.5)), True),
        ("conditional_accuracy", Estimate(-0.06, None), False),
    ],
)
def test_worse_is_when_the_whole_interval_is(
    metric: str, difference: Estimate, passed: bool
) -> None:
    [check] = check_baseline(
        {metric: difference}, alone(**{metric: 2.0}), tolerances(**{metric: 0.05})
    )
    assert (check.kind, check.metric, check.passed) == ("baseline", metric, passed)
    assert (check.value, check.interval) == difference


def test_a_check_against_the_baseline_in_words() -> None:
    checks = check_baseline(
        {
            "fid": Estimate(0.037, Interval(0.02, 0.054)),
            "recall": Estimate(-0.25, Interval(-0.375, -0.125)),
        },
        alone(fid=0.153, recall=0.994),
        tolerances(fid=0.05, recall=0.01),
    )
    assert [str(check) for check in checks] == [
        "fid +0.037 (+0.02 to +0.054), must be at most 0.00765 above the baseline's 0.153",
        "recall -0.25 (-0.375 to -0.125), must be at most 0.01 below the baseline's 0.994",
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
    assert [check.metric for check in checks if not check.passed] == failed


def test_without_a_baseline_there_is_nothing_to_be_worse_than() -> None:
    assert check_baseline({}, {}, Tolerances()) == []


def test_what_only_the_baseline_has_does_not_pass() -> None:
    """An unconditional generator beside a conditional one."""
    [check] = check_baseline(
        {}, alone(conditional_accuracy=0.99), tolerances(conditional_accuracy=0.01)
    )
    assert not check.passed
    assert str(check).startswith("conditional_accuracy not measured, must be at most 0.01 below")


def test_a_metric_without_a_tolerance_may_be_anything() -> None:
    assert check_baseline(alone(fid=1e9), alone(fid=0.1), tolerances()) == []
