"""The budget of a training in seconds and steps, and intervals of its time."""

import contextlib
import time
from collections.abc import Iterator

from models.gan.settings import TrainSettings

_LONGEST_CALL_SECONDS = 2.0


class Budget:
    """Measures how much of `max_seconds` and `max_steps` a training has used.

    Attributes:
      reserved_seconds: to keep free at the end of `max_seconds`, for the last evaluation.
    """

    def __init__(self, settings: TrainSettings, seconds: float = 0.0) -> None:
        """Starts the clock.

        Args:
          settings: the limits.
          seconds: of training before an interruption.
        """
        self._settings = settings
        self._started = time.monotonic() - seconds
        self.reserved_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of training so far, without pauses."""
        return time.monotonic() - self._started

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time within the block."""
        paused = time.monotonic()
        yield
        self._started += time.monotonic() - paused

    def fraction(self, step: int) -> float:
        """The fraction of the budget used after `step` updates, 0..1."""
        by_seconds = by_steps = 0.0
        if self._settings.max_seconds:
            available = max(self._settings.max_seconds - self.reserved_seconds, 1e-6)
            by_seconds = self.seconds / available
        if self._settings.max_steps:
            by_steps = step / self._settings.max_steps
        return min(max(by_seconds, by_steps), 1.0)

    def first_steps(self) -> int:
        """Updates in the first call to the device, which also traces the graph."""
        return 1 if self._settings.max_seconds else self._settings.steps_per_execution

    def next_steps(self, steps: int, seconds: float) -> int:
        """Updates in the next call to the device: `steps_per_execution`, or as many as take 2 s.

        Short calls keep a slow machine from exceeding `max_seconds`. The number does not change the
        results, except that each call sets the learning rates once.

        Args:
          steps: updates in the last call.
          seconds: duration of the last call.
        """
        if self._settings.max_seconds is None:
            return self._settings.steps_per_execution
        fitting = int(steps * _LONGEST_CALL_SECONDS / max(seconds, 1e-6))
        return min(max(fitting, 1), 4 * steps, self._settings.steps_per_execution)

    def clip_steps(self, steps: int, step: int) -> int:
        """Limits the updates of a call to those that are left of `max_steps` after `step`."""
        return min(steps, self._settings.max_steps - step) if self._settings.max_steps else steps


class Interval:
    """A recurring interval of a budget's time."""

    def __init__(self, budget: Budget, seconds: float) -> None:
        self._budget = budget
        self._seconds = seconds
        self._started = budget.seconds

    def is_over(self) -> bool:
        """Whether `seconds` have passed since the last restart."""
        return self._budget.seconds - self._started >= self._seconds

    def restart(self) -> float:
        """Starts the next interval; returns the seconds since the last restart."""
        previous, self._started = self._started, self._budget.seconds
        return self._started - previous
