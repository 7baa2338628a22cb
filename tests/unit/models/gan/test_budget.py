"""The budget of a training: fractions of its time and steps, and the length of calls."""

import itertools
import time
from typing import Any

import pytest

from models.gan.budget import Budget, Interval
from models.gan.settings import TrainSettings


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the time that budgets read."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def budget_of(seconds: float | None, steps: int | None, before: float = 0.0) -> Budget:
    settings = TrainSettings(max_seconds=seconds, max_steps=steps, steps_per_execution=32)
    return Budget(settings, before)


@pytest.mark.parametrize(
    ("seconds", "steps", "expected"),
    [(40.0, None, 0.25), (None, 16, 0.125), (40.0, 16, 0.25), (1000.0, 4, 0.5), (5.0, 9, 1.0)],
)
def test_the_fraction_is_that_of_the_limit_that_is_nearer(clock, seconds, steps, expected) -> None:
    budget = budget_of(seconds, steps)
    clock(10)
    assert budget.fraction(step=2) == pytest.approx(expected)


def test_seconds_continue_after_an_interruption_and_exclude_pauses(clock) -> None:
    budget = budget_of(100.0, None, before=30.0)
    clock(5)
    with budget.paused():
        clock(50)
    clock(5)
    assert budget.seconds == pytest.approx(40)
    assert budget.fraction(0) == pytest.approx(0.4)


def test_time_is_reserved_for_the_last_evaluation(clock) -> None:
    budget = budget_of(100.0, None)
    budget.reserved_seconds = 20.0
    clock(80)
    assert budget.fraction(0) == 1.0
    budget.reserved_seconds = 200.0  # an evaluation that takes longer than the budget
    assert budget.fraction(0) == 1.0


def test_calls_are_as_long_as_fits_a_budget_of_time() -> None:
    budget = budget_of(60.0, None)
    assert budget.first_steps() == 1
    assert budget.next_steps(1, 30.0) == 1  # the first call traces the graph
    assert budget.next_steps(1, 0.001) == 4
    assert budget.next_steps(16, 4.0) == 8
    assert budget.next_steps(16, 0.1) == 32


def test_calls_have_the_same_length_under_a_budget_of_steps() -> None:
    budget = budget_of(None, 40)
    assert budget.first_steps() == 32
    assert budget.next_steps(32, 100.0) == 32
    assert [budget.clip_steps(32, step) for step in (0, 32)] == [32, 8]


def test_intervals(clock) -> None:
    interval = Interval(budget_of(100.0, None), 10.0)
    lengths = []
    for seconds in itertools.repeat(4, 7):
        clock(seconds)
        if interval.is_over():
            lengths.append(interval.restart())
    assert lengths == [12, 12]
