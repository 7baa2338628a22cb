"""When passes are due, what is made up for, and how the schedule ends."""

import datetime
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tzlocal
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline.retraining.schedule import Schedule, ScheduleError, read_times

ROOT = Path(__file__).parents[4]
UTC = datetime.timezone.utc
NIGHTLY = "0 3 * * *"


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("time_zone", "grace"),
    [("Mars/Olympus", None), ("../etc", None), *((None, text) for text in ("7", "1w", "0h", ""))],
)
def test_a_time_zone_or_grace_that_does_not_exist_is_refused(time_zone, grace):
    with pytest.raises(ScheduleError):
        read_times(NIGHTLY, time_zone, grace=grace)


def test_without_a_time_zone_the_machines_rules_apply(monkeypatch):
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "Europe/Berlin")
        tzlocal.reload_localzone()
        times = read_times(NIGHTLY, None)
    tzlocal.reload_localzone()
    assert times.after(at("2026-06-01T12:00:00")) == at("2026-06-02T01:00:00")
    assert times.after(at("2026-12-01T12:00:00")) == at("2026-12-02T02:00:00")


class Clock:
    """Advances only when a test says so."""

    def __init__(self, text: str) -> None:
        self.now = at(text)

    def __call__(self) -> datetime.datetime:
        return self.now


def planned(clock: Clock, since: str | None, cron=NIGHTLY, grace=None, say=print) -> Schedule:
    times = read_times(cron, "UTC", grace=grace)
    moment = None if since is None else at(since)
    return Schedule(times, ["true"], since=moment, clock=clock, say=say)


@pytest.mark.parametrize(
    ("since", "grace", "expected"),
    [
        # Three nights were missed: the pass that makes up for them is due at once, and only once.
        ("2026-11-20T03:10:00", None, "2026-11-21T03:00:00"),
        ("2026-11-20T03:10:00", "12h", "2026-11-23T03:00:00"),
        ("2026-11-20T03:10:00", "6h", "2026-11-24T03:00:00"),
        # Last night's pass was made.
        ("2026-11-23T03:01:00", None, "2026-11-24T03:00:00"),
        # No pass was ever made: what lay before does not count.
        (None, None, "2026-11-24T03:00:00"),
    ],
)
def test_what_was_missed_is_due_once(since, grace, expected):
    clock = Clock("2026-11-23T09:20:00")
    schedule = planned(clock, since, grace=grace)
    assert schedule.next_due() == at(expected)
    if at(expected) < clock.now:
        assert schedule.catch_up() == 0
        assert schedule.next_due() == at("2026-11-24T03:00:00")


def test_a_clock_that_is_set_back_by_an_hour_makes_no_pass_twice():
    clock = Clock("2026-11-23T03:00:00")
    printed: list[str] = []
    schedule = planned(clock, "2026-11-22T03:05:00", say=printed.append)
    for moment in ("03:00:00", "02:10:00", "03:00:30"):
        clock.now = at(f"2026-11-23T{moment}")
        assert schedule.catch_up() == 0
    assert [line[:14] for line in printed[1:]] == ["no pass is due"] * 2


moments = st.datetimes(
    min_value=datetime.datetime(2020, 1, 1), max_value=datetime.datetime(2035, 1, 1)
).map(lambda moment: moment.replace(tzinfo=UTC))


@given(
    cron=st.sampled_from([NIGHTLY, "*/10 * * * *", "0 6 * * 1", "30 2 1 * *"]),
    made=moments,
    now=moments,
)
@hypothesis_settings(deadline=None)
def test_wherever_the_clock_is_set_at_most_one_time_is_passed_over(cron, made, now):
    clock = Clock("2026-01-01T00:00:00")
    clock.now = made
    schedule = planned(clock, None, cron=cron)
    clock.now = now
    times = read_times(cron, "UTC")
    first = times.after(now)
    found = schedule.next_due()
    assert found > made or now < made  # no pass twice
    assert found <= times.after(first)  # no endless wait
    # When that moment comes the pass is due, however often one has looked meanwhile.
    clock.now = max(now, found)
    assert schedule.next_due() == found


PASSES = """
import sys
sys.path.insert(0, {root!r})
from pipeline.retraining.schedule import Schedule, read_times
pass_ = "import time, pathlib; pathlib.Path({mark!r}).touch(); time.sleep({seconds})"
say = lambda line: print(line, flush=True)
schedule = Schedule(read_times("0 3 1 1 *", None), [sys.executable, "-c", pass_], say=say)
schedule.keep(now={now})
"""


