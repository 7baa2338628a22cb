"""Whether a span may be used: complete, not yet, or damaged.

A span folder counts as complete when it holds `_SUCCESS`, or when its files were last written
`settle_seconds` ago or more; and, either way, when all of them are there and can be read from
beginning to end. Files that lie in the data folder itself need not settle.
"""

import time
from dataclasses import dataclass
from typing import Literal

from mnist.idx import IdxError, last_written, read_pair
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
      span: its number.
      state: `incomplete` may become complete by itself; `damaged` files are settled but cannot be
        read; `quarantined` ones stopped a run.
      why: why it is not complete, in words; "" where it is.
      files: None where some are missing.
      fingerprint: of the files; "" where they are not settled.
    """

    span: int
    state: State
    why: str = ""
    files: SpanFiles | None = None
    fingerprint: str = ""


def examine(
    span: int, directory: str, *, settle_seconds: float, held: Entry | None = None
) -> SpanState:
    """Looks at one span; reads its files unless they are too young.

    Args:
      span: its number.
      directory: its folder or URI.
      settle_seconds: how long its files have to lie unchanged where there is no `_SUCCESS`.
      held: what the quarantine holds of that number, which counts only for the same files.
    """
    try:
        files = find_files(span, directory)
        waiting = 0.0 if has_marker(directory) else _still_settling(files, settle_seconds)
    except (SpanError, IdxError) as error:
        return SpanState(span, "incomplete", str(error))
    if waiting > 0:
        why = (
            f"its files were written less than {settle_seconds:g} s ago; it counts in "
            f"{waiting:.0f} s, or as soon as {directory} holds {MARKER}"
        )
        return SpanState(span, "incomplete", why, files)
    try:
        fingerprint = content_fingerprint(files)
        if held and not held.released and held.fingerprint == fingerprint:
            why = f"{held.reason} (quarantined {held.when})"
            return SpanState(span, "quarantined", why, files, fingerprint)
    except IdxError as error:
        return SpanState(span, "incomplete", str(error), files)
    try:
        read_files(files)
    except IdxError as error:
        return SpanState(span, "damaged", str(error), files, fingerprint)
    return SpanState(span, "complete", "", files, fingerprint)


def read_files(files: SpanFiles) -> None:
    """Raises IdxError when a file of a span cannot be used."""
    read_pair(files.train_images, files.train_labels)
    if files.eval_images and files.eval_labels:
        read_pair(files.eval_images, files.eval_labels)


def _still_settling(files: SpanFiles, settle_seconds: float) -> float:
    """Seconds until the files count as settled.

    A time that lies further ahead than `settle_seconds` says that a clock was set back, and not
    that somebody is writing.
    """
    newest = max(map(last_written, files.paths))
    age = time.time() - newest
    return settle_seconds - age if abs(age) < settle_seconds else 0.0
