"""Passes of retraining at set times, each in a process of its own, until told to end."""

import contextlib
import datetime
import queue
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from zoneinfo import ZoneInfo

from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from pipeline.local.json_log import json_line
from pipeline.local.paths import UsageError
from pipeline.retraining.conditions import read_duration
from pipeline.retraining.records import last_made

_PROGRAM = Path(__file__).parents[2] / "local_runner.py"
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEKDAYS = re.compile(r"(DAY)(?:-(DAY)(?:/([1-7]))?)?".replace("DAY", "[0-7]|" + "|".join(_DAYS)))
# So that a clock that was set is noticed.
_LONGEST_WAIT_SECONDS = 60.0
_TICK = datetime.timedelta(microseconds=1)


class Schedule:
    """Runs one command at set times, until SIGTERM or SIGINT.

    What is due while the command runs is left out. What was missed, because the machine slept or
    this process was down, is made up for once, however often it was missed. A clock that is set
    back makes the schedule pass over one time at most, so that it makes no pass twice and waits for
    none endlessly.
    """

    def __init__(
        self,
        trigger: OrTrigger,
        command: Sequence[str],
        *,
        since: datetime.datetime | None = None,
        grace: datetime.timedelta | None = None,
        jitter_seconds: int = 0,
        say: Callable[[str], None] = print,
        clock: Callable[[], datetime.datetime] | None = None,
    ) -> None:
        """Takes when and what.

        Args:
          trigger: the times.
          command: with its arguments.
          since: the times up to this one have had their pass; None: all those up to now.
          grace: a time that was missed by more is let go; None: none is.
          jitter_seconds: each pass starts up to so much later than its time.
          say: takes a line for the log.
          clock: gives the time, with its zone; None: the machine's.
        """
        self._trigger = trigger
        self._zone = trigger.triggers[0].timezone
        self._command = command
        self._clock = clock or _now
        self._since = since or self._clock()
        self._jitter = jitter_seconds
        self._grace = None
        if grace is not None:
            self._grace = grace + datetime.timedelta(seconds=jitter_seconds)
        self._say = say
        self._ended = False
        # Its `put` may be called wherever a signal finds the program; an Event's `set` may not.
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._process: subprocess.Popen | None = None

    def keep(self, *, now: bool) -> None:
        """Runs the command at each time, and first of all if `now`; returns when told to end."""
        with self._heeding_signals():
            while not self._ended:
                due = self._clock() if now else self._wait()
                now = False
                if not self._ended:
                    self._run(due)

    def catch_up(self) -> int:
        """Runs the command if a time has passed that had no pass.

        Returns:
          The command's exit status, as a shell gives it; 0 where there was nothing to make up for.
        """
        due = self.next_due()
        if due > self._clock():
            self._say(f"nothing is due before {self._local(due)}")
            return 0
        with self._heeding_signals():
            return self._run(due)

    def next_due(self) -> datetime.datetime:
        """The next time that has had no pass; it lies in the past when that pass was missed."""
        now = self._clock()
        if now < self._since:
            self._since = min(self._since, first_after(self._trigger, now))
        start = self._since if self._grace is None else max(self._since, now - self._grace)
        return first_after(self._trigger, start)

    def _wait(self) -> datetime.datetime:
        """Waits for the next time. It is looked up anew each minute, as the clock may be set."""
        due, start = None, self._clock()
        while not self._ended:
            if due != (due := self.next_due()):
                missed = due <= self._clock()
                start = due + datetime.timedelta(
                    seconds=0 if missed else random.uniform(0, self._jitter)
                )
                self._say(
                    f"makes up for the pass of {self._local(due)}"
                    if missed
                    else f"next pass {self._local(start)}"
                )
            left = (start - self._clock()).total_seconds()
            if left <= 0:
                break
            with contextlib.suppress(queue.Empty):
                self._signals.get(timeout=min(left, _LONGEST_WAIT_SECONDS))
        return due or start

    def _run(self, due: datetime.datetime) -> int:
        # A group of its own: a Ctrl-C reaches the pass through `_end`, and so once.
        self._process = subprocess.Popen(self._command, start_new_session=True)
        if self._ended:  # told to end just before there was a pass to tell
            self._process.terminate()
        status = self._process.wait()
        status = status if status >= 0 else 128 - status
        self._say(f"the pass ended with status {status}")
        # Where the clock was set back meanwhile, that time has had its pass all the same.
        self._since = max(self._clock(), due)
        return status

    def _local(self, moment: datetime.datetime) -> str:
        return f"{moment.astimezone(self._zone):%Y-%m-%d %H:%M:%S %Z}"

    @contextlib.contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._end) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        """Asks the pass in progress to end too; a training keeps its state."""
        self._ended = True
        self._signals.put(number)
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)


