"""`local_runner.py gc`: removes what retention does not keep."""

import itertools
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import Assignments, OutputDir, resolve_options

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.local.retention import Removal
    from pipeline.settings.sections import Settings


def gc(
    assignments: Assignments = None,
    output_dir: OutputDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go, and remove nothing.")
    ] = False,
) -> None:
    """Remove what the settings `retention.*` do not keep of old runs.

    Example: python local_runner.py gc --set retention.runs=10 --dry-run
    """
    collect(resolve_options("default", assignments, output_dir).settings, dry_run=dry_run)


def collect(settings: "Settings", *, dry_run: bool) -> None:
    """Removes what the settings do not keep, and prints it as a table.

    Raises:
      UsageError: when another run uses the folder, or its database cannot be relied on.
    """
    from rich.console import Console
    from rich.markup import escape

    from pipeline.local.lock import locked
    from pipeline.local.paths import Places
    from pipeline.local.retention import describe, plan, remove

    places, console = Places.of(settings), Console()
    if not places.root.is_dir():
        console.print(f"Nothing in {escape(str(places.root))}", soft_wrap=True)
        return
    with locked(places):
        removals = plan(settings, places)
        if removals:
            console.print(_table(removals))
        if not dry_run:
            remove(places, removals)
    verb = "Would remove" if dry_run else "Removed"
    console.print(f"{verb} {describe(removals)}", highlight=False)


def _table(removals: "list[Removal]") -> "Table":
    from rich.table import Table

    from pipeline.local.retention import in_units

    table = Table("what", "why", "number", "size", box=None)
    ordered = sorted(removals, key=lambda each: (each.kind, each.reason))
    for (kind, reason), group in itertools.groupby(ordered, lambda each: (each.kind, each.reason)):
        members = list(group)
        size = in_units(sum(each.size for each in members))
        table.add_row(kind, reason, str(len(members)), size)
    return table
