"""The versions of the generator that are served, on the terminal."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.pusher.versions import list_versions, read_history, read_record, retire, roll_back
from evaluation.metric_table import METRICS
from pipeline.config import Settings
from pipeline.local.places import Places

_CARD = Path("assets.extra") / "model_card.json"
_SHOWN = {"fid": ".3f", "conditional_accuracy": ".1%"}


def serving_dir(settings: Settings) -> str:
    """The folder that TensorFlow Serving watches."""
    places = Places.of(settings)
    return str(places.serving / settings.push.model_name)


def show_models(settings: Settings) -> None:
    """Prints a table of the versions, newest first, and what was done to them."""
    console, base = Console(), serving_dir(settings)
    versions = list_versions(base)
    if not versions:
        console.print(f"No version in {escape(base)}", soft_wrap=True)
        return
    titles = (METRICS[name].title for name in _SHOWN)
    table = Table("version", "pushed", "span", *titles, "", box=None)
    for version in reversed(versions):
        record, card = read_record(base, version), read_card(base, version)
        table.add_row(
            str(version),
            record.get("pushed_at", "")[:16].replace("T", " "),
            _text(card.get("data", {}).get("span")),
            *(_metric(card, name, form) for name, form in _SHOWN.items()),
            _remark(record, served=version == versions[-1]),
        )
    console.print(table)
    for event in read_history(base):
        console.print(f"[dim]{escape(_event(event))}[/]", soft_wrap=True, highlight=False)


def roll_back_to(settings: Settings, version: int | None, reason: str) -> None:
    """Makes an older version the newest again; see `versions.roll_back` for what it raises."""
    base = serving_dir(settings)
    made = roll_back(base, version, reason)
    target = read_record(base, made)["rolled_back_to"]
    Console().print(f"[bold green]Version {target} is served again[/], as {made}", highlight=False)


def retire_version(settings: Settings, version: int, reason: str) -> None:
    """Removes a version; see `versions.retire` for what it raises."""
    retire(serving_dir(settings), version, reason)
    Console().print(f"Version {version} is removed", highlight=False)


def read_card(base: str, version: int) -> dict[str, Any]:
    """The card that was pushed with a version; {} where there is none that can be read."""
    try:
        return json.loads(Path(base, str(version), _CARD).read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _metric(card: dict[str, Any], name: str, form: str) -> str:
    value = card.get("metrics", {}).get(name, {}).get("value")
    return "" if value is None else format(value, form)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _remark(record: dict[str, Any], *, served: bool) -> str:
    parts = ["[green]served[/]"] if served else []
    if "rolled_back_to" in record:
        parts.append(f"is {record['rolled_back_to']} again: {escape(record['reason'])}")
    return ", ".join(parts)


def _event(event: dict[str, Any]) -> str:
    at = event["at"][:16].replace("T", " ")
    if event["event"] == "rollback":
        what = f"rolled back from {event['rolled_back_from']} to {event['rolled_back_to']}"
    else:
        done = {"retire": "retired", "damaged": "set aside", "restore": "restored"}[event["event"]]
        what = f"{event['version']} {done}"
    return f"{at} {what}: {event['reason']}"
