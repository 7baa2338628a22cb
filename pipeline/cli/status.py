"""Runs and settings on the terminal."""

from collections.abc import Iterator

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from evaluation.decision import Check
from pipeline.cli.data import quarantine_lines
from pipeline.local import history
from pipeline.local.paths import Places
from pipeline.settings.resolution import Resolved, allowed
from pipeline.settings.sections import Settings

_MARKS = {"complete": "[green]✓[/]", "cached": "[dim]=[/]", "failed": "[red]✗[/]"}


def show_runs(settings: Settings, last: int, *, why: bool = False) -> None:
    """Prints the quarantined spans of an output folder and a table of its last runs, newest first.

    Args:
      settings: which name the output folder.
      last: how many runs.
      why: also print what decided about each.

    Raises:
      UsageError: when the quarantine cannot be read.
    """
    console = Console()
    places = Places.of(settings)
    for line in quarantine_lines(places):
        console.print(f"[red]✗[/] {escape(line)}", soft_wrap=True, highlight=False)
    if not places.database.exists():
        console.print(f"No run yet in {escape(str(places.root))}", soft_wrap=True)
        return
    started, pushed = Column("started", no_wrap=True), Column("pushed", no_wrap=True)
    table = Table(started, "preset", "span", "nodes", "FID", "blessed", pushed, box=None)
    table.padding, table.pad_edge = (0, 2, 0, 0), False  # so that a reason fits into 80 columns
    records = history.read_runs(places.database, last)
    made = history.new_pushes(places.database, records)
    for record in records:
        table.add_row(
            record.started.strftime("%Y-%m-%d %H:%M:%S"),
            record.preset,
            "" if record.span is None else str(record.span),
            _nodes(record.nodes),
            f"{record.metrics['fid']:.3f}" if "fid" in record.metrics else "",
            _blessed(record),
            (record.run_id in made and record.pushed_version) or "",
        )
    console.print(table)
    console.print("[dim]nodes in order: ✓ ran, = from the cache, ✗ failed, … not finished[/]")
    for line in (line for record in records if why for line in _reasons(record)):
        console.print(line, soft_wrap=True, highlight=False)


def _blessed(record: history.RunRecord) -> str:
    if record.blessed is None:
        return ""
    return "yes" if record.blessed else f"no: {', '.join(record.failed_metrics)}"


def _reasons(record: history.RunRecord) -> Iterator[str]:
    """The verdict of a run, and each bound with what was measured."""
    if record.blessed is None:
        return
    verdict = "blessed" if record.blessed else "not blessed"
    yield f"\n{record.started:%Y-%m-%d %H:%M:%S} [bold]{verdict}[/]  {escape(record.baseline)}"
    if not record.checks:
        yield "  no bound is set"
    for check in map(Check.from_json, record.checks):
        yield f"  {_MARKS['complete' if check.passed else 'failed']} {escape(str(check))}"


def _nodes(states: dict[str, str]) -> str:
    marks = "".join(_MARKS.get(state, "…") for state in states.values())
    unfinished = [node for node, state in states.items() if state not in ("complete", "cached")]
    return marks + "".join(f" {node} {states[node]}" for node in unfinished)


def show_settings(resolved: Resolved) -> None:
    """Prints every setting as YAML, with origin, meaning and range as comments."""
    lines: list[str] = []
    open_path: list[str] = []
    for key, value, origin, field in resolved.rows():
        *path, name = key.split(".")
        for depth, part in enumerate(path):
            if open_path[: depth + 1] != path[: depth + 1]:
                lines.append(f"{'  ' * depth}{part}:")
                open_path = path[: depth + 1]
        open_path = path
        indent = "  " * len(path)
        text = yaml.safe_dump(
            list(value) if isinstance(value, tuple) else value, default_flow_style=True, width=10**6
        )
        shown = text.removesuffix("...\n").strip()
        lines.append(f"{indent}# {field.description}; {allowed(field)}")
        lines.append(f"{indent}{name}: {shown}  # {origin}")
    print("\n".join(lines))
