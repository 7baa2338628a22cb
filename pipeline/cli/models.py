"""`local_runner.py models`, `rollback` and `retire`: the versions of the generator."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import OutputDir, Reason, resolve_options

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.settings.sections import Settings
    from registry.history import Event
    from registry.records import PushRecord

_METRICS = {"fid": ".3f", "conditional_accuracy": ".1%"}


def models(output_dir: OutputDir = None) -> None:
    """Show the generator's versions: metrics, and which is served.

    Example: python local_runner.py models
    """
    show_models(resolve_options(output_dir=output_dir).settings)


def rollback(
    version: Annotated[
        int | None, typer.Argument(show_default="the one served before", min=0)
    ] = None,
    reason: Reason = "not given",
    output_dir: OutputDir = None,
) -> None:
    """Serve an older version again, under a new number.

    Example: python local_runner.py rollback --reason "blurred sevens"
    """
    from rich.console import Console

    from registry.rollback import roll_back

    event = roll_back(_versions(output_dir), version, reason)
    text = f"[bold green]Version {event.copy_of} is served again[/], as {event.made}"
    Console().print(text, highlight=False)


def retire(
    version: Annotated[int, typer.Argument(min=0)],
    reason: Reason = "not given",
    output_dir: OutputDir = None,
) -> None:
    """Remove a version that is not being served.

    Example: python local_runner.py retire 1795413754 --reason "trained on the wrong span"
    """
    from registry.rollback import retire as retire_version

    retire_version(_versions(output_dir), version, reason)
    typer.echo(f"Version {version} is removed")


def show_models(settings: "Settings") -> None:
    """Prints a table of the versions, newest first, and what was done to them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from evaluation.metric_table import METRICS
    from pipeline.local.paths import OutputPaths
    from registry.history import read_history
    from registry.layout import list_versions, version_dir
    from registry.records import read_card, read_record

    console, base = Console(), OutputPaths.of(settings).versions
    versions = list_versions(base)
    if not versions:
        console.print(f"No version in {escape(str(base))}", soft_wrap=True)
        return
    titles = (METRICS[name].title for name in _METRICS)
    table = Table("version", "pushed", "span", *titles, "", box=None)
    for version in reversed(versions):
        folder = version_dir(base, version)
        record, card = read_record(folder), read_card(folder)
        metrics = ((card.metric(name), form) for name, form in _METRICS.items())
        table.add_row(
            str(version),
            f"{record.pushed_at:%Y-%m-%d %H:%M}" if record else "",
            "" if card.data.span is None else str(card.data.span),
            *("" if value is None else format(value, form) for value, form in metrics),
            escape(_remark(record, served=version == versions[-1])),
        )
    console.print(table)
    for event in read_history(base):
        console.print(f"[dim]{escape(_describe(event))}[/]", soft_wrap=True, highlight=False)


def _versions(output_dir: str | None) -> "Path":
    from pipeline.local.paths import OutputPaths

    return OutputPaths.of(resolve_options(output_dir=output_dir).settings).versions


def _remark(record: "PushRecord | None", *, served: bool) -> str:
    parts = ["served"] if served else []
    if record and record.copy_of is not None:
        parts.append(f"is {record.copy_of} again: {record.reason}")
    return ", ".join(parts)


def _describe(event: "Event") -> str:
    what = {
        "rollback": f"rolled back from {event.version} to {event.copy_of}",
        "retire": f"{event.version} retired",
        "damaged": f"{event.version} set aside",
        "restore": f"{event.version} restored as {event.made}",
    }
    return f"{event.at:%Y-%m-%d %H:%M} {what[event.event]}: {event.reason}"
