"""Serving an older version of a local base again, and removing versions."""

import os

from registry.errors import RegistryError
from registry.history import Event, add_event, left_by_rollback, now
from registry.integrity import is_intact, model_of, read_files
from registry.layout import list_versions, version_dir
from registry.local import add_version, locked, remove_version

_Base = str | os.PathLike[str]


def roll_back(base: _Base, version: int | None, reason: str) -> Event:
    """Makes an older version the newest again, by pushing it under a new number.

    Args:
      base: the folder that a server watches.
      version: to be served; None for the newest one of another model that was not rolled back from.
      reason: why, in words.

    Returns:
      What was done: `made` is the new number, `copy_of` the version served again.

    Raises:
      RegistryError: there is no such version, it is the newest, or its files were altered.
    """
    _require_versions(base)
    with locked(base):
        newest = _require_versions(base)[-1]
        target = _version_before(base) if version is None else version
        _require(base, target)
        if target == newest:
            raise RegistryError(f"version {target} is the newest and is served already")
        folder = version_dir(base, target)
        if not is_intact(folder):
            raise RegistryError(
                "the files are not those that were pushed",
                str(folder),
                "choose another version: `local_runner.py models` lists them",
            )
        left, served = model_of(version_dir(base, newest)), model_of(folder)
        made = add_version(base, read_files(folder), served, copy_of=target, reason=reason)
        event = Event(
            event="rollback",
            at=now(),
            version=newest,
            reason=reason,
            made=made,
            copy_of=target,
            left_model=left,
            served_model=served,
        )
        add_event(base, event)
        return event


def retire(base: _Base, version: int, reason: str) -> None:
    """Removes a version that is not the newest.

    Args:
      base: the folder that a server watches.
      version: to be removed.
      reason: why, in words.

    Raises:
      RegistryError: there is no such version, or it is the newest.
    """
    _require(base, version)
    with locked(base):
        _require(base, version)
        if version == list_versions(base)[-1]:
            raise RegistryError(
                f"version {version} is the newest and is served",
                fix="roll back first (`local_runner.py rollback`), or push another",
            )
        add_event(base, Event(event="retire", at=now(), version=version, reason=reason))
        remove_version(base, version)


def _version_before(base: _Base) -> int:
    """The newest version of another model than the newest's that was not rolled back from."""
    *older, newest = list_versions(base)
    served = model_of(version_dir(base, newest))
    for version in reversed(older):
        folder = version_dir(base, version)
        model = model_of(folder)
        if model != served and left_by_rollback(base, model) is None and is_intact(folder):
            return version
    raise RegistryError(
        f"there is no version before {newest} to roll back to, other than those rolled back from"
        if older
        else f"version {newest} is the only one: there is none to roll back to",
        str(base),
    )


def _require_versions(base: _Base) -> list[int]:
    versions = list_versions(base)
    if not versions:
        raise RegistryError(
            "there is no version of a model",
            str(base),
            "push one with `local_runner.py run`, or name another folder with --output-dir",
        )
    return versions


def _require(base: _Base, version: int) -> None:
    versions = _require_versions(base)
    if version not in versions:
        known = ", ".join(map(str, versions))
        raise RegistryError(f"there is no version {version}; there are {known}", str(base))
