"""The spans of a data folder on the terminal."""

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.mnist_example_gen.idx import IdxError, read_pair
from components.mnist_example_gen.spans import (
    SpanError,
    SpanFiles,
    content_fingerprint,
    list_spans,
    resolve_span,
)
from pipeline.config import Resolved
from pipeline.local import history
from pipeline.local.places import Places
from pipeline.local.run import find_data

_RUNS = 1000


def show_data(resolved: Resolved) -> None:
    """Prints a table of the spans, newest first: counts, shares of digits, state, when used.

    Raises:
      DataSourceError, SpanError: when there is no data to show.
    """
    console, source = Console(), find_data(resolved)
    console.print(escape(source.description), soft_wrap=True, highlight=False)
    used = _used(Places.of(resolved.settings))
    table = Table("span", "train", "eval", "rarest digit", "fingerprint", "last used", box=None)
    wrong: list[str] = []
    for span in reversed(list_spans(source.directory)):
        try:
            table.add_row(str(span), *_row(resolve_span(source.directory, span), used))
        except (SpanError, IdxError) as error:
            table.add_row(str(span), "[red]not usable[/]")
            wrong.append(f"span {span}: {error}")
    console.print(table)
    for line in wrong:
        console.print(f"[red]✗[/] {escape(line)}", soft_wrap=True, highlight=False)


def _row(files: SpanFiles, used: dict[str, str]) -> list[str]:
    _, labels = read_pair(files.train_images, files.train_labels)
    held = ""
    if files.eval_images and files.eval_labels:
        held = f"{len(read_pair(files.eval_images, files.eval_labels)[1]):,}"
    counts = np.bincount(labels, minlength=10)
    digit, fingerprint = int(counts.argmin()), content_fingerprint(files)
    rarest = f"{digit}: {counts[digit] / max(len(labels), 1):.1%}"
    return [f"{len(labels):,}", held, rarest, fingerprint[:12], used.get(fingerprint, "")]


def _used(places: Places) -> dict[str, str]:
    """When each data was last used by a run, by its fingerprint."""
    if not places.database.exists():
        return {}
    runs = history.read_runs(places.database, _RUNS)
    return {run.data_content: f"{run.started:%Y-%m-%d %H:%M}" for run in reversed(runs)}
