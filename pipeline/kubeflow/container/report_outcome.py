"""What the exit handler's container runs: says on a webhook what came of a run.

The backend gives it the state of the whole DAG and no more, neither which task failed nor why
(driver/resolve.go). What was pushed is read where it was pushed to.
"""

import datetime
import json
import os
import sys
from typing import Any

from pipeline.retraining.webhook import RunReport, notify
from pipeline.side_work import run_aside
from registry.integrity import newest_intact_version
from registry.layout import version_address
from registry.records import ModelCard, PushRecord, read_card, read_record

_SECONDS = 300.0  # for a store
# ML Metadata's. A DAG whose last task lost its pod still says RUNNING.
_SUCCEEDED = ("COMPLETE", "CACHED", "SUCCEEDED")


def main(arguments: list[str]) -> None:
    """Reports; the argument is the backend's ExecutorInput as JSON."""
    values = json.loads(arguments[0])["inputs"]["parameterValues"]
    report = make_report(values, datetime.datetime.now(datetime.timezone.utc))
    print(report.as_json())
    notify(os.environ, report)


def make_report(values: dict[str, Any], now: datetime.datetime) -> RunReport:
    """What came of a run.

    Args:
      values: `status`, the DAG's as the backend gives it; `run_id` and `run_name`; `created`, when
        the run was, in ISO 8601 (backends before 2.16 do not say); `serving_dir`, where the
        versions of the model are.
      now: the time.
    """
    succeeded = values.get("status", {}).get("state") in _SUCCEEDED
    created = _time(values["created"])
    place = values["serving_dir"]
    # A report without a version is one, too.
    served = run_aside(f"{place} cannot be read", lambda: _served(place), _SECONDS)
    version, record, card = served or (None, None, ModelCard())
    is_new = bool(succeeded and created and record and record.pushed_at >= created)
    outcome = "succeeded" if created is None else "pushed" if is_new else "not pushed"
    return RunReport(
        outcome=outcome if succeeded else "failed",
        reason=f"run {values['run_name']}",
        span=card.data.span if is_new else None,
        run=values["run_id"],
        version=version,
        fid=card.metric("fid") if is_new else None,
        failed=[],
        seconds=(now - created).total_seconds() if created else None,
    )


def _time(text: str) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None


def _served(serving_dir: str) -> tuple[int | None, PushRecord | None, ModelCard]:
    """The served version, its record and its card; no fields if no version is served."""
    version = newest_intact_version(serving_dir)
    if version is None:
        return None, None, ModelCard()
    folder = version_address(serving_dir, version)
    return version, read_record(folder), read_card(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
