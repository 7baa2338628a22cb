"""The lines of a run on a terminal and in a pipe, without the lines of loggers."""

import io
import logging
import os
import re
import sys
from collections.abc import Iterator

import pytest
from rich.console import Console

from pipeline.local.console import PROGRESS_LOGGER, RunConsole, spinner_line


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Console, int]]:
    """A console on a terminal, and the descriptor that reads what it shows."""
    monkeypatch.setenv("TERM", "xterm-256color")
    shown, written = os.openpty()
    with open(written, "w") as file:
        yield Console(file=file, width=100), shown
    os.close(shown)


def test_a_terminal_shows_the_progress_in_place_and_no_line_of_a_logger(terminal) -> None:
    console, shown = terminal
    streams = sys.stdout, sys.stderr
    listener = RunConsole(console)
    with listener.listening():
        listener.node_started("Trainer", 7, 10)
        assert (sys.stdout, sys.stderr) == streams  # a handler made now writes to the log
        logging.getLogger(PROGRESS_LOGGER).info("step 40")
        listener.node_ended("Trainer", 3.25, cached=False)
    seen, written = "", b""
    while " s\n" not in seen.replace("\r", ""):  # the kernel hands it over piece by piece
        written += os.read(shown, 10_000)
        seen = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", written.decode(errors="replace"))
    assert re.search(r"[⠋-⠿]  7/10 Trainer  step 40", seen)
    assert seen.splitlines()[-1] == f"  ✓  {'7/10 Trainer':<25} 3.2 s"


def test_a_pipe_has_a_line_per_event_even_where_colors_are_forced() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    assert spinner_line(console, "loading") is None
    listener = RunConsole(console)
    with listener.listening():
        listener.node_started("Trainer", 7, 10)
        logging.getLogger(PROGRESS_LOGGER).info("step 40")
        listener.node_ended("Trainer", 3.25, cached=False)
    assert console.file.getvalue().splitlines() == [
        "   7/10 Trainer ...",
        "      step 40",
        f"  ✓  {'7/10 Trainer':<25} 3.2 s",
    ]
