"""What was done to versions in a local base other than pushing them, `.history.jsonl`."""

import datetime
import os
import pwd
from typing import Literal

from pydantic import AwareDatetime

import storage
from registry.records import Document, parse

_HISTORY = ".history.jsonl"


class Event(Document):
    """A line of the history.

    Attributes:
      event: `rollback` and `retire` put a version out of service on purpose. `damaged` sets aside
        one whose files were altered, `restore` replaces one that was altered or deleted.
      at: when, in UTC.
      version: the version that was put out of service, altered or deleted.
      reason: why, in words.
      made: the version that was pushed in its place; None for none.
      copy_of: the version that `made` is a copy of.
      left_model: on a rollback, the fingerprint of the model put out of service.
      served_model: on a rollback, the fingerprint of the model served again.
    """

    event: Literal["rollback", "retire", "damaged", "restore"]
    at: AwareDatetime
    version: int
    reason: str
    made: int | None = None
    copy_of: int | None = None
    left_model: str | None = None
    served_model: str | None = None


def read_history(base: str | os.PathLike[str]) -> list[Event]:
    """The events of a base, oldest first; a line that is no event is left out."""
    content = storage.read_if_there(os.path.join(base, _HISTORY)) or b""
    events = (parse(Event, line) for line in content.splitlines())
    return [event for event in events if event is not None]


def add_event(base: str | os.PathLike[str], event: Event) -> Event:
    """Adds an event and returns it; to be called by whoever holds the lock of the base."""
    path = os.path.join(base, _HISTORY)
    content = storage.read_if_there(path) or b""
    if content and not content.endswith(b"\n"):
        content += b"\n"  # ends the line that a full disk cut off
    line = event.model_dump_json(exclude_none=True)
    storage.write(path, content + line.encode() + b"\n")
    return event


def left_by_rollback(base: str | os.PathLike[str], model: str) -> Event | None:
    """The rollback that put a model out of service; None where a later one serves it again."""
    for event in reversed(read_history(base)):
        if event.served_model == model:
            return None
        if event.left_model == model:
            return event
    return None


def now() -> datetime.datetime:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def user() -> str:
    """The name of the user of this process; its number where it has no name, as in a container."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
