"""The versions of the generator that are served, on the terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evaluation.metric_table import METRICS
from pipeline.local.paths import Places
from pipeline.settings.sections import Settings
from registry.history import Event, read_history
from registry.layout import list_versions, version_dir
from registry.records import ModelCard, PushRecord, read_card, read_record
from registry.rollback import retire, roll_back

_SHOWN = {"fid": ".3f", "conditional_accuracy": ".1%"}


def show_models(settings: Settings) -> None:
    """Prints a table of the versions, newest first, and what was done to them."""
    console, base = Console(), Places.of(settings).versions
    versions = list_versions(base)
    if not versions:
        console.print(f"No version in {escape(str(base))}", soft_wrap=True)
        return
    titles = (METRICS[name].title for name in _SHOWN)
    table = Table("version", "pushed", "span", *titles, "", box=None)
    for version in reversed(versions):
        folder = version_dir(base, version)
        record, card = read_record(folder), read_card(folder)
        table.add_row(
            str(version),
            f"{record.pushed_at:%Y-%m-%d %H:%M}" if record else "",
            "" if card.data.span is None else str(card.data.span),
            *(_metric(card, name, form) for name, form in _SHOWN.items()),
            _remark(record, served=version == versions[-1]),
        )
    console.print(table)
    for event in read_history(base):
        console.print(f"[dim]{escape(_describe(event))}[/]", soft_wrap=True, highlight=False)


def roll_back_to(settings: Settings, version: int | None, reason: str) -> None:
    """Makes an older version the newest again; see `rollback.roll_back` for what it raises."""
    event = roll_back(Places.of(settings).versions, version, reason)
    text = f"[bold green]Version {event.copy_of} is served again[/], as {event.made}"
    Console().print(text, highlight=False)


def retire_version(settings: Settings, version: int, reason: str) -> None:
    """Removes a version; see `rollback.retire` for what it raises."""
    retire(Places.of(settings).versions, version, reason)
    Console().print(f"Version {version} is removed", highlight=False)


def _metric(card: ModelCard, name: str, form: str) -> str:
    value = card.metric(name)
    return "" if value is None else format(value, form)


def _remark(record: PushRecord | None, *, served: bool) -> str:
    parts = ["[green]served[/]"] if served else []
    if record and record.copy_of is not None:
        parts.append(f"is {record.copy_of} again: {escape(record.reason)}")
    return ", ".join(parts)


def _describe(event: Event) -> str:
    what = {
        "rollback": f"rolled back from {event.version} to {event.copy_of}",
        "retire": f"{event.version} retired",
        "damaged": f"{event.version} set aside",
        "restore": f"{event.version} restored as {event.made}",
    }
    return f"{event.at:%Y-%m-%d %H:%M} {what[event.event]}: {event.reason}"
