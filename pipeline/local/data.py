"""The spans of a data folder on the terminal, and letting a quarantined one through."""

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mnist.completeness import SpanState, examine
from mnist.idx import IdxError, read_labels
from mnist.quarantine import Entry, QuarantineError, read_quarantine, release
from mnist.spans import find_test_files, list_spans
from pipeline.config import Resolved
from pipeline.local import history
from pipeline.local.places import Places, UsageError
from pipeline.local.run import find_data
from pipeline.local.window import quarantine_file

_RUNS, _WIDTH = 1000, 100
_COLORS = {"complete": "green", "incomplete": "yellow", "damaged": "red", "quarantined": "red"}


def show_data(resolved: Resolved) -> None:
    """Prints a table of the spans, newest first: counts, shares of digits, state, when used.

    Raises:
      DataSourceError, SpanError: when there is no data to show.
      UsageError: when the quarantine cannot be read.
    """
    # Where there is less room the terminal breaks the lines, and no column is.
    console, source = Console(width=max(Console().width, _WIDTH)), find_data(resolved)
    console.print(escape(source.description), soft_wrap=True, highlight=False)
    places = Places.of(resolved.settings)
    used, held = _used(places), _quarantine(places)
    spans = list_spans(source.directory)
    settle = 0.0 if spans == {1: source.directory} else resolved.settings.data.settle_seconds
    states = [
        examine(span, folder, settle_seconds=settle, held=held.get(span))
        for span, folder in reversed(spans.items())
    ]
    headings = ("span", "train", "eval", "% of 0 to 9", "fingerprint", "state", "last used")
    table = Table(*headings, box=None)
    for state in states:
        found = f"[{_COLORS[state.state]}]{state.state}[/]"
        table.add_row(str(state.span), *_counts(state), found, used.get(state.fingerprint, ""))
    console.print(table)
    for state in states:
        if state.why:
            line = f"span {state.span} is {state.state}: {state.why}"
            console.print(f"[red]✗[/] {escape(line)}", soft_wrap=True, highlight=False)
    test = find_test_files(source.directory)
    if test:
        console.print(f"Fixed test split: {_test_count(test[1])}", soft_wrap=True, highlight=False)


def release_span(resolved: Resolved, span: int) -> None:
    """Lets a quarantined span through and says what it was held for.

    Raises:
      UsageError: when it is not quarantined.
    """
    places = Places.of(resolved.settings)
    try:
        entry = release(quarantine_file(places), span)
    except (QuarantineError, OSError) as error:
        raise UsageError(str(error)) from error
    print(f"Released span {span}, held since {entry.when} for: {entry.reason}")


def quarantine_lines(places: Places) -> list[str]:
    """A line per span that is held, ascending.

    Raises:
      UsageError: when the quarantine cannot be read.
    """
    return [
        f"span {span} is quarantined since {entry.when}: {entry.reason}"
        for span, entry in sorted(_quarantine(places).items())
        if not entry.released
    ]


def _quarantine(places: Places) -> dict[int, Entry]:
    try:
        return read_quarantine(quarantine_file(places))
    except QuarantineError as error:
        raise UsageError(str(error)) from error


def _counts(state: SpanState) -> list[str]:
    """Train, eval, shares of digits and fingerprint, as far as the files can be read."""
    if state.files is None:
        return ["", "", "", ""]
    try:
        labels = read_labels(state.files.train_labels)
        held_out = state.files.eval_labels and f"{len(read_labels(state.files.eval_labels)):,}"
    except IdxError:
        return ["", "", "", state.fingerprint[:12]]
    shares = np.bincount(labels, minlength=10) / len(labels)
    text = " ".join(f"{share:.0%}".removesuffix("%") for share in shares)
    return [f"{len(labels):,}", held_out or "", text, state.fingerprint[:12]]


def _test_count(path: str) -> str:
    try:
        return f"{len(read_labels(path)):,} digits beside the span folders"
    except IdxError as error:
        return escape(str(error))


def _used(places: Places) -> dict[str, str]:
    """When each span was last used by a run, by its fingerprint."""
    if not places.database.exists():
        return {}
    return {
        fingerprint: f"{run.started:%Y-%m-%d %H:%M}"
        for run in reversed(history.read_runs(places.database, _RUNS))
        for fingerprint in run.data_content.split("+")
    }
