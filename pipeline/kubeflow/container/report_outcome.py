"""What the exit handler's container runs: reports the outcome of a run to a webhook.

The backend gives it the state of the whole DAG and no more, neither which task failed nor why
(driver/resolve.go). The errors are what the tasks noted (`failures.py`); what was pushed is read
where it was pushed to.
"""

import datetime
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.kubeflow.container.failures import Notes
from pipeline.retraining.webhook import RunReport, notify
from pipeline.side_work import run_aside
from registry.integrity import newest_intact_version
from registry.layout import version_address
from registry.records import ModelCard, find_push, read_card

_NO_ERROR = "a task did not start: see `kubeflow_runner.py status {run}`"
_SECONDS = 300.0  # for a store
# ML Metadata's. A DAG whose last task lost its pod still says RUNNING.
_SUCCEEDED = ("COMPLETE", "CACHED", "SUCCEEDED")


def main(arguments: list[str]) -> None:
    """Reports; the argument is the backend's ExecutorInput as JSON."""
    os.umask(0o022)  # Argo starts containers with 0
    executor_input = json.loads(arguments[0])
    values = executor_input["inputs"]["parameterValues"]
    errors = Notes.of(executor_input).take()
    report = make_report(values, errors, datetime.datetime.now(datetime.timezone.utc))
    print(report.as_json())
    notify(os.environ, report)


def make_report(
    values: Mapping[str, Any], errors: Sequence[str], now: datetime.datetime
) -> RunReport:
    """Returns the outcome of a run.

    Args:
      values: `status`, the DAG's as the backend gives it; `run_id` and `run_name`, which is empty
        for a scheduled run; `created`, when the run was, in ISO 8601 (backends before 2.16 do not
        say); `serving_dir`, where the versions of the model are.
      errors: of the tasks that failed.
      now: the time.
    """
    status, run = values.get("status", {}), values["run_id"]
    succeeded = status.get("state") in _SUCCEEDED
    created = _time(values["created"])
    place = values["serving_dir"]
    # A report without a version is one, too.
    found = run_aside(f"{place} cannot be read", lambda: _find_version(place, run), _SECONDS)
    version, card = found or (None, None)
    is_new = succeeded and card is not None
    return RunReport(
        outcome="failed" if not succeeded else "pushed" if is_new else "not pushed",
        reason=f"run {values['run_name'] or status.get('pipelineJobResourceName', '')}",
        span=card.data.span if succeeded and card else None,
        run=run,
        version=version,
        fid=card.metric("fid") if succeeded and card else None,
        failed=[],
        seconds=(now - created).total_seconds() if created else None,
        error="" if succeeded else "; ".join(errors) or _NO_ERROR.format(run=run),
    )


def _time(text: str) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None


def _find_version(serving_dir: str, run: str) -> tuple[int | None, ModelCard | None]:
    """The version that a run pushed, and its card; else the served version, and None."""
    pushed = find_push(serving_dir, run)
    if pushed is None:
        return newest_intact_version(serving_dir), None
    return pushed, read_card(version_address(serving_dir, pushed))


if __name__ == "__main__":
    main(sys.argv[1:])
