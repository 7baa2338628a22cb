"""One verification: the comparisons, then the record, the metrics and the webhook."""

import dataclasses
import datetime
import os
import sys
import time

from errors import FileError, UserError
from pipeline.local.paths import OutputPaths
from pipeline.retraining.records import AS_BLESSED, NOT_STARTED, VERIFICATIONS, Pass, add_pass
from pipeline.retraining.textfile import export_metrics
from pipeline.retraining.webhook import RunReport, notify
from pipeline.settings.sections import Settings
from pipeline.side_work import run_aside
from pipeline.verifying.checks import Finding, compare, load_newest
from pipeline.verifying.endpoint import Endpoint, NoAnswerError

# Servers look for a new version every few seconds, and then have to load it.
_GRACE = datetime.timedelta(minutes=2)
_PAUSE_SECONDS = 5.0


def verify_and_report(
    endpoint: Endpoint, base: str, settings: Settings
) -> tuple[RunReport, list[Finding], UserError | None]:
    """Verifies an endpoint, and reports the outcome as a pass of retraining does.

    The report goes to `verifications.jsonl` in the output folder, to `metrics.textfile` if it is
    set, and to the address in `RETRAIN_WEBHOOK_URL` if all is not as it was blessed.

    Args:
      endpoint: what is served.
      base: path or URI of the folder of versions.
      settings: which name the output folder and the file of metrics.

    Returns:
      The report, whose outcome is `as blessed`, `worse`, `no answer` or `not started`; the
      comparisons; and the error, if there was one.
    """
    started, at = time.monotonic(), datetime.datetime.now(datetime.timezone.utc)
    findings: list[Finding] = []
    error: UserError | None = None
    try:
        version, findings, metrics = _compare_newest(endpoint, base)
        failed = [each for each in findings if not each.passed]
        report = RunReport(
            "worse" if failed else AS_BLESSED,
            f"verified {endpoint.url}",
            version=version,
            fid=metrics.get("fid"),
            failed=[each.name for each in failed],
            error="; ".join(f"{each.name}: {each.text}" for each in failed),
        )
    except (UserError, OSError) as refused:
        error = FileError.of(refused) if isinstance(refused, OSError) else refused
        outcome = "no answer" if isinstance(error, NoAnswerError) else NOT_STARTED
        report = RunReport(outcome, f"verified {endpoint.url}", error=error.summary)
    report = dataclasses.replace(report, seconds=round(time.monotonic() - started, 1))
    root = OutputPaths.of(settings).root
    run_aside(
        "the verification is not recorded",
        lambda: add_pass(root, Pass(at, report), VERIFICATIONS),
    )
    export_metrics(settings)
    if report.outcome != AS_BLESSED:
        notify(os.environ, report)
    return report, findings, error


def _compare_newest(endpoint: Endpoint, base: str) -> tuple[int, list[Finding], dict[str, float]]:
    """Compares with the newest version; again, while it fails and that version is just pushed."""
    ends = time.monotonic() + _GRACE.total_seconds()
    while True:
        blessed = load_newest(base)
        findings, metrics = compare(endpoint, blessed)
        failed = [each for each in findings if not each.passed]
        pushed, now = blessed.pushed_at, datetime.datetime.now(datetime.timezone.utc)
        is_new = pushed is not None and now - pushed < _GRACE and time.monotonic() < ends
        if not (failed and is_new):
            return blessed.version, findings, metrics
        print(
            f"version {blessed.version} was pushed a moment ago, so this is tried again: "
            f"{failed[0].name}: {failed[0].text}",
            file=sys.stderr,
        )
        time.sleep(_PAUSE_SECONDS)
