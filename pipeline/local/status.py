"""Runs and settings on the terminal."""

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.config import Resolved, Settings, allowed
from pipeline.local import history
from pipeline.local.data import quarantine_lines
from pipeline.local.places import Places

_MARKS = {"complete": "[green]✓[/]", "cached": "[dim]=[/]", "failed": "[red]✗[/]"}


def show_runs(settings: Settings, last: int) -> None:
    """Prints the quarantined spans of an output folder and a table of its last runs, newest first.

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
    table = Table("started", "preset", "span", "nodes", "FID", "blessed", "pushed", box=None)
    for record in history.read_runs(places.database, last):
        table.add_row(
            record.started.strftime("%Y-%m-%d %H:%M:%S"),
            record.preset,
            "" if record.span is None else str(record.span),
            _nodes(record.nodes),
            f"{record.figures['fid']:.3f}" if "fid" in record.figures else "",
            _blessed(record),
            record.pushed_version or "",
        )
    console.print(table)
    console.print("[dim]nodes in order: ✓ ran, = from the cache, ✗ failed, … not finished[/]")


def _blessed(record: history.RunRecord) -> str:
    if record.blessed is None:
        return ""
    return "yes" if record.blessed else f"no: {', '.join(record.failed_figures)}"


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
