"""Passes of retraining at set times, each in a process of its own, until told to end."""

import datetime
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from pipeline.local.places import UsageError

_PROGRAM = Path(__file__).parents[2] / "local_runner.py"
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
# So that a clock that was set is noticed.
_LONGEST_WAIT_SECONDS = 60.0


class Schedule:
    """Runs one command at set times, until SIGTERM or SIGINT.

    What is due while the command runs is left out. What was missed while the machine slept is made
    up for once.
    """

    def __init__(self, trigger: CronTrigger, command: Sequence[str]) -> None:
        """Takes when and what."""
        self._trigger = trigger
        self._command = command
        self._ended = threading.Event()
        self._process: subprocess.Popen | None = None

    def keep(self, *, now: bool) -> None:
        """Runs the command at each time, and first of all if `now`; returns when told to end."""
        before = {
            number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            while not self._ended.is_set():
                if not now:
                    self._wait()
                now = False
                if not self._ended.is_set():
                    self._run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _wait(self) -> None:
        due = self._trigger.get_next_fire_time(None, _now())
        _say(f"next pass {due:%Y-%m-%d %H:%M:%S %Z}")
        while (left := (due - _now()).total_seconds()) > 0 and not self._ended.is_set():
            self._ended.wait(min(left, _LONGEST_WAIT_SECONDS))

    def _run(self) -> None:
        # A group of its own: a Ctrl-C reaches the pass through `_end`, and so once.
        self._process = subprocess.Popen(self._command, start_new_session=True)
        _say(f"the pass ended with status {self._process.wait()}")

    def _end(self, number: int, frame: FrameType | None) -> None:
        """Asks the pass in progress to end too; a training keeps its state."""
        self._ended.set()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)


def keep_schedule(
    cron: str,
    arguments: Sequence[str],
    *,
    time_zone: str | None,
    jitter_seconds: int,
    now: bool,
) -> None:
    """Makes a pass of retraining at each time; see `Schedule`.

    Args:
      cron: minute, hour, day of month, month, day of week (0 and 7 are Sunday).
      arguments: for `local_runner.py retrain`.
      time_zone: in which the times are meant; None: the machine's.
      jitter_seconds: each pass starts up to so much earlier or later.
      now: make one pass first.

    Raises:
      UsageError: when there is no such time or time zone.
    """
    trigger = read_cron(cron, time_zone, jitter_seconds)
    Schedule(trigger, [sys.executable, str(_PROGRAM), "retrain", *arguments]).keep(now=now)


def read_cron(cron: str, time_zone: str | None, jitter_seconds: int) -> CronTrigger:
    """Reads a crontab's five fields; raises UsageError where they are none."""
    try:
        zone = ZoneInfo(time_zone) if time_zone else None
    except (OSError, ValueError, LookupError) as error:
        raise UsageError(
            f"--time-zone {time_zone}: there is no such time zone; expected one like Europe/Berlin"
        ) from error
    *others, days = cron.split() or [""]
    # APScheduler counts days from Monday; by name there is no doubt.
    named = re.sub(r"(?<![/\d])[0-7](?!\d)", lambda found: _DAYS[int(found[0])], days)
    try:
        trigger = CronTrigger.from_crontab(" ".join([*others, named]), timezone=zone)
    except ValueError as error:
        raise UsageError(
            f"--cron {cron!r}: {error}. Expected minute, hour, day of month, month and day of "
            "week, such as '0 3 * * *' for every night at three"
        ) from error
    trigger.jitter = jitter_seconds or None
    return trigger


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _say(message: str) -> None:
    print(f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S} {message}", flush=True)
