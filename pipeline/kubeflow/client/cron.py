"""Cron expressions, as Kubeflow Pipelines reads them.

Its backend parses them with `robfig/cron` 1.2 (https://pkg.go.dev/github.com/robfig/cron@v1.2.0),
where the first field is the seconds and the last one, the day of the week, may be left out. So the
usual five fields are taken there, but read as other ones: `0 3 * * 1`, Mondays at three, becomes
the third minute of each hour of January.
"""

import re
from typing import NamedTuple


class CronError(ValueError):
    """An expression that Kubeflow would refuse, read otherwise than meant, or never fire."""


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field(
        "month",
        1,
        12,
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    ),
    _Field("day of week", 0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_EVERY = re.compile(r"@every ([0-9]+[hms])+")
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def to_kubeflow(expression: str) -> str:
    """The expression with its six fields, seconds first.

    Args:
      expression: five fields (minute, hour, day of month, month, day of week), six with the
        seconds first, or one of @hourly, @daily, @weekly, @monthly, @yearly, @every 1h30m.

    Returns:
      What the backend reads as it is meant; five fields get the second 0.

    Raises:
      CronError: a field is malformed or out of range, or no date ever matches.
    """
    expression = " ".join(expression.split())
    if expression.startswith("@"):
        return _descriptor(expression)
    fields = expression.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise CronError(
            f"cron expression {expression!r} has {len(fields)} fields; expected 5 (minute, hour, "
            "day of month, month, day of week) or 6 (the second first), such as '0 3 * * 1', "
            "Mondays at 03:00"
        )
    values = [_values(text, field) for text, field in zip(fields, _FIELDS, strict=True)]
    if not _ever_matches(fields, values):
        raise CronError(f"cron expression {expression!r} never fires: no such day of the month")
    return " ".join(fields)


def _descriptor(expression: str) -> str:
    if expression in _DESCRIPTORS:
        return expression
    if _EVERY.fullmatch(expression) and re.search("[1-9]", expression):
        return expression
    raise CronError(
        f"{expression!r} is no cron expression; expected {', '.join(_DESCRIPTORS)}, "
        "or @every with hours, minutes and seconds, such as '@every 1h30m'"
    )


def _values(text: str, field: _Field) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        try:
            found |= _range(part, field)
        except ValueError as error:
            raise CronError(f"cron field {field.name} is {text!r}: {error}") from None
    return found


def _range(part: str, field: _Field) -> set[int]:
    span, slash, step_text = part.partition("/")
    step = _number(step_text, "a step") if slash else 1
    if step == 0:
        raise ValueError("a step is at least 1")
    if span in ("*", "?"):
        return set(range(field.low, field.high + 1, step))
    first, hyphen, last = span.partition("-")
    low = _bounded(first, field)
    high = _bounded(last, field) if hyphen else (field.high if slash else low)
    if low > high:
        raise ValueError(f"{first} comes after {last}")
    return set(range(low, high + 1, step))


def _bounded(text: str, field: _Field) -> int:
    if text.lower() in field.names:
        return field.names.index(text.lower()) + field.low
    names = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
    expected = f"expected {field.low} to {field.high}{names}"
    number = _number(text, expected)
    if not field.low <= number <= field.high:
        sunday = ", Sunday is 0" if field.low == 0 and field.high == 6 else ""
        raise ValueError(f"{expected}{sunday}, got {number}")
    return number


def _number(text: str, expected: str) -> int:
    if not re.fullmatch("[0-9]+", text):
        raise ValueError(f"{text!r} is not a number ({expected})")
    return int(text)


def _ever_matches(fields: list[str], values: list[set[int]]) -> bool:
    """Whether a date matches: the backend would take none for "now", and run without end.

    (`Next` then returns year 1, which is past: spec.go of robfig/cron, GetNextScheduledEpoch of the
    backend's scheduledworkflow/util/scheduled_workflow.go.) Where both kinds of day are restricted,
    either is enough.
    """
    _, _, _, days, months, weekdays = values
    both_needed = any("*" in field or "?" in field for field in (fields[3], fields[5]))
    if not both_needed:
        return True
    leap_day = len(weekdays) == 7  # else it may be decades until 29 February is such a day
    return any(
        min(days) <= (_DAYS[month - 1] if month != 2 or leap_day else 28) for month in months
    )
