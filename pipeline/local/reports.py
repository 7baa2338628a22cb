"""The reports of runs: a copy of each in one place, opened or compared."""

import json
import shutil
import webbrowser
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.local import history
from pipeline.local.paths import Places, UsageError
from pipeline.settings.sections import Settings

_PAGE, _DATA = "report.html", "evaluation.json"


def keep_report(places: Places, record: history.RunRecord) -> Path | None:
    """Copies a run's report and evaluation beside those of the other runs.

    Returns:
      The page; None where the run has none.

    Raises:
      OSError: when it cannot be copied; nothing half-written is left.
    """
    if not (record.report_uri and record.evaluation_uri):
        return None
    folder = places.reports / _name(record.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(Path(record.report_uri, _PAGE), folder / _PAGE)
        shutil.copyfile(Path(record.evaluation_uri, _DATA), folder / _DATA)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder / _PAGE


def show_report(settings: Settings, run: str | None, *, open_it: bool) -> None:
    """Prints where a run's report is, the newest where none is named, and opens it if asked.

    Raises:
      UsageError: when no run, or more than one, is meant, or no browser can be had.
    """
    folder = _find(settings, run)
    print(folder / _PAGE)
    if open_it and not webbrowser.open((folder / _PAGE).as_uri()):
        raise UsageError("no browser can be opened here; copy the file to where there is one")


def compare_runs(settings: Settings, runs: list[str]) -> None:
    """Prints the metrics of several runs side by side, and writes them as a page.

    Raises:
      UsageError: when for one of them no run, or more than one, is meant.
    """
    # Only here, since it takes a second.
    from evaluation.report.render import interval, metric_titles, number, render_comparison

    folders = sorted({_find(settings, run) for run in runs})
    found = [(_started(folder), _read(folder)) for folder in folders]
    table = Table("", *(name for name, _ in found), box=None)
    verdicts = ("blessed" if each["verdict"]["blessed"] else "not blessed" for _, each in found)
    table.add_row("", *verdicts)
    for name, title in metric_titles(found).items():
        metrics = [each["metrics"].get(name, {}) for _, each in found]
        cells = [f"{number(m.get('value'))} [dim]{interval(m.get('interval'))}[/]" for m in metrics]
        table.add_row(title, *cells)
    console = Console()
    console.print(table)
    page = folders[0].parent / "comparison.html"
    page.write_text(render_comparison(found))
    console.print(f"As a page: {escape(str(page))}", soft_wrap=True, highlight=False)


def _find(settings: Settings, run: str | None) -> Path:
    """The folder of the one run whose name begins so; of the newest where none is named."""
    places = Places.of(settings)
    known = sorted(path.parent for path in places.reports.glob(f"*/{_PAGE}"))
    if not known:
        raise UsageError(
            f"no run in {places.root} has a report yet; `local_runner.py run` makes one"
        )
    if run is None:
        return known[-1]
    meant = [folder for folder in known if folder.name.startswith(_name(run))]
    if not meant and _had_report(places, run):
        raise UsageError(
            f"the report of run {run} was removed by retention; `status` has its metrics"
        )
    if len(meant) != 1:
        names = ", ".join(_started(folder) for folder in meant or known)
        trouble = "more than one run begins with" if meant else "no run with a report begins with"
        raise UsageError(f"{trouble} {run!r}; there are {names}")
    return meant[0]


def _had_report(places: Places, run: str) -> bool:
    """Whether a run whose name begins so made a report, which is not there now."""
    records = history.read_runs(places.database, 100_000) if places.database.exists() else []
    return any(each.report_uri and _name(each.run_id).startswith(_name(run)) for each in records)


def _read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / _DATA).read_text())


def _started(folder: Path) -> str:
    """When a run started, as `status` shows it."""
    day, _, time = folder.name.partition("T")
    return f"{day} {time.replace('-', ':')}"


def _name(run_id: str) -> str:
    """The folder's name for a run's id, or for as much of it as was typed or seen in `status`."""
    return run_id.partition(".")[0].replace(" ", "T").replace(":", "-")
