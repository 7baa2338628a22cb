"""The errors of a run on this machine."""

from errors import UserError


class UsageError(UserError):
    """A command cannot start as it was called."""


class RunFailedError(UserError):
    """A run failed; `log` has the traceback and all findings."""

    exit_status = 1


class RunStoppedError(RunFailedError):
    """SIGTERM stopped a run; the next one resumes it."""

    exit_status = 143
