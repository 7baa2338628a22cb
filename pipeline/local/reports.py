"""The reports of runs: a copy of each in one place."""

import shutil
from pathlib import Path

import storage
from pipeline.local import history
from pipeline.local.paths import OutputPaths

PAGE, DATA = "report.html", "evaluation.json"
_MOST_BYTES = 64 << 20


def keep_report(paths: OutputPaths, record: history.RunRecord) -> Path | None:
    """Copies a run's report and evaluation beside those of the other runs.

    Returns:
      The page; None where the run has none.

    Raises:
      OSError: when it cannot be copied; nothing half-written is left.
    """
    if not (record.report_uri and record.evaluation_uri):
        return None
    folder = paths.reports / folder_name(record.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for uri, name in ((record.evaluation_uri, DATA), (record.report_uri, PAGE)):
            content = storage.read_if_there(str(Path(uri, name)), _MOST_BYTES)
            if content is None:
                raise FileNotFoundError(f"{Path(uri, name)} is missing, or larger than 64 MiB")
            storage.write(str(folder / name), content)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder / PAGE


def folder_name(run_id: str) -> str:
    """The folder's name for a run's id, or for as much of it as was typed or seen in `status`."""
    return run_id.partition(".")[0].replace(" ", "T").replace(":", "-")
