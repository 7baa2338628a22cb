"""One pass of retraining: is there a reason, then a run, then what came of it."""

import contextlib
import dataclasses
import datetime
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from errors import FileError, UserError, masked_traceback
from mnist.quarantine import QuarantineError, read_quarantine
from pipeline.local import history
from pipeline.local.errors import RunFailedError
from pipeline.local.paths import Places
from pipeline.local.recovery import find_damage
from pipeline.local.run import Outcome, in_words, run
from pipeline.local.window import find_run_data, quarantine_file
from pipeline.retraining.conditions import Check, Facts, read_conditions
from pipeline.retraining.records import NOT_STARTED, NOTHING_TO_DO, STOPPED, Pass, add_pass
from pipeline.retraining.textfile import export_metrics
from pipeline.retraining.webhook import RunReport, notify
from pipeline.settings.resolution import Resolved
from registry.layout import newest_version
from surroundings import stop_signals


class _TerminatedError(BaseException):
    """SIGTERM or SIGHUP came; no `Exception`, so that nothing takes it for a failure of its own."""


def retrain(
    resolved: Resolved, condition: str, *, verbose: bool
) -> tuple[Outcome, RunReport, UserError | None]:
    """Makes one pass: runs the pipeline if there is a reason to, and writes down what came of it.

    Args:
      resolved: the settings.
      condition: see `conditions.read_conditions`.
      verbose: leave TFX's own log on the terminal.

    Returns:
      The exit status, which is that of a run, PUSHED where there was nothing to do, and BAD_USAGE
      where the run could not start; what came of it, which is also posted to the address in
      `RETRAIN_WEBHOOK_URL`, if there is one and there was something to do, or to quarantine; and
      the error, if there was one.

    Raises:
      UsageError: when the condition is none.
    """
    check = read_conditions(condition)
    started, at = time.monotonic(), datetime.datetime.now(datetime.timezone.utc)
    places = Places.of(resolved.settings)
    held = _quarantined(places)
    error: UserError | None = None
    try:
        with _heeding_signals():
            outcome, report, error = _make_pass(resolved, places, check, verbose=verbose)
    except (UserError, OSError) as refused:
        error = FileError.of(refused) if isinstance(refused, OSError) else refused
        outcome, report = Outcome.BAD_USAGE, RunReport(NOT_STARTED, _located(error))
    except Exception as unforeseen:  # nobody may be there to see it
        sys.stderr.write(masked_traceback(unforeseen))
        error = RunFailedError(f"unexpected {type(unforeseen).__name__}: {unforeseen}")
        outcome, report = Outcome.FAILED, RunReport("failed", "", error=error.what)
    except _TerminatedError as stopped:
        outcome, report = Outcome.STOPPED, RunReport(STOPPED, str(stopped))
    report = dataclasses.replace(
        report,
        version=newest_version(places.versions),
        seconds=round(time.monotonic() - started, 1),
        quarantined=sorted(_quarantined(places) - held),
    )
    _write_down(resolved, Pass(at, report))
    export_metrics(resolved.settings)
    if report.outcome != NOTHING_TO_DO or report.quarantined:
        notify(os.environ, report)
    return outcome, report, error


def _located(error: UserError) -> str:
    """One line for the record and the webhook."""
    return f"{error.where}: {error.summary}" if error.where else error.summary


def _make_pass(
    resolved: Resolved, places: Places, check: Check, *, verbose: bool
) -> tuple[Outcome, RunReport, RunFailedError | None]:
    data = find_run_data(resolved, places)
    span = data.window.newest
    damage = find_damage(places)
    facts = Facts(resolved.settings, places, data.window)
    found, reason = (True, damage) if damage else check(facts)
    if not found:
        return Outcome.PUSHED, RunReport(NOTHING_TO_DO, reason, span=span), None
    ended = run(resolved, from_node=None, use_cache=True, verbose=verbose, data=data)
    record = _read_run(places, ended.run_id) if ended.run_id else None
    named = in_words(ended.outcome)
    if ended.outcome == Outcome.PUSHED and not (ended.is_new or damage):
        named, reason = NOTHING_TO_DO, f"{reason}, but what came of it is served already"
    report = RunReport(
        outcome=named,
        reason=reason,
        span=span,
        run=record.run_id if record else None,
        fid=record.metrics.get("fid") if record else None,
        failed=record.failed_metrics if record else [],
        error=ended.error.summary if ended.error else "",
    )
    return ended.outcome, report, ended.error


def _read_run(places: Places, run_id: str) -> history.RunRecord | None:
    """What is recorded of a run; None of one that failed too soon, or whose database is lost."""
    try:
        return history.read_run(places.database, run_id)
    except (KeyError, UserError):
        return None


def _quarantined(places: Places) -> set[int]:
    try:
        entries = read_quarantine(quarantine_file(places))
    except QuarantineError:  # the pass says so
        return set()
    return {span for span, entry in entries.items() if not entry.released}


def _write_down(resolved: Resolved, new: Pass) -> None:
    """Adds to the record of passes; a disk that is full fails no pass."""
    try:
        add_pass(Path(resolved.settings.output_dir).absolute(), new)
    except OSError as error:
        print(f"What came of the pass could not be written down: {error}", file=sys.stderr)


@contextlib.contextmanager
def _heeding_signals() -> Iterator[None]:
    """Raises _TerminatedError at a signal to stop, which a training handles by itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        # Once is enough, and what follows is to be written down undisturbed.
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise _TerminatedError(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
