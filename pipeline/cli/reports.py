"""`local_runner.py status`, `report` and `compare`: the runs of an output folder."""

import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import storage
from errors import UserError
from parsing import parse_json
from pipeline.cli.options import OutputDir, resolve_options

if TYPE_CHECKING:
    from pipeline.local.history import RunRecord
    from pipeline.local.paths import OutputPaths
    from pipeline.settings.sections import Settings

_MARKS = {"complete": "[green]✓[/]", "cached": "[dim]=[/]", "failed": "[red]✗[/]"}
_ENDED = ("complete", "cached")


class NoReportError(UserError):
    """There is no report of the run that is meant, or it cannot be opened here."""


def status(
    output_dir: OutputDir = None,
    last: Annotated[int, typer.Option(min=1, max=1000, help="How many runs to show.")] = 10,
    why: Annotated[
        bool, typer.Option("--why", help="Show each bound that a generator was held to.")
    ] = False,
) -> None:
    """Show the last runs: nodes, FID, verdict, pushed version.

    Example: python local_runner.py status --last 3 --why
    """
    show_runs(resolve_options(output_dir=output_dir).settings, last, why=why)


def report(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="When it started, or as much of it as tells it apart.",
            show_default="the newest",
        ),
    ] = None,
    output_dir: OutputDir = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Show where a run's report is: metrics, images, training, data.

    Example: python local_runner.py report "2026-11-23 09:30" --open
    """
    page = find_report(resolve_options(output_dir=output_dir).settings, which)
    typer.echo(page)
    if open_it and not webbrowser.open(page.as_uri()):
        raise NoReportError(
            "no browser can be opened here", str(page), "copy the file to where there is one"
        )


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="When each started, as `status` and `report` show."),
    ],
    output_dir: OutputDir = None,
) -> None:
    """Show the metrics of several runs side by side, and as a page.

    Example: python local_runner.py compare "2026-11-23 09:30" 2026-11-24
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from evaluation.report.render import interval, metric_titles, number, render_comparison
    from pipeline.local.reports import DATA

    settings = resolve_options(output_dir=output_dir).settings
    folders = sorted({find_report(settings, run).parent for run in runs})
    found: list[tuple[str, dict[str, Any]]] = [
        (_started(folder), _evaluation(folder / DATA)) for folder in folders
    ]
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


def _evaluation(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = parse_json(storage.read(str(path)))
        _ = found["verdict"]["blessed"], [each["title"] for each in found["metrics"].values()]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise NoReportError(
            "is not the evaluation of a run", str(path), "compare other runs"
        ) from None
    return found


def find_report(settings: "Settings", run: str | None) -> Path:
    """Finds the report of the one run whose start begins so; the newest where none is named.

    Raises:
      NoReportError: when no run with a report is meant, or more than one.
    """
    from pipeline.local.paths import OutputPaths
    from pipeline.local.reports import PAGE, folder_name

    paths = OutputPaths.of(settings)
    known = sorted(paths.reports.glob(f"*/{PAGE}"))
    if not known:
        raise NoReportError(
            "no run has a report yet", str(paths.root), "`local_runner.py run` makes one"
        )
    if run is None:
        return known[-1]
    meant = [page for page in known if page.parent.name.startswith(folder_name(run))]
    if len(meant) == 1:
        return meant[0]
    if not meant and _had_report(paths, run):
        raise NoReportError(
            f"the report of run {run} was removed by retention",
            str(paths.reports),
            "`local_runner.py status` has the run's metrics",
        )
    names = [_started(page.parent) for page in reversed(meant or known)]
    number = "more than one run with a report begins" if meant else "no run with a report begins"
    raise NoReportError(f"{number} with {run!r}; there are", findings=names)


def _had_report(paths: "OutputPaths", run: str) -> bool:
    """Whether a run whose start begins so made a report, which is not there now."""
    from pipeline.local import history
    from pipeline.local.reports import folder_name

    records = history.read_runs(paths.database, 100_000) if paths.database.exists() else []
    begin = folder_name(run)
    return any(each.report_uri and folder_name(each.run_id).startswith(begin) for each in records)


def _started(folder: Path) -> str:
    """When a run started, as `status` shows it."""
    day, _, time = folder.name.partition("T")
    return f"{day} {time.replace('-', ':')}"


def show_runs(settings: "Settings", last: int, *, why: bool = False) -> None:
    """Prints the quarantined spans of an output folder and a table of its last runs, newest first.

    Args:
      settings: which name the output folder.
      last: how many runs.
      why: also print what decided about each.

    Raises:
      QuarantineError: when the quarantine cannot be read.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from pipeline.local import history
    from pipeline.local.lock import is_used
    from pipeline.local.paths import OutputPaths

    console = Console()
    paths = OutputPaths.of(settings)
    for line in _quarantine_lines(paths):
        console.print(f"[red]✗[/] {escape(line)}", soft_wrap=True, highlight=False)
    if not paths.database.exists():
        console.print(f"No run yet in {escape(str(paths.root))}", soft_wrap=True)
        return
    started, pushed = Column("started", no_wrap=True), Column("pushed", no_wrap=True)
    table = Table(started, "preset", "span", "nodes", "FID", "blessed", pushed, box=None)
    table.padding, table.pad_edge = (0, 2, 0, 0), False  # so that a reason fits into 80 columns
    running = is_used(paths)
    records = history.read_runs(paths.database, last)
    made = history.new_pushes(paths.database, records)
    for position, record in enumerate(records):
        table.add_row(
            record.started.strftime("%Y-%m-%d %H:%M:%S"),
            record.preset,
            "" if record.span is None else str(record.span),
            _nodes(record.nodes, running and position == 0),
            f"{record.metrics['fid']:.3f}" if "fid" in record.metrics else "",
            _blessed(record),
            (record.run_id in made and record.pushed_version) or "",
        )
    console.print(table)
    console.print("[dim]nodes in order: ✓ ran, = from the cache, ✗ failed, … not finished[/]")
    for line in (line for record in records if why for line in _reasons(record)):
        console.print(line, soft_wrap=True, highlight=False)


def _quarantine_lines(paths: "OutputPaths") -> Iterator[str]:
    from mnist.quarantine import read_quarantine
    from pipeline.local.window import quarantine_file

    for span, entry in sorted(read_quarantine(quarantine_file(paths)).items()):
        if not entry.released:
            yield f"span {span} is quarantined since {entry.when}: {entry.reason}"


def _blessed(record: "RunRecord") -> str:
    if record.blessed is None:
        return ""
    return "yes" if record.blessed else f"no: {', '.join(record.failed_metrics)}"


def _reasons(record: "RunRecord") -> Iterator[str]:
    """The verdict of a run, and each bound with what was measured."""
    from rich.markup import escape

    from evaluation.decision import Check

    if record.blessed is None:
        return
    verdict = "blessed" if record.blessed else "not blessed"
    yield f"\n{record.started:%Y-%m-%d %H:%M:%S} [bold]{verdict}[/]  {escape(record.baseline)}"
    if not record.checks:
        yield "  no bound is set"
    for check in map(Check.from_json, record.checks):
        yield f"  {_MARKS['complete' if check.passed else 'failed']} {escape(str(check))}"


def _nodes(states: dict[str, str], is_running: bool) -> str:
    marks = "".join(_MARKS.get(state, "…") for state in states.values())
    unfinished = {node: state for node, state in states.items() if state not in _ENDED}
    if not is_running:  # its process was killed, and could not record that
        unfinished = {n: "interrupted" if s == "running" else s for n, s in unfinished.items()}
    return marks + "".join(f" {node} {state}" for node, state in unfinished.items())
