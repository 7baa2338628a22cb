"""Versions of a model in an object store, where there is no rename and no lock."""

import json
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import storage
from components.pusher.versions import (
    RECORD,
    PushError,
    fingerprint_of,
    model_files,
    new_record,
)

_CLAIMS = ".claims"
_LAST = "saved_model.pb"
_ABANDONED_SECONDS = 3600.0
_TRIES = 100


def is_object_store(address: str) -> bool:
    """Whether an address is a URI, such as `gs://bucket/models`, and no local path."""
    return "://" in address and not address.startswith("file://")


def list_versions(base: str) -> list[int]:
    """The whole versions, ascending: those that hold a `saved_model.pb`."""
    return [version for version in _numbers(base) if _is_whole(base, version)]


def push_objects(model_dir: str, base: str, extra_files: Mapping[str, bytes]) -> int:
    """Uploads a model as the newest version, unless it is that; `saved_model.pb` goes last.

    A number is claimed by a file of its own; where another push claimed it too, both go on to
    another number, so no two pushes ever write to the same place. What pushes that were killed an
    hour ago or more have left is removed.

    Args:
      model_dir: a local SavedModel.
      base: URI of the place that TensorFlow Serving watches.
      extra_files: content by path relative to the version, added to the model's own files.

    Returns:
      The version: seconds since 1970, or a later number where that is taken.

    Raises:
      PushError: when what was uploaded differs from the model, or no number could be claimed.
    """
    _remove_abandoned(base)
    fingerprint = fingerprint_of(model_dir)
    newest = max(list_versions(base), default=None)
    if newest is not None and _fingerprint(base, newest) == fingerprint:
        return newest
    version = _claim(base)
    target = os.path.join(base, str(version))
    contents = {path: Path(model_dir, path).read_bytes() for path in model_files(model_dir)}
    contents |= {**extra_files, RECORD: new_record(version, fingerprint, {})}
    last = contents.pop(_LAST)
    for path, content in [*contents.items(), (_LAST, last)]:
        place = os.path.join(target, path)
        storage.write(place, content)
        if storage.read(place) != content:
            raise PushError(f"{place} differs from what was uploaded")
    return version


def _claim(base: str) -> int:
    """Finds a number that nobody else writes to.

    Who sees another's claim beside its own withdraws. Of two pushes, the one that looks last has
    the other's claim in sight, so they never both stay.
    """
    version = max([int(time.time()), *(number + 1 for number in _numbers(base))])
    for _ in range(_TRIES):
        folder = os.path.join(base, _CLAIMS, str(version))
        claim = os.path.join(folder, uuid.uuid4().hex)
        storage.write(claim, str(time.time()).encode())
        if len(storage.names_in(folder)) == 1:
            return version
        storage.remove(claim)
        version += 1 + uuid.uuid4().int % 10
    raise PushError(f"no version in {base} could be claimed in {_TRIES} tries")


def _remove_abandoned(base: str) -> None:
    for version in _numbers(base):
        claims = os.path.join(base, _CLAIMS, str(version))
        if _is_whole(base, version):
            continue
        ages = [
            time.time() - float(storage.read(os.path.join(claims, name)) or 0)
            for name in storage.names_in(claims)
        ]
        if min(ages, default=0.0) > _ABANDONED_SECONDS:
            storage.remove(os.path.join(base, str(version)))


def _numbers(base: str) -> list[int]:
    return sorted(int(name) for name in storage.names_in(base) if name.isdecimal())


def _is_whole(base: str, version: int) -> bool:
    return storage.exists(os.path.join(base, str(version), _LAST))


def _fingerprint(base: str, version: int) -> str | None:
    path = os.path.join(base, str(version), RECORD)
    return json.loads(storage.read(path))["model_fingerprint"] if storage.exists(path) else None
