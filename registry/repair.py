"""Replacing the served version of a local base where it was altered or deleted."""

import os
from pathlib import Path
from typing import NamedTuple

from registry.history import Event, add_event, left_by_rollback, now
from registry.integrity import can_restore, find_damaged, intact_versions, model_of, read_files
from registry.layout import version_dir
from registry.local import add_version, locked, set_aside
from registry.records import read_record

_Base = str | os.PathLike[str]


class LostVersion(NamedTuple):
    """A version that should be served and was altered or deleted.

    Attributes:
      version: its number.
      copy: a folder with a copy of the version, as `copy_version` writes it; it need not exist.
    """

    version: int
    copy: Path


def repair(base: _Base, lost: LostVersion | None = None) -> list[Event]:
    """Replaces the newest version where its files are not those that were pushed, or are gone.

    A replacement is in place before a damaged version is set aside as `.damaged-<version>`. The
    replacement is the copy of the lost version; else another version with the same model; else the
    newest intact version that was not rolled back from. Where there is none, nothing changes.

    Args:
      base: the folder that a server watches.
      lost: the version that should be served; None where none was lost, or it is not known.

    Returns:
      What was done; empty where nothing was damaged or nothing can replace it.

    Raises:
      RegistryError: the base is locked.
    """
    has_copy = lost is not None and can_restore(lost.copy)
    if not has_copy and not find_damaged(base):
        return []
    with locked(base):
        damaged, events = find_damaged(base), []
        if lost and has_copy:
            events.append(_restore(base, lost.copy, lost.version))
        elif damaged:
            intact = list(intact_versions(base))
            replacement = _replacement(base, damaged[0], intact)
            if replacement is None:
                return []
            # The newest intact version is served once those above it are set aside.
            if replacement != intact[0]:
                events.append(_restore(base, version_dir(base, replacement), damaged[0]))
        for version in damaged:
            reason = f"altered since its push; now {set_aside(base, version).name}"
            event = Event(event="damaged", at=now(), version=version, reason=reason)
            events.append(add_event(base, event))
        return events


def _restore(base: _Base, source: str | os.PathLike[str], lost: int) -> Event:
    reason = f"version {lost} was altered or deleted"
    made = add_version(base, read_files(source), model_of(source), copy_of=lost, reason=reason)
    return add_event(base, Event(event="restore", at=now(), version=lost, reason=reason, made=made))


def _replacement(base: _Base, damaged: int, intact: list[int]) -> int | None:
    """The intact version to serve in place of a damaged one; None where there is none."""
    record = read_record(version_dir(base, damaged))
    models = {version: model_of(version_dir(base, version)) for version in intact}
    same = [v for v in intact if record and models[v] == record.model_fingerprint]
    others = [v for v in intact if left_by_rollback(base, models[v]) is None]
    return next(iter([*same, *others]), None)
