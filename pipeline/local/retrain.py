"""One pass of retraining: is there a reason, then a run, then what came of it."""

import datetime
import os
import re
import time
from collections.abc import Callable

from components.mnist_example_gen.spans import SpanFiles, content_fingerprint, resolve_span
from components.pusher.versions import list_versions, read_record
from pipeline.config import Resolved, Settings
from pipeline.local import history
from pipeline.local.models import serving_dir
from pipeline.local.places import Places, UsageError
from pipeline.local.run import Outcome, find_data, run
from pipeline.webhook import RunReport, notify

CONDITIONS = "new-data, age:<N>d, age:<N>h, age:<N>m or always"
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}

# Of settings, places and the data's files: whether to run, and why or why not.
_Check = Callable[[Settings, Places, SpanFiles], tuple[bool, str]]


def retrain(resolved: Resolved, condition: str, *, verbose: bool) -> tuple[Outcome, RunReport]:
    """Runs the pipeline if there is a reason to.

    Args:
      resolved: the settings.
      condition: one of `CONDITIONS`.
      verbose: leave TFX's own log on the terminal.

    Returns:
      The exit status, which is that of a run and PUSHED where there was nothing to do; and what
      came of it, which is also posted to the address in `RETRAIN_WEBHOOK_URL`, if there is one.

    Raises:
      UsageError, DataSourceError, SpanError, IdxError: as `pipeline.local.run.run` does.
    """
    started = time.monotonic()
    check = _parse(condition)
    places = Places.of(resolved.settings)
    files = resolve_span(find_data(resolved).directory, resolved.settings.data.span)
    found, reason = check(resolved.settings, places, files)
    outcome, run_id = Outcome.PUSHED, None
    if found:
        outcome, run_id = run(resolved, from_node=None, use_cache=True, verbose=verbose)
    name = outcome.name.lower().replace("_", " ") if found else "nothing to do"
    record = history.read_run(places.database, run_id) if run_id else None
    done = RunReport(
        outcome=name,
        reason=reason,
        span=files.span,
        run=run_id,
        version=max(list_versions(serving_dir(resolved.settings)), default=None),
        fid=record.figures.get("fid") if record else None,
        failed=record.failed_figures if record else [],
        seconds=round(time.monotonic() - started, 1),
    )
    if found:
        notify(os.environ, done)
    return outcome, done


def check_condition(condition: str) -> None:
    """Raises UsageError when it is none."""
    _parse(condition)


def _parse(condition: str) -> _Check:
    found = re.fullmatch(r"age:([0-9]{1,6})([dhm])", condition)
    if found:
        age = datetime.timedelta(**{_UNITS[found[2]]: int(found[1])})
        return lambda settings, places, files: _is_older(settings, age)
    if condition == "new-data":
        return _has_new_data
    if condition == "always":
        return lambda settings, places, files: (True, "asked for")
    raise UsageError(f"--if {condition}: expected {CONDITIONS}")


def _has_new_data(settings: Settings, places: Places, files: SpanFiles) -> tuple[bool, str]:
    """Whether the data differ from those of the last run that came to a verdict."""
    runs = history.read_runs(places.database, 1000) if places.database.exists() else []
    judged = next((record for record in runs if record.blessed is not None), None)
    if judged is None:
        return True, "no run has come to a verdict yet"
    if judged.data_content == content_fingerprint(files):
        return (
            False,
            f"the data of span {files.span} were last judged {judged.started:%Y-%m-%d %H:%M}",
        )
    return True, f"the data of span {files.span} are new"


def _is_older(settings: Settings, age: datetime.timedelta) -> tuple[bool, str]:
    """Whether the version that is served was pushed longer ago than that."""
    base = serving_dir(settings)
    versions = list_versions(base)
    pushed = read_record(base, versions[-1]).get("pushed_at") if versions else None
    if pushed is None:
        return True, "nothing is served yet"
    now = datetime.datetime.now(datetime.timezone.utc)
    found = now - datetime.datetime.fromisoformat(pushed)
    return found > age, f"version {versions[-1]} was pushed {pushed}"
