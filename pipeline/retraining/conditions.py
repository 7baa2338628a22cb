"""The reasons for a run that `retrain --if` takes; needs neither TFX nor TensorFlow."""

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass

from mnist.windows import Window
from pipeline.local import history
from pipeline.local.paths import Places, UsageError
from pipeline.retraining.drift import find_drift
from pipeline.settings.sections import Settings
from registry.layout import newest_version, version_dir
from registry.records import read_record

CONDITIONS = "new-data, drift, age:<N>d, age:<N>h, age:<N>m or always, or several with commas"
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


@dataclass(frozen=True)
class Facts:
    """What a reason is found in: the settings, the output folder and the spans of the data."""

    settings: Settings
    places: Places
    window: Window


# Whether to run, and why or why not.
Check = Callable[[Facts], tuple[bool, str]]


def read_conditions(text: str) -> Check:
    """Reads what `--if` was given.

    Args:
      text: one or more of `CONDITIONS`, with commas between them.

    Returns:
      A check that holds where any of them does, and says why; else why none does.

    Raises:
      UsageError: when one is none of them.
    """
    checks = [_read(name) for name in text.split(",")]

    def check(facts: Facts) -> tuple[bool, str]:
        reasons = []
        for each in checks:
            found, reason = each(facts)
            if found:
                return True, reason
            reasons.append(reason)
        return False, "; ".join(reasons)

    return check


def read_duration(text: str) -> datetime.timedelta | None:
    """A whole number of days, hours or minutes, such as `7d`; None where the text is none."""
    found = re.fullmatch(r"([0-9]{1,6})([dhm])", text)
    return datetime.timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None


def _read(name: str) -> Check:
    age = read_duration(name.removeprefix("age:")) if name.startswith("age:") else None
    if age is not None:
        return lambda facts: _is_older(facts, age)
    if name in _NAMED:
        return _NAMED[name]
    raise UsageError(f"{name!r} is no reason, expected {CONDITIONS}", "--if")


def _has_new_data(facts: Facts) -> tuple[bool, str]:
    """Whether the data differ from those of the last run that came to a verdict."""
    judged, span = history.last_judged(facts.places.database), facts.window.newest
    if judged is None:
        return True, "no run has come to a verdict yet"
    if judged.data_content == facts.window.content:
        run = f"{judged.started:%Y-%m-%d %H:%M}"
        return False, f"the run of {run} gave a verdict on the data of span {span}"
    return True, f"the data of span {span} are new"


def _is_older(facts: Facts, age: datetime.timedelta) -> tuple[bool, str]:
    """Whether the version that is served was pushed longer ago than that."""
    version = newest_version(facts.places.versions)
    if version is None:
        return True, "nothing is served yet"
    record = read_record(version_dir(facts.places.versions, version))
    if record is None:
        return True, f"version {version} does not say when it was pushed"
    found = datetime.datetime.now(datetime.timezone.utc) - record.pushed_at
    return found > age, f"version {version} was pushed {record.pushed_at:%Y-%m-%d %H:%M} UTC"


def _has_drifted(facts: Facts) -> tuple[bool, str]:
    """Whether a new span is further from the data behind what is served than the gate likes."""
    limits = facts.settings.gate.drift.warn.model_dump()
    return find_drift(facts.places.versions, facts.window.spans, limits)


_NAMED: dict[str, Check] = {
    "new-data": _has_new_data,
    "drift": _has_drifted,
    "always": lambda facts: (True, "asked for"),
}
