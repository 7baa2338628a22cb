"""Work beside a run: its failure, its deadline and its result change nothing for the caller."""

import sys
import threading
import time

import pytest

from pipeline.side_work import run_aside


def test_what_the_work_returns():
    assert run_aside("it failed", lambda: 3) == 3
    assert run_aside("it failed", threading.get_ident, seconds=None) == threading.get_ident()


@pytest.mark.parametrize("seconds", [5.0, None])
@pytest.mark.parametrize(
    "error",
    [OSError(28, "full", "/a"), ValueError("https://u:HUSH@h"), RecursionError(), KeyError()],
)
def test_a_failure_is_one_line(seconds, error):
    def fail() -> None:
        raise error

    lines: list[str] = []
    assert run_aside("it failed", fail, seconds, lines.append) is None
    [line] = lines
    assert line.startswith("it failed: ")
    assert "\n" not in line
    assert "HUSH" not in line


def test_what_would_end_the_process_does_not(capsys):
    assert run_aside("it failed", lambda: sys.exit(5)) is None
    assert capsys.readouterr().err.startswith("it failed: SystemExit")


def test_a_deadline_is_kept():
    released = threading.Event()
    lines: list[str] = []
    started = time.monotonic()
    assert run_aside("it failed", released.wait, 0.1, lines.append) is None
    assert time.monotonic() - started < 5
    assert len(lines) == 1
    released.set()


def test_a_line_that_cannot_be_shown_raises_nothing():
    def fail(_: object = None) -> None:
        raise OSError(32, "broken pipe")

    assert run_aside("it failed", fail, 5.0, fail) is None
