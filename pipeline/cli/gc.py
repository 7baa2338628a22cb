"""`local_runner.py gc`: what retention removes, said and done."""

import itertools

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.local.lock import locked
from pipeline.local.paths import Places
from pipeline.local.retention import Removal, plan, remove
from pipeline.settings.sections import Settings


def collect(settings: Settings, *, dry_run: bool) -> None:
    """Removes what the settings do not keep, and prints it as a table.

    Raises:
      UsageError: when another run uses the folder, or its database cannot be relied on.
    """
    places = Places.of(settings)
    console = Console()
    if not places.root.is_dir():
        console.print(f"Nothing in {escape(str(places.root))}", soft_wrap=True)
        return
    with locked(places):
        removals = plan(settings, places)
        for line in _table(removals) if removals else ():
            console.print(line)
        if not dry_run:
            remove(places, removals)
    verb = "Would remove" if dry_run else "Removed"
    console.print(f"{verb} {describe(removals)}", highlight=False)


def collect_after_run(settings: Settings, places: Places) -> str:
    """Removes what the settings do not keep; by whoever holds the lock. Returns one line or ""."""
    removals = plan(settings, places)
    # What TFX leaves of every run is not worth a word.
    told = [each for each in removals if each.kind != "temporary"]
    remove(places, removals)
    return f"retention removed {describe(told)}" if told else ""


def describe(removals: list[Removal]) -> str:
    """How many, and how much."""
    if not removals:
        return "nothing"
    count = len(removals)
    things = "file or folder" if count == 1 else "files and folders"
    return f"{count} {things}, {in_units(sum(each.size for each in removals))}"


def in_units(size: int) -> str:
    """Bytes in words, for example `1.5 MiB`."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def _table(removals: list[Removal]) -> list[Table]:
    table = Table("what", "why", "number", "size", box=None)
    ordered = sorted(removals, key=lambda each: (each.kind, each.reason))
    for (kind, reason), group in itertools.groupby(ordered, lambda each: (each.kind, each.reason)):
        members = list(group)
        size = in_units(sum(each.size for each in members))
        table.add_row(kind, reason, str(len(members)), size)
    return [table]
