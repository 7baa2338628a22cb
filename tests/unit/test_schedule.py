"""When passes are due, against a second reading of cron, and how the schedule ends."""

import datetime
import signal
import subprocess
import sys
import time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pipeline.local.places import UsageError
from pipeline.local.schedule import read_cron

ROOT = Path(__file__).parents[2]


def due(cron: str, after: str, zone: str = "UTC", count: int = 3) -> list[str]:
    trigger, found = read_cron(cron, zone, 0), []
    now = datetime.datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(zone))
    for _ in range(count):
        now = trigger.get_next_fire_time(None, now + datetime.timedelta(seconds=1))
        found.append(now.strftime("%a %Y-%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 3 * * *", ["Tue 2026-11-24 03:00", "Wed 2026-11-25 03:00", "Thu 2026-11-26 03:00"]),
        ("30 12 1 * *", ["Tue 2026-12-01 12:30", "Fri 2027-01-01 12:30", "Mon 2027-02-01 12:30"]),
        # In a crontab 0 and 7 are Sunday, 1 is Monday.
        ("0 6 * * 0", ["Sun 2026-11-29 06:00", "Sun 2026-12-06 06:00", "Sun 2026-12-13 06:00"]),
        ("0 6 * * 7", ["Sun 2026-11-29 06:00", "Sun 2026-12-06 06:00", "Sun 2026-12-13 06:00"]),
        ("0 6 * * 1,4", ["Thu 2026-11-26 06:00", "Mon 2026-11-30 06:00", "Thu 2026-12-03 06:00"]),
        ("0 6 * * 5-7", ["Fri 2026-11-27 06:00", "Sat 2026-11-28 06:00", "Sun 2026-11-29 06:00"]),
        ("0 6 * * fri", ["Fri 2026-11-27 06:00", "Fri 2026-12-04 06:00", "Fri 2026-12-11 06:00"]),
        ("*/20 9 * * *", ["Mon 2026-11-23 09:40", "Tue 2026-11-24 09:00", "Tue 2026-11-24 09:20"]),
    ],
)
def test_times(cron, expected):
    assert due(cron, "2026-11-23T09:20:00") == expected


def test_a_night_that_lacks_the_hour_has_its_pass_all_the_same():
    """02:30 is skipped in Berlin on 2027-03-28."""
    found = due("30 2 * * *", "2027-03-27T03:00:00", "Europe/Berlin", 2)
    assert [text[:14] for text in found] == ["Sun 2027-03-28", "Mon 2027-03-29"]


@pytest.mark.parametrize(
    ("cron", "zone", "said"),
    [
        ("61 * * * *", None, "--cron '61 \\* \\* \\* \\*'.*minute, hour"),
        ("0 3 * *", None, "minute, hour"),
        ("", None, "minute, hour"),
        ("every night", None, "minute, hour"),
        ("0 3 * * *", "Mars/Olympus", "no such time zone"),
        ("0 3 * * *", "../etc", "no such time zone"),
    ],
)
def test_what_is_no_time_is_refused(cron, zone, said):
    with pytest.raises(UsageError, match=said):
        read_cron(cron, zone, 0)


PASSES = """
import sys
sys.path.insert(0, {root!r})
from pipeline.local.schedule import Schedule, read_cron
pass_ = "import time, pathlib; pathlib.Path({mark!r}).touch(); time.sleep({seconds})"
Schedule(read_cron("0 3 1 1 *", None, 0), [sys.executable, "-c", pass_]).keep(now={now})
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
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert ("the pass ended with status -15" in said) == now
    assert mark.exists() == now
