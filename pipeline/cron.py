"""Cron expressions, read as Debian's cron reads them, for this machine and for Kubeflow."""

import datetime
from typing import Any

from cronsim import CronSim, CronSimError

from errors import UserError

_FIELDS = "minute, hour, day of month, month and day of week, such as '0 3 * * 1', Mondays at 03:00"
_HORIZON = datetime.timedelta(days=4 * 366)


class CronError(UserError):
    """A cron expression is malformed, or no date ever matches it."""


def next_time(expression: str, after: datetime.datetime) -> datetime.datetime:
    """The first time after a moment, in UTC.

    A time that is skipped when clocks go forward comes right after the gap. A time that occurs
    twice when clocks go back comes once, unless the hour or the minute is `*`.

    Args:
      expression: minute, hour, day of month, month, day of week (0 and 7 are Sunday). If both kinds
        of day are restricted, a day that matches either matches.
      after: with its time zone, which is the expression's.

    Raises:
      CronError: the expression is malformed, or no date within 50 years matches.
    """
    times = (time.astimezone(datetime.timezone.utc) for time in _parse(expression, after))
    found = next((time for time in times if time > after), None)
    if found is None:
        raise CronError(f"no date matches the cron expression {expression!r}")
    return found


def to_kubeflow(expression: str) -> str:
    """The expression for Kubeflow Pipelines: six fields, the seconds first.

    Kubeflow's parser (robfig/cron 1.2) takes five fields as well, but as seconds to months, so that
    `0 3 * * 1` would run at the third minute of each hour in January.

    Raises:
      CronError: the expression is malformed, Kubeflow's parser lacks a word of it (L, W, #), or no
        date of the next years matches. The backend would search for such a date without end.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    cron = _parse(expression, now)
    values: list[set[Any]] = [cron.minutes, cron.hours, cron.days, cron.months, set(cron.weekdays)]
    if not all(isinstance(value, int) and value >= 0 for field in values for value in field):
        raise CronError(f"Kubeflow knows no L, W or # in a cron expression: {expression!r}")
    if next_time(expression, now) > now + _HORIZON:
        raise CronError(f"no date of the next four years matches {expression!r}")
    values[4] = {day % 7 for day in values[4]}  # 7, Sunday, is out of range there
    # A star is kept: where one kind of day has it, both parsers want both kinds to match.
    fields = [
        text if text.startswith("*") else ",".join(map(str, sorted(field)))
        for text, field in zip(expression.split(), values, strict=True)
    ]
    return " ".join(["0", *fields])


def _parse(expression: str, after: datetime.datetime) -> CronSim:
    try:
        if len(expression.split()) != 5:
            raise CronSimError("it does not have five fields")
        return CronSim(expression, after)
    except CronSimError as error:
        raise CronError(
            f"cron expression {expression!r}: {error}", fix=f"expected {_FIELDS}"
        ) from None
