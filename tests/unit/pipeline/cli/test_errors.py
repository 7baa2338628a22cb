"""The handler of errors: what it prints, how much of it, and the exit status."""

import errno
import pickle
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner, Result

from errors import UserError
from pipeline.cli.errors import MOST_LINES, Command, Group, lines_of
from pipeline.local.errors import RunFailedError, RunStoppedError

WHOLE = UserError("it is cut short", "/data/train", "fetch it again", ["a", "b", "c"])


def call(raised: BaseException | None, *arguments: str) -> Result:
    """Calls a command that raises, as a command of a group."""
    app = typer.Typer(cls=Group, rich_markup_mode=None)

    @app.command()
    def fail(number: Annotated[int, typer.Option()] = 0) -> None:
        if raised:
            raise raised

    @app.command()
    def other() -> None:
        pass

    return CliRunner().invoke(app, arguments or ["fail"])


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (None, 0),
        (typer.Exit(3), 3),
        (WHOLE, 2),
        (RunFailedError("Trainer: the disk is full"), 1),
        (RunStoppedError("Trainer: stopped at step 7"), 143),
        (OSError(errno.ENOSPC, "No space left on device", "/out"), 2),
        (OSError("gs://bucket/x: no such bucket"), 2),
        (ZeroDivisionError("division by zero"), 1),
        (typer.BadParameter("no"), 2),
        (typer.Abort(), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_error_has_its_exit_status(raised: BaseException | None, status: int) -> None:
    assert call(raised).exit_code == status


def test_a_users_error_is_printed_on_stderr_without_a_traceback() -> None:
    result = call(WHOLE)
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "error: it is cut short",
        "  - a",
        "  where: /data/train",
        "  fix: fetch it again",
        "  and 2 more",
    ]


def test_a_fault_of_the_program_shows_its_traceback() -> None:
    stderr = call(ZeroDivisionError("division by zero")).stderr
    assert "Traceback" in stderr
    assert stderr.splitlines()[-1] == "error: unexpected ZeroDivisionError: division by zero"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_an_error_of_the_file_system_says_where_and_what_to_do(number: int) -> None:
    lines = call(OSError(number, "What happened", "/out/a.txt")).stderr.splitlines()
    assert lines[:2] == ["error: what happened", "  where: /out/a.txt"]
    assert lines[2].startswith("  fix: ")


@pytest.mark.parametrize(
    "arguments", [["fail", "--frobnicate"], ["fail", "--number", "x"], ["frob"], ["fail", "more"]]
)
def test_wrong_usage_is_status_2_and_two_lines(arguments: list[str]) -> None:
    result = call(None, *arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 2


def test_an_option_before_its_command_names_the_command() -> None:
    result = call(None, "--number", "3")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[1].endswith("commands that take it: fail")


def test_a_command_without_a_group_is_handled_too() -> None:
    app = typer.Typer()

    @app.command(cls=Command)
    def fail() -> None:
        raise WHOLE

    assert CliRunner().invoke(app, []).exit_code == 2


@pytest.mark.parametrize("log", ["", "/out/logs/1.log"])
@pytest.mark.parametrize("where", ["", "/data/train"])
@pytest.mark.parametrize("fix", ["", "fetch it again"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 30])
def test_five_lines_hold_the_worst_findings_and_say_how_many_are_left(
    log: str, where: str, fix: str, count: int
) -> None:
    error = UserError("bad", where, fix, [f"finding {n}" for n in range(count)])
    error.log = log
    lines = lines_of(error)
    shown = [line for line in lines if line.startswith("  - ")]
    assert len(lines) <= MOST_LINES
    assert shown == [f"  - finding {n}" for n in range(len(shown))]
    assert bool(shown) == bool(count)
    left = f"  and {count - len(shown)} more" + (f" in {log}" if log else "")
    assert (left in lines) == (len(shown) < count)
    assert sum(log in line for line in lines) == 1 or not log


@pytest.mark.parametrize("width", [20, 80])
def test_whatever_its_length_an_error_takes_five_lines_of_the_terminal(width: int) -> None:
    error: UserError = RunFailedError("word " * 500, "/path" * 90, "do " * 300, ["found " * 99] * 9)
    error.log = "/log"
    rows = sum(-(-len(line) // width) for line in lines_of(error, width))
    assert rows <= MOST_LINES


def test_an_error_survives_pickling_and_beams_note_of_the_step() -> None:
    assert pickle.loads(pickle.dumps(WHOLE)).__dict__ == WHOLE.__dict__
    what, *others = WHOLE.args
    noted = type(WHOLE)(what + " [while running 'Write']", *others)
    assert (noted.where, noted.fix, noted.findings) == (WHOLE.where, WHOLE.fix, WHOLE.findings)