@pytest.mark.parametrize("now", [True, False])
def test_sigterm_ends_it_and_the_pass_in_progress(tmp_path, now):
    mark = tmp_path / "started"
    program = PASSES.format(root=str(ROOT), mark=str(mark), seconds=600, now=now)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if now:
        while not mark.exists():
            assert process.poll() is None
            time.sleep(0.05)
    else:
        assert "next pass" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert ("the pass ended with status 143" in printed) == now
    assert mark.exists() == now


WAITS = """
import faulthandler, signal, sys
sys.path.insert(0, {root!r})
from pipeline.retraining.schedule import Schedule, read_times
faulthandler.dump_traceback_later(120, exit=True)
times = read_times("0 3 1 1 *", None)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range({rounds}):
    Schedule(times, ["false"], say=lambda line: print(line, flush=True)).keep(now=False)
"""


def test_sigterm_is_heeded_at_whatever_moment_of_the_wait_it_comes():
    program = WAITS.format(root=str(ROOT), rounds=1000)
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    draw = random.Random(0)
    for _ in process.stdout:
        # Just as it begins to wait; a sleep would be too coarse.
        end = time.perf_counter() + draw.uniform(0, 60e-6)
        while time.perf_counter() < end:
            pass
        process.send_signal(signal.SIGTERM)
    stuck_at = process.stderr.read()
    assert process.wait() == 0, stuck_at


def schedule_command(tmp_path: Path, *more: str) -> list[str]:
    command = [sys.executable, str(ROOT / "local_runner.py"), "schedule", "--cron", NIGHTLY]
    # A folder without digits: the pass ends soon, with status 2, and is written down.
    (tmp_path / "data").mkdir(exist_ok=True)
    places = ["--data-dir", str(tmp_path / "data"), "--output-dir", str(tmp_path / "out")]
    return [*command, "--time-zone", "UTC", *places, *more]


def passes(tmp_path: Path) -> list[dict]:
    file = tmp_path / "out" / "passes.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def write_pass(tmp_path: Path, moment: str, outcome: str) -> None:
    (tmp_path / "out").mkdir(exist_ok=True)
    line = {"at": moment, "outcome": outcome, "reason": "", "seconds": 60.0}
    with open(tmp_path / "out" / "passes.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


@pytest.fixture(scope="module")
def preload() -> str:
    """The library that sets a process' clock; faketime itself hands no signal on."""
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.skip("there is no faketime (Debian: apt-get install faketime)")
    show = [faketime, "-f", "@2026-11-23 00:00:00", "sh", "-c", "echo $LD_PRELOAD"]
    return subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip()


def start_at(moment: str, preload: str, command: list[str]) -> subprocess.Popen:
    """A process whose clock is set; it goes on from there."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MNIST_")}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environ | {"TZ": "UTC", "LD_PRELOAD": preload, "FAKETIME": f"@{moment}"},
    )


def test_a_schedule_that_was_down_makes_up_for_what_it_missed_once(tmp_path, preload):
    write_pass(tmp_path, "2026-11-20T03:00:00+00:00", "pushed")
    # Stopped half-way, so it does not count.
    write_pass(tmp_path, "2026-11-21T03:00:00+00:00", "stopped")
    process = start_at("2026-11-23 09:20:00", preload, schedule_command(tmp_path))
    assert process.stdout is not None
    assert "makes up for the pass of 2026-11-21 03:00:00 UTC" in process.stdout.readline()
    lines = iter(process.stdout.readline, "")
    assert any("next pass 2026-11-24 03:00:00" in line for line in lines)
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert [each["at"][:10] for each in passes(tmp_path)] == [
        "2026-11-20",
        "2026-11-21",
        "2026-11-23",
    ]
    assert passes(tmp_path)[-1]["outcome"] == "not started"

    again = start_at("2026-11-23 09:30:00", preload, schedule_command(tmp_path))
    assert again.stdout is not None
    assert "next pass 2026-11-24 03:00:00" in again.stdout.readline()
    again.terminate()
    assert again.wait(timeout=60) == 0
    assert len(passes(tmp_path)) == 3


def test_once_makes_what_is_due_and_nothing_else(tmp_path, preload):
    made = [
        ("2026-11-23 09:20:00", 2, 1),  # never before
        ("2026-11-24 02:59:00", 0, 1),
        ("2026-11-24 03:00:10", 2, 2),
        ("2026-11-24 02:10:00", 0, 2),  # the clock was set back
        ("2026-11-24 03:10:00", 0, 2),
        ("2025-01-01 00:00:00", 2, 3),  # and by so much that the record cannot be right
    ]
    for moment, status, count in made:
        process = start_at(moment, preload, schedule_command(tmp_path, "--once"))
        printed, _ = process.communicate(timeout=100)
        assert (process.returncode, len(passes(tmp_path))) == (status, count), printed
