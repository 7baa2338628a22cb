"""`local_runner.py data` and `release`: the spans of a data folder."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import DataDir, OutputDir, resolve_options

if TYPE_CHECKING:
    from mnist.completeness import SpanState
    from pipeline.local.paths import OutputPaths

_RUNS, _WIDTH = 1000, 100
_COLORS = {"complete": "green", "incomplete": "yellow", "damaged": "red", "quarantined": "red"}


def data(data_dir: DataDir = None, output_dir: OutputDir = None) -> None:
    """Show the spans of the data: counts, digits, state, last use.

    Example: python local_runner.py data --data-dir /data/mnist
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from mnist.completeness import examine
    from mnist.quarantine import read_quarantine
    from mnist.spans import find_test_files, open_folder
    from pipeline.local.paths import OutputPaths
    from pipeline.local.window import find_data, quarantine_file

    resolved = resolve_options(output_dir=output_dir, data_dir=data_dir)
    # Where there is less room the terminal breaks the lines, and no column is.
    console, source = Console(width=max(Console().width, _WIDTH)), find_data(resolved)
    console.print(escape(source.description), soft_wrap=True, highlight=False)
    paths = OutputPaths.of(resolved.settings)
    used, held = _used(paths), read_quarantine(quarantine_file(paths))
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
        text = f"Fixed test split: {escape(_test_count(test[1]))}"
        console.print(text, soft_wrap=True, highlight=False)


def release(
    span: Annotated[int, typer.Argument(min=0)],
    output_dir: OutputDir = None,
) -> None:
    """Let later runs train on a quarantined span after all.

    This holds as long as the span's files stay as they are.

    Example: python local_runner.py release 12
    """
    from mnist.quarantine import release as release_span
    from pipeline.local.paths import OutputPaths
    from pipeline.local.window import quarantine_file

    paths = OutputPaths.of(resolve_options(output_dir=output_dir).settings)
    entry = release_span(quarantine_file(paths), span)
    typer.echo(f"Released span {span}, held since {entry.when} for: {entry.reason}")


def _counts(state: "SpanState") -> list[str]:
    """Train, eval, shares of digits and fingerprint, as far as the files can be read."""
    import numpy as np

    from errors import UserError
    from mnist.digits import forget_scans, scan

    if state.files is None:
        return ["", "", "", ""]
    try:
        train, *held_out = scan(state.files.paths, state.fingerprint)
    except UserError:
        return ["", "", "", state.fingerprint[:12]]
    finally:
        forget_scans()
    shares = np.bincount(train.labels, minlength=10) / len(train)
    text = " ".join(f"{share:.0%}".removesuffix("%") for share in shares)
    return [
        f"{len(train):,}",
        f"{len(held_out[0]):,}" if held_out else "",
        text,
        state.fingerprint[:12],
    ]


def _test_count(path: str) -> str:
    from mnist.idx import IdxError, read_labels

    try:
        return f"{len(read_labels(path)):,} digits beside the span folders"
    except IdxError as error:
        return str(error)


def _used(paths: "OutputPaths") -> dict[str, str]:
    """When each span was last used by a run, by its fingerprint."""
    from pipeline.local import history

    if not paths.database.exists():
        return {}
    return {
        fingerprint: f"{run.started:%Y-%m-%d %H:%M}"
        for run in reversed(history.read_runs(paths.database, _RUNS))
        for fingerprint in run.data_content.split("+")
    }