@dataclass(frozen=True)
class Times:
    """When passes are due.

    Attributes:
      cron: minute, hour, day of month, month, day of week (0 and 7 are Sunday).
      time_zone: in which they are meant; None: the machine's.
      jitter_seconds: each pass starts up to so much later, at random.
      grace: a time that was missed by more is let go; None: it is made up for however late.
    """

    cron: str
    time_zone: str | None = None
    jitter_seconds: int = 0
    grace: datetime.timedelta | None = None


def keep_schedule(
    times: Times,
    arguments: Sequence[str],
    *,
    root: Path,
    now: bool,
    once: bool,
    as_json: bool,
) -> int:
    """Makes a pass of retraining at each time; see `Schedule`.

    Args:
      times: when.
      arguments: for `local_runner.py retrain`.
      root: the output folder, whose record of passes tells what was missed.
      now: make one pass first.
      once: only make up for what was missed, and return; where no pass was ever made, make one.
      as_json: say what happens as JSON, an object a line.

    Returns:
      An exit status: with `once` that of the pass, else 0.

    Raises:
      UsageError: when there is no such time or time zone.
    """
    trigger = read_cron(times.cron, times.time_zone)
    moment = _now()
    since = last_made(root, moment)
    if once and since is None:
        # Long enough ago for each time that a crontab can name.
        since = moment - datetime.timedelta(days=8 * 366)
    schedule = Schedule(
        trigger,
        [sys.executable, str(_PROGRAM), "retrain", *arguments],
        since=since,
        grace=times.grace,
        jitter_seconds=times.jitter_seconds,
        say=_say_json if as_json else _say,
    )
    if once:
        return schedule.catch_up()
    schedule.keep(now=now)
    return 0


def read_cron(cron: str, time_zone: str | None) -> OrTrigger:
    """Reads a crontab's five fields; raises UsageError where they are none, or never come."""
    try:
        zone = ZoneInfo(time_zone) if time_zone else None
    except (OSError, ValueError, LookupError) as error:
        raise UsageError(
            f"there is no time zone {time_zone}, expected one like Europe/Berlin", "--time-zone"
        ) from error
    try:
        found = [CronTrigger.from_crontab(each, timezone=zone) for each in _in_words(cron)]
    except ValueError as error:
        raise UsageError(
            f"{cron!r}: {error}",
            "--cron",
            "give minute, hour, day of month, month and day of week, such as '0 3 * * *' for every "
            "night at three",
        ) from error
    if not any(each.get_next_fire_time(None, _now()) for each in found):
        raise UsageError(f"{cron!r}: no such day ever comes", "--cron")
    return OrTrigger(found)


def _in_words(cron: str) -> list[str]:
    """The times as APScheduler takes them, for which a day has to be right in both ways.

    For a crontab either is enough, where both day of month and day of week are restricted.
    """
    fields = cron.split()
    if len(fields) != 5:
        return [cron]  # which APScheduler refuses
    *others, day, month, weekday = fields
    named = ",".join(_weekdays(part) for part in weekday.lower().split(","))
    if day.startswith("*") or weekday.startswith("*"):
        return [" ".join([*others, day, month, named])]
    return [" ".join([*others, day, month, "*"]), " ".join([*others, "*", month, named])]


def _weekdays(text: str) -> str:
    """Days of the week one by one and by name.

    APScheduler counts them from Monday, takes no range from Sunday on, and passes over a step
    between names.
    """
    found = _WEEKDAYS.fullmatch("sun-sat" + text[1:] if text[:1] == "*" else text)
    if found:
        low, high = (_number(day or found[1]) for day in found.group(1, 2))
        high = 7 if low > high == 0 else high  # a week may end with Sunday
        if low <= high:
            return ",".join(_DAYS[low : high + 1 : int(found[3] or 1)])
    raise ValueError(f"{text!r} is no day of the week (0 to 7, sun to sat) and no range of them")


def _number(day: str) -> int:
    return int(day) if day.isdecimal() else _DAYS.index(day)


def read_grace(text: str | None) -> datetime.timedelta | None:
    """Reads `--misfire-grace`; raises UsageError where it is none."""
    found = None if text is None else read_duration(text)
    if text is not None and not found:
        raise UsageError(
            f"{text} is no time, expected one such as 7d, 12h or 30m", "--misfire-grace"
        )
    return found


def first_after(trigger: OrTrigger, moment: datetime.datetime) -> datetime.datetime:
    """The first time after a moment, in UTC, for local time forgets which of two hours it means.

    In the hour that comes twice in autumn a time has its pass once, unless there is one each hour;
    so does cron.
    """
    hour = next(str(field) for field in trigger.triggers[0].fields if field.name == "hour")
    while True:
        due = trigger.get_next_fire_time(None, moment.astimezone(datetime.timezone.utc) + _TICK)
        if not due.fold or hour.startswith("*"):
            return due.astimezone(datetime.timezone.utc)
        moment = due


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _say(message: str) -> None:
    print(f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S} {message}", flush=True)


def _say_json(message: str) -> None:
    print(json_line("schedule", message), flush=True)
