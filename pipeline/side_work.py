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
    results: list[_Result] = []
    errors: list[BaseException] = [] if seconds is None else [_LateError(f"no end in {seconds} s")]

    def call() -> None:
        results.append(work())
        errors.clear()

    def call_in_thread() -> None:
        try:
            call()
        except BaseException as error:
            errors[:] = [error]

    try:
        if seconds is None:
            call()
        else:
            thread = threading.Thread(target=call_in_thread, daemon=True)
            thread.start()
            thread.join(seconds)
    except Exception as error:  # RuntimeError of a thread that cannot start, too
        errors[:] = [error]
    for error in errors[:1]:
        with contextlib.suppress(Exception):  # nobody may read stderr
            say(f"{failure}: {_reason(error)}")
    return results[0] if results and not errors else None


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        error = FileError.of(error)
    if isinstance(error, UserError):
        return " ".join(str(error).split("\n"))
    first = str(error).strip().partition("\n")[0]
    return mask_secrets(f"{type(error).__name__}: {first}")
