"""The error for a run that cannot start."""


class UsageError(Exception):
    """The run cannot start as it was asked for."""
