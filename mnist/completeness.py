"""Whether a span may be used: complete, not yet, or damaged.

A span folder counts as complete when it holds `_SUCCESS`, or when the file system has seen no
change of its files and of the folder for `settle_seconds`; and, either way, when all of its files
are there and can be read from beginning to end. Files that lie in the data folder itself need not
settle.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import storage
from errors import FileError, UserError
from mnist import files
from mnist.digits import keep_scan
from mnist.idx import IdxError
from mnist.quarantine import Entry
from mnist.spans import (
    MARKER,
    SpanError,
    SpanFiles,
    content_fingerprint,
    find_files,
    has_marker,
)

State = Literal["complete", "incomplete", "damaged", "quarantined"]


@dataclass(frozen=True)
class SpanState:
    """What was found of a span.

    Attributes:
        span: Its number.
        state: `incomplete` may become complete by itself; `damaged` files are settled but cannot be
            read; `quarantined` ones stopped a run.
        error: Why the span is not complete; None where it is.
        files: The span's files; None where some are missing.
        fingerprint: Of the files; "" where they are not settled.
    """

    span: int
    state: State
    error: UserError | None = None
    files: SpanFiles | None = None
    fingerprint: str = ""

    @property
    def why(self) -> str:
        """The error in one line; "" where there is none."""
        return str(self.error or "")


def examine(
    span: int,
    directory: str,
    *,
    settle_seconds: float,
    held: Entry | None = None,
    known: Collection[str] = (),
) -> SpanState:
    """Looks at one span.

    Files that have settled are hashed. If their fingerprint is neither quarantined nor known, they
    are scanned, too, and the scan is kept in memory: see `mnist.digits`.

    Args:
        span: Its number.
        directory: Its folder or URI.
        settle_seconds: How long its files have to lie unchanged where there is no `_SUCCESS`.
        held: What the quarantine holds of that number, which counts only for the same files.
        known: Fingerprints of spans that an earlier run ingested, which can be read therefore.
    """
    try:
        span_files = find_files(span, directory)
        waiting = 0.0 if has_marker(directory) else _still_settling(span_files, settle_seconds)
    except SpanError as error:
        return SpanState(span, "incomplete", error)
    except OSError as error:
        return SpanState(span, "incomplete", FileError.of(error))
    if waiting > 0:
        settling = SpanError(
            f"the files changed less than {settle_seconds:g} s ago",
            directory,
            f"wait {waiting:.0f} s, or make the file {MARKER} there, if the files are complete",
        )
        return SpanState(span, "incomplete", settling, span_files)
    try:
        fingerprint = content_fingerprint(span_files)
    except IdxError as error:
        return SpanState(span, "incomplete", error, span_files)
    if held and not held.released and held.fingerprint == fingerprint:
        reason = SpanError(
            f"span {span} is quarantined since {held.when}: {held.reason}",
            directory,
            f"`python local_runner.py release {span}` lets it through",
        )
        return SpanState(span, "quarantined", reason, span_files, fingerprint)
    try:
        if fingerprint not in known:
            keep_scan(span_files.paths, fingerprint)
    except SpanError as error:
        return SpanState(span, "incomplete", error, span_files)
    except IdxError as error:
        return SpanState(span, "damaged", error, span_files, fingerprint)
    return SpanState(span, "complete", None, span_files, fingerprint)


def _still_settling(span_files: SpanFiles, settle_seconds: float) -> float:
    """Seconds until the files count as settled.

    What a writer says of a file's age does not suffice: `cp -a`, `rsync -a` and `unzip` give a copy
    the time of the original. So the time at which the file system saw a change counts as well, and
    the time of the folder, in which files may still appear. A time that lies further ahead than
    `settle_seconds` says that a clock was set back, and not that somebody is writing.
    """
    now = time.time()
    paths = [*span_files.paths]
    if storage.is_local(span_files.directory):
        paths.append(span_files.directory)
    ages = [now - changed for path in paths for changed in files.times_of_change(path)]
    waiting = [settle_seconds - age for age in ages if abs(age) < settle_seconds]
    return max(waiting, default=0.0)
