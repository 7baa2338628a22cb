"""The one place that prints errors and sets exit statuses.

| status | meaning |
| --- | --- |
| 0 | pushed, served already, or nothing to do |
| 1 | failed: a node, a task, or a fault of the program |
| 2 | the command could not start as it was called: usage, settings, data, a file |
| 3 | the generator is not blessed, and so not pushed; what is served is not what was blessed |
| 130 | Ctrl-C |
| 143 | stopped by SIGTERM; the same command resumes |

An app whose commands and groups are `Command` and `Group` needs no `try` in its commands: they
raise, and this module prints at most five lines on stderr.
"""

import shutil
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from errors import FileError, UserError, masked_traceback

FAILED, BAD_USAGE, STOPPED = 1, 2, 143
MOST_LINES = 5
_PIPED_WIDTH = 2000  # of a line where no terminal breaks it


class _Handled:
    """Has `main` end the process as `exit_status` says."""

    def main(self, *args: Any, standalone_mode: bool = True, **more: Any) -> Any:
        """Runs the command and ends the process; without `standalone_mode`, returns or raises."""

        def run() -> Any:
            return super(_Handled, self).main(*args, standalone_mode=False, **more)  # type: ignore[misc]

        return sys.exit(exit_status(run)) if standalone_mode else run()


class Command(_Handled, TyperCommand):
    """A command whose errors this module prints."""


class Group(_Handled, TyperGroup):
    """A group of commands whose errors this module prints."""


def exit_status(run: Callable[[], int | None]) -> int:
    """Calls a function, prints the error that it raises, and returns the exit status."""
    try:
        return run() or 0
    except typer.TyperException as error:
        return _show(UserError(error.format_message(), fix=_hint(error)))
    except typer.Abort:
        return _show(UserError("aborted"), FAILED)
    except UserError as error:
        return _show(error)
    except OSError as error:
        return _show(FileError.of(error))
    except Exception as error:
        sys.stderr.write(masked_traceback(error))
        first = str(error).strip().partition("\n")[0]
        return _show(UserError(f"unexpected {type(error).__name__}: {first}"), FAILED)


def lines_of(error: UserError, width: int = _PIPED_WIDTH) -> list[str]:
    """Returns what the terminal shows of an error: at most `MOST_LINES` lines of `width`."""
    sign = "stopped" if error.exit_status == STOPPED else "error"
    named = {"where": error.where, "fix": error.fix}
    details = [f"  {name}: {_flat(text)}" for name, text in named.items() if text]
    room = MOST_LINES - 1 - len(details)
    findings = [f"  - {_flat(finding)}" for finding in error.findings]
    last = [f"  log: {error.log}"] if error.log else []
    if len(findings) + len(last) > room:
        place = f" in {error.log}" if error.log else ""
        last = [f"  and {len(findings) - room + 1} more{place}"]
        findings = findings[: room - 1]
    return _fit([f"{sign}: {_flat(error.what)}", *findings, *details, *last], width)


def _hint(error: typer.TyperException) -> str:
    """What to type instead: an option of a command may stand before the command, or in none."""
    context, option = getattr(error, "ctx", None), getattr(error, "option_name", None)
    commands = getattr(getattr(context, "command", None), "commands", {})
    taking = [
        name
        for name, command in commands.items()
        if any(option in parameter.opts for parameter in command.params)
    ]
    if taking:
        return f"put {option} after one of the commands that take it: {', '.join(taking)}"
    return f"see {context.command_path} --help" if context else ""


def _flat(text: str) -> str:
    return " ".join(text.split("\n"))


def _fit(lines: list[str], width: int) -> list[str]:
    """Shortens the longest line, until a terminal of that width shows `MOST_LINES` at most."""
    while sum(rows := [max(1, -(-len(line) // width)) for line in lines]) > MOST_LINES:
        longest = rows.index(max(rows))
        lines[longest] = lines[longest][: (rows[longest] - 1) * width - 1] + "…"
    return lines


def _show(error: UserError, status: int | None = None) -> int:
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else _PIPED_WIDTH
    for line in lines_of(error, width):
        typer.echo(line, err=True)
    return error.exit_status if status is None else status
