"""Starts a retraining pass at set times, each in a process of its own, until a signal ends it."""

import contextlib
import datetime
import queue
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from zoneinfo import ZoneInfo

import tzlocal

from errors import UserError
from pipeline.cron import next_time
from pipeline.local.json_log import json_line
from pipeline.retraining.conditions import read_duration
from pipeline.retraining.records import last_made
from surroundings import stop_signals

_PROGRAM = Path(__file__).parents[2] / "local_runner.py"
_LONGEST_WAIT_SECONDS = 60.0  # so that a change of the machine's clock is noticed
_LONG_AGO = datetime.timedelta(days=8 * 366)  # a 29 February is within it


class ScheduleError(UserError):
    """A time zone or a grace period is malformed."""


@dataclass(frozen=True)
class Times:
    """When passes are due.

    Attributes:
      cron: see `pipeline.cron.next_time`.
      zone: time zone of `cron`.
      jitter_seconds: upper limit of a random delay of each pass.
      grace: a time that was missed by more is skipped; None: no missed time is skipped.
    """

    cron: str
    zone: datetime.tzinfo
    jitter_seconds: int = 0
    grace: datetime.timedelta | None = None

    def after(self, moment: datetime.datetime) -> datetime.datetime:
        """The first time after a moment, in UTC."""
        return next_time(self.cron, moment.astimezone(self.zone))


def read_times(
    cron: str, time_zone: str | None, jitter_seconds: int = 0, grace: str | None = None
) -> Times:
    """Reads the options of `local_runner.py schedule`.

    Raises:
      CronError: `cron` is malformed, or no date matches it.
      ScheduleError: there is no such time zone, or `grace` is no duration such as 12h.
    """
    try:
        zone = ZoneInfo(time_zone) if time_zone else tzlocal.get_localzone()
    except (OSError, ValueError, LookupError):
        raise ScheduleError(
            "there is no such time zone",
            where=f"--time-zone {time_zone}" if time_zone else "$TZ",
            fix="expected a name such as Europe/Berlin",
        ) from None
    allowed = None if grace is None else read_duration(grace)
    if grace is not None and not allowed:
        raise ScheduleError(
            "expected a duration such as 7d, 12h or 30m", where=f"--misfire-grace {grace}"
        )
    times = Times(cron, zone, jitter_seconds, allowed)
    times.after(_now())
    return times


def keep_schedule(
    times: Times,
    arguments: Sequence[str],
    *,
    root: Path,
    now: bool,
    once: bool,
    as_json: bool,
) -> int:
    """Starts a retraining pass at each time; see `Schedule`.

    Args:
      times: when passes are due.
      arguments: for `local_runner.py retrain`.
      root: the output folder, whose record of passes says when the last one ended.
      now: start one pass first.
      once: start a pass only if a time was missed or there was never a pass, and return.
      as_json: print events as JSON lines.

    Returns:
      An exit status: with `once` that of the pass, else 0.
    """
    moment = _now()
    since = last_made(root, moment)
    if once and since is None:
        since = moment - _LONG_AGO
    command = [sys.executable, str(_PROGRAM), "retrain", *arguments]
    schedule = Schedule(times, command, since=since, say=_say_json if as_json else _say)
    if once:
        return schedule.catch_up()
    schedule.keep(now=now)
    return 0


class Schedule:
    """Runs one command at set times, until SIGTERM, SIGHUP or SIGINT.

    A time that comes while the command runs is skipped. Any number of times that were missed,
    because the machine slept or this process was down, are made up for by one run. If the clock is
    set back, at most one time is skipped, and no time gets a second run.
    """

    def __init__(
        self,
        times: Times,
        command: Sequence[str],
        *,
        since: datetime.datetime | None = None,
        say: Callable[[str], None] = print,
        clock: Callable[[], datetime.datetime] | None = None,
    ) -> None:
        """Sets up the schedule.

        Args:
          times: when the command is due.
          command: with its arguments.
          since: times up to this one had their run; None: all times up to now.
          say: takes a line for the log.
          clock: returns the time, with its zone; None: the machine's clock.
        """
        self._times = times
        self._command = command
        self._clock = clock or _now
        self._since = since or self._clock()
        self._say = say
        self._ended = False
        # `SimpleQueue.put` is reentrant, and so safe in a signal handler; `Event.set` is not.
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._process: subprocess.Popen | None = None

    def keep(self, *, now: bool) -> None:
        """Runs the command at each time, and first of all if `now`; a signal ends it."""
        with self._handling_signals():
            while not self._ended:
                due = self._clock() if now else self._wait()
                now = False
                if not self._ended:
                    self._run(due)

    def catch_up(self) -> int:
        """Runs the command if a time was missed.

        Returns:
          The command's exit status, 128 + n after signal n; 0 if no time was missed.
        """
        due = self.next_due()
        if due > self._clock():
            self._say(f"no pass is due before {self._local(due)}")
            return 0
        with self._handling_signals():
            return self._run(due)

    def next_due(self) -> datetime.datetime:
        """The next time that had no run, in UTC; it is in the past if it was missed."""
        now, grace = self._clock(), self._times.grace
        if now < self._since:
            self._since = min(self._since, self._times.after(now))
        start = self._since
        if grace is not None:
            jitter = datetime.timedelta(seconds=self._times.jitter_seconds)
            start = max(start, now - grace - jitter)
        return self._times.after(start)

    def _wait(self) -> datetime.datetime:
        """Waits for the next time, which is computed again each minute."""
        due, start = None, self._clock()
        while not self._ended:
            if due != (due := self.next_due()):
                missed = due <= self._clock()
                delay = 0 if missed else random.uniform(0, self._times.jitter_seconds)
                start = due + datetime.timedelta(seconds=delay)
                what = "makes up for the pass of" if missed else "next pass"
                self._say(f"{what} {self._local(start)}")
            left = (start - self._clock()).total_seconds()
            if left <= 0:
                break
            with contextlib.suppress(queue.Empty):
                self._signals.get(timeout=min(left, _LONGEST_WAIT_SECONDS))
        return due or start

    def _run(self, due: datetime.datetime) -> int:
        # In a session of its own: a Ctrl-C reaches the pass once, through `_end`.
        self._process = subprocess.Popen(self._command, start_new_session=True)
        if self._ended:  # by a signal that came before there was a process
            self._process.terminate()
        status = self._process.wait()
        status = status if status >= 0 else 128 - status
        self._say(f"the pass ended with status {status}")
        self._since = max(self._clock(), due)  # `due` is later if the clock was set back
        return status

    def _local(self, moment: datetime.datetime) -> str:
        return f"{moment.astimezone(self._times.zone):%Y-%m-%d %H:%M:%S %Z}"

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        numbers = (*stop_signals(), signal.SIGINT)
        before = {number: signal.signal(number, self._end) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        """Ends the schedule, and passes SIGTERM on, so that a training saves its state."""
        self._ended = True
        self._signals.put(number)
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _say(message: str) -> None:
    print(f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S} {message}", flush=True)


def _say_json(message: str) -> None:
    print(json_line("schedule", message), flush=True)
