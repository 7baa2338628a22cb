"""What the exit handler's container runs: says on a webhook what came of a run.

The backend gives it the state of the whole DAG and no more, neither which task failed nor why
(driver/resolve.go). What was pushed is read where it was pushed to.
"""

import datetime
import json
import os
import sys
from typing import Any

from models import storage
from pipeline.webhook import RunReport, notify

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
    version, record, card = _newest_version(values["serving_dir"])
    pushed_at = _time(record.get("pushed_at", ""))
    is_new = bool(succeeded and created and pushed_at and pushed_at >= created)
    outcome = "succeeded" if created is None else "pushed" if is_new else "not pushed"
    return RunReport(
        outcome=outcome if succeeded else "failed",
        reason=f"run {values['run_name']}",
        span=card.get("data", {}).get("span") if is_new else None,
        run=values["run_id"],
        version=version,
        fid=card.get("metrics", {}).get("fid", {}).get("value") if is_new else None,
        failed=[],
        seconds=(now - created).total_seconds() if created else None,
    )


def _time(text: str) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None


def _newest_version(serving_dir: str) -> tuple[int | None, dict[str, Any], dict[str, Any]]:
    """The version that is served, its record and its card; nothing where they cannot be read."""
    try:
        names = [name for name in storage.names_in(serving_dir) if name.isdecimal()]
        for name in sorted(names, key=int, reverse=True):
            folder = f"{serving_dir}/{name}"
            if storage.exists(f"{folder}/saved_model.pb"):
                extra = f"{folder}/assets.extra"
                return int(name), _read(f"{extra}/push.json"), _read(f"{extra}/model_card.json")
    except Exception as error:  # Whatever the store has: a report without a version is one too.
        print(f"{serving_dir} cannot be read: {error}")
    return None, {}, {}


def _read(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(storage.read(path)) if storage.exists(path) else {}
    return content


if __name__ == "__main__":
    main(sys.argv[1:])
