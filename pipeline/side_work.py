"""Work beside a run or a pass, such as a webhook: its failure never changes the outcome."""

import contextlib
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from errors import FileError, UserError, mask_secrets

_Result = TypeVar("_Result")


class _LateError(UserError):
    """The work did not end before its deadline."""


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def run_aside(
    failure: str,
    work: Callable[[], _Result],
    seconds: float | None = 30.0,
    say: Callable[[str], object] = _say,
) -> _Result | None:
    """Calls a function and reports what it raises in one line; raises nothing itself.

    Args:
      failure: what it means that the work failed, the start of that line.
      work: it runs in a thread, which is left behind if it misses the deadline.
      seconds: the deadline; None for work with a deadline of its own, which runs in this thread.
      say: shows the line, on stderr by default.

    Returns:
      What the function returns; None if it failed or missed the deadline.
    """
    try:
        return work() if seconds is None else _call_in_thread(work, seconds)
    except (Exception, SystemExit) as error:
        with contextlib.suppress(Exception):  # nobody may read stderr
            say(f"{failure}: {_reason(error)}")
        return None


def _call_in_thread(work: Callable[[], _Result], seconds: float) -> _Result:
    results: list[_Result] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise _LateError(f"no end in {seconds:g} s")
    return results[0]


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        error = FileError.of(error)
    if isinstance(error, UserError):
        return " ".join(str(error).split("\n"))
    first = str(error).strip().partition("\n")[0]
    return mask_secrets(f"{type(error).__name__}: {first}")
