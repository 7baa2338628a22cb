"""The spans of a data folder on the terminal, and letting a quarantined one through."""

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mnist.completeness import SpanState, examine
from mnist.digits import forget_digits, read_digits
from mnist.idx import IdxError, read_labels
from mnist.quarantine import Entry, QuarantineError, read_quarantine, release
from mnist.spans import SpanError, find_test_files, open_folder
from pipeline.local import history
from pipeline.local.paths import Places, UsageError
from pipeline.local.window import find_data, quarantine_file
from pipeline.settings.resolution import Resolved

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
    folder = open_folder(source.directory)
    settle = 0.0 if folder.is_flat else resolved.settings.data.settle_seconds
    headings = ("span", "train", "eval", "% of 0 to 9", "fingerprint", "state", "last used")
    table = Table(*headings, box=None)
    lines = []
    for span, directory in reversed(folder.spans.items()):
        state = examine(span, directory, settle_seconds=settle, held=held.get(span))
        found = f"[{_COLORS[state.state]}]{state.state}[/]"
        table.add_row(str(span), *_counts(state), found, used.get(state.fingerprint, ""))
        if state.why:
            lines.append(f"span {span} is {state.state}: {state.why}")
    console.print(table)
    for line in filter(None, [*lines, folder.notice()]):
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
        train, *held_out = read_digits(state.files.paths, state.fingerprint)
    except (IdxError, SpanError):
        return ["", "", "", state.fingerprint[:12]]
    finally:
        forget_digits()
    shares = np.bincount(train.labels, minlength=10) / len(train)
    text = " ".join(f"{share:.0%}".removesuffix("%") for share in shares)
    return [
        f"{len(train):,}",
        f"{len(held_out[0]):,}" if held_out else "",
        text,
        state.fingerprint[:12],
    ]


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
