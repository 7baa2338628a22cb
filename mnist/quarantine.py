"""Spans that stopped a run, kept out of later ones until released or changed.

One JSON file, beside what is served, so that every runner reads and writes the same:

    {"3": {"fingerprint": "9f...", "reason": "...", "when": "2026-11-23T03:00:04+00:00",
           "run": "2026-11-23T03:00:00.118", "released": false}}

An entry holds for the files it was made of: a span whose files change is judged anew. A released
one stays in the file, since a gate has to know what was let through. Needs no TensorFlow for local
files.
"""

import datetime
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

FILE_NAME = "quarantine.json"


class QuarantineError(ValueError):
    """The record of quarantined spans cannot be used, or names no such span."""


@dataclass(frozen=True)
class Entry:
    """A span that was found unfit.

    Attributes:
      fingerprint: of its files, as `content_fingerprint` gives it.
      reason: what was wrong, in words.
      when: ISO 8601 with offset.
      run: the run's id; "" where none had begun.
      released: whether somebody has let it through since.
    """

    fingerprint: str
    reason: str
    when: str
    run: str
    released: bool = False


def read_quarantine(address: str) -> dict[int, Entry]:
    """The entries by span; empty where there is no file.

    Args:
      address: path or URI of the file.

    Raises:
      QuarantineError: when the file cannot be read.
    """
    try:
        text = _read(address)
        found = json.loads(text) if text else {}
        return {int(span): Entry(**entry) for span, entry in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise QuarantineError(
            f"{address!r} cannot be read ({error}). Expected what the pipeline wrote: repair it, "
            "or delete it to release every span."
        ) from error


def quarantine(address: str, faults: Mapping[int, tuple[str, str]], run: str) -> None:
    """Adds spans, each with its fingerprint and the reason; the file changes as a whole."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    added = {
        span: Entry(fingerprint, reason, now, run) for span, (fingerprint, reason) in faults.items()
    }
    _write(address, read_quarantine(address) | added)


def release(address: str, span: int) -> Entry:
    """Lets a span through, as long as its files stay what they are.

    Returns:
      Its entry.

    Raises:
      QuarantineError: when it is not quarantined.
    """
    entries = read_quarantine(address)
    if span not in entries or entries[span].released:
        held = ", ".join(str(s) for s, entry in sorted(entries.items()) if not entry.released)
        raise QuarantineError(f"span {span} is not quarantined; quarantined are: {held or 'none'}")
    entries[span] = replace(entries[span], released=True)
    _write(address, entries)
    return entries[span]


def _read(address: str) -> str:
    if "://" in address:
        from models import storage

        return storage.read(address).decode() if storage.exists(address) else ""
    try:
        return Path(address).read_text()
    except (FileNotFoundError, NotADirectoryError):  # the latter is for others to say
        return ""


def _write(address: str, entries: Mapping[int, Entry]) -> None:
    content = {str(span): asdict(entry) for span, entry in sorted(entries.items())}
    text = json.dumps(content, indent=2) + "\n"
    if "://" in address:
        from models import storage

        storage.write(address, text.encode())
        return
    path = Path(address)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
