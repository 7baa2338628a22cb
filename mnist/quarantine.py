"""Spans that stopped a run, kept out of later ones until released or changed.

One JSON file, beside what is served, so that every runner reads and writes the same:

    {"3": {"fingerprint": "9f...", "reason": "...", "when": "2026-11-23T03:00:04+00:00",
           "run": "2026-11-23T03:00:00.118", "released": false}}

An entry holds for the files that it was made of: a span whose files change is examined again. A
released entry stays in the file, since a gate has to know what was let through.
"""

import datetime
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from pydantic import TypeAdapter, ValidationError

import storage
from errors import FileError, UserError

FILE_NAME = "quarantine.json"


class QuarantineError(UserError):
    """The record of quarantined spans cannot be used, or names no such span."""


@dataclass(frozen=True)
class Entry:
    """A span that was found unfit.

    Attributes:
        fingerprint: Of the span's files, as `content_fingerprint` gives it.
        reason: What was wrong, in words.
        when: ISO 8601 with offset.
        run: The run's id; "" where none had begun.
        released: Whether somebody has let the span through since.
    """

    fingerprint: str
    reason: str
    when: str
    run: str
    released: bool = False


def read_quarantine(address: str) -> dict[int, Entry]:
    """Reads the entries by span; none where there is no file.

    Args:
        address: Path or URI of the file.

    Raises:
        QuarantineError: The file cannot be read, or holds anything else.
    """
    try:
        return _ENTRIES.validate_json(storage.read(address) or b"{}")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        refused = FileError.of(error)
        raise QuarantineError(
            f"the list of quarantined spans cannot be read: {refused.what}", address, refused.fix
        ) from error
    except ValueError as error:
        raise QuarantineError(
            f"the list of quarantined spans is not what the pipeline wrote: {_reason(error)}",
            address,
            "repair it, or delete it to release every span",
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
        The span's entry.

    Raises:
        QuarantineError: The span is not quarantined.
    """
    entries = read_quarantine(address)
    if span not in entries or entries[span].released:
        held = ", ".join(str(s) for s, entry in sorted(entries.items()) if not entry.released)
        raise QuarantineError(
            f"span {span} is not quarantined; quarantined are: {held or 'none'}", address
        )
    entries[span] = replace(entries[span], released=True)
    _write(address, entries)
    return entries[span]


_ENTRIES = TypeAdapter(dict[int, Entry])


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")


def _write(address: str, entries: Mapping[int, Entry]) -> None:
    content = {str(span): asdict(entry) for span, entry in sorted(entries.items())}
    storage.write(address, (json.dumps(content, indent=2) + "\n").encode())
