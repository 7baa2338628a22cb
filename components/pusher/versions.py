"""Versions of a model in a local folder that TensorFlow Serving watches.

TensorFlow Serving sees folders whose names are numbers and serves the highest. So a version is made
under a name that is no number, and renamed: it appears whole or not at all. Needs no TensorFlow.
"""

import datetime
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

RECORD = os.path.join("assets.extra", "push.json")
_HISTORY = ".history.jsonl"
_LOCK = ".push.lock"
_STAGING, _REMOVED, _DAMAGED = ".incoming-", ".removed-", ".damaged-"
_FILES = "files_fingerprint"
FEWEST_KEPT = 2


class PushError(RuntimeError):
    """A version could not be made, or not be removed."""


class RolledBackError(PushError):
    """The model was rolled back from, so it is not made the newest again unasked."""


def list_versions(base_directory: str) -> list[int]:
    """The versions that TensorFlow Serving would see, ascending."""
    if not os.path.isdir(base_directory):
        return []
    return sorted(int(name) for name in os.listdir(base_directory) if name.isdecimal())


def read_record(base_directory: str, version: int | str) -> dict[str, Any]:
    """What was written down when a version was pushed; {} where nothing was, or cannot be read."""
    try:
        return json.loads(Path(base_directory, str(version), RECORD).read_text())
    except (FileNotFoundError, ValueError):
        return {}


def read_history(base_directory: str) -> list[dict[str, Any]]:
    """What happened to versions, oldest first: `event`, `at`, `reason`, ...

    Events are rollback, retire, damaged and restore. A line that a full disk cut off is left out.
    """
    try:
        lines = Path(base_directory, _HISTORY).read_text().splitlines()
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        with suppress(ValueError):
            events.append(json.loads(line))
    return events


def push_files(
    model_dir: str,
    base_directory: str,
    *,
    extra_files: Mapping[str, bytes] | None = None,
    keep_versions: int | None = None,
) -> int:
    """Makes a model the newest version, unless it is that already.

    Args:
      model_dir: a SavedModel.
      base_directory: the folder that TensorFlow Serving watches; created when missing.
      extra_files: content by path relative to the version, added to the model's own files.
      keep_versions: remove the oldest beyond so many, 2 or more; None: keep all.

    Returns:
      The version: seconds since 1970, or one more than the newest version if that is later.

    Raises:
      PushError: when the copy differs from the model.
      RolledBackError: when the model was rolled back from and is still not served.
    """
    os.makedirs(base_directory, exist_ok=True)
    with _locked(base_directory):
        fingerprint = fingerprint_of(model_dir)
        newest = max(list_versions(base_directory), default=0)
        if newest and read_record(base_directory, newest).get("model_fingerprint") == fingerprint:
            return newest
        _refuse_rolled_back(base_directory, fingerprint)
        version = _add(model_dir, base_directory, {}, fingerprint, extra_files or {})
        if keep_versions is not None:
            for old in list_versions(base_directory)[: -max(keep_versions, FEWEST_KEPT)]:
                _remove(base_directory, old)
        return version


def roll_back(base_directory: str, version: int | None, reason: str) -> int:
    """Makes an older version the newest again, by pushing it again.

    Args:
      base_directory: the folder that TensorFlow Serving watches.
      version: which; None: the newest one of another model that was not rolled back from.
      reason: written down.

    Returns:
      The number under which it is now served.

    Raises:
      PushError: when there is no such version, or it is the newest.
    """
    _require_versions(base_directory)
    with _locked(base_directory):
        newest = _require_versions(base_directory)[-1]
        target = _version_before(base_directory) if version is None else version
        _require(base_directory, target)
        if target == newest:
            raise PushError(f"version {target} is the newest and is served already")
        if not is_intact(base_directory, target):
            raise PushError(f"the files of version {target} are not those that were pushed")
        source = os.path.join(base_directory, str(target))
        about = {"rolled_back_to": target, "rolled_back_from": newest, "reason": reason}
        left, taken = (_model_of(base_directory, number) for number in (newest, target))
        made = _add(source, base_directory, about, taken, {})
        _note(
            base_directory,
            {"event": "rollback", "version": made, **about, "left": left, "taken": taken},
        )
        return made


def retire(base_directory: str, version: int, reason: str) -> None:
    """Removes a version that is not the newest.

    Raises:
      PushError: when there is no such version, or it is the newest.
    """
    _require(base_directory, version)
    with _locked(base_directory):
        _require(base_directory, version)
        if version == list_versions(base_directory)[-1]:
            raise PushError(
                f"version {version} is the newest and is served. Roll back first "
                "(`local_runner.py rollback`), or push another."
            )
        _note(base_directory, {"event": "retire", "version": version, "reason": reason})
        _remove(base_directory, version)


def is_intact(base_directory: str, version: int | str) -> bool:
    """Whether a version's files are those that were pushed.

    Of a version without a readable record that is not known; it needs its `saved_model.pb`.
    """
    folder = os.path.join(base_directory, str(version))
    recorded = read_record(base_directory, version).get(_FILES)
    if recorded is None:
        return os.path.isfile(os.path.join(folder, "saved_model.pb"))
    return fingerprint_of(folder) == recorded


def set_aside_damaged(base_directory: str) -> list[int]:
    """Takes versions that were altered since their push out of service, the newest ones first.

    The newest intact version is then served; where another version holds the model of one that is
    damaged, as after a rollback, that is pushed again. The last one set aside stays as
    `.damaged-<version>`.

    Returns:
      Those that were set aside.
    """
    aside: list[int] = []
    if _damaged_newest(base_directory) is None:
        return aside
    with _locked(base_directory):
        while (version := _damaged_newest(base_directory)) is not None:
            aside.append(version)
            _set_aside(base_directory, version)
    return aside


def can_restore(copy: str) -> bool:
    """Whether a folder holds a version whole, with its record."""
    folder, name = os.path.split(copy)
    return _FILES in read_record(folder, name) and is_intact(folder, name)


def restore(copy: str, base_directory: str, lost: int) -> int:
    """Pushes the copy of a version that is there no more; returns its new number."""
    os.makedirs(base_directory, exist_ok=True)
    with _locked(base_directory):
        model = read_record(*os.path.split(copy))["model_fingerprint"]
        made = _add(copy, base_directory, {"restored": lost}, model, {})
        event = {"event": "restore", "version": lost, "made": made, "reason": "it was gone"}
        _note(base_directory, event)
        return made


def fingerprint_of(directory: str) -> str:
    """SHA-256 over the relative path, the length and the bytes of every file, hexadecimal.

    A record of an earlier push is left out, so that a version has its model's fingerprint.
    """
    digest = hashlib.sha256()
    for path in model_files(directory):
        content = Path(directory, path).read_bytes()
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def leftovers(base_directory: str) -> list[str]:
    """What a push that was killed left; the next push removes it too."""
    if not os.path.isdir(base_directory):
        return []
    names = sorted(os.listdir(base_directory))
    return [os.path.join(base_directory, n) for n in names if n.startswith((_STAGING, _REMOVED))]


def remove_leftovers(base_directory: str) -> None:
    """Removes what `leftovers` lists, once no push is in progress."""
    with _locked(base_directory):
        pass


@contextmanager
def _locked(base_directory: str) -> Iterator[None]:
    """One push at a time; removes what a killed one left. The lock dies with its holder."""
    with filelock.FileLock(os.path.join(base_directory, _LOCK)):
        for name in os.listdir(base_directory):
            if name.startswith((_STAGING, _REMOVED)):
                shutil.rmtree(os.path.join(base_directory, name))
        yield


def _model_of(base_directory: str, version: int) -> str:
    """The fingerprint of a version's model."""
    recorded = read_record(base_directory, version).get("model_fingerprint")
    return recorded or fingerprint_of(os.path.join(base_directory, str(version)))


def _version_before(base_directory: str) -> int:
    """The newest version of another model than the newest's, one not rolled back from."""
    *older, newest = list_versions(base_directory)
    served = _model_of(base_directory, newest)
    for version in reversed(older):
        model = _model_of(base_directory, version)
        left = _left_by_rollback(base_directory, model) is not None
        if model != served and not left and is_intact(base_directory, version):
            return version
    raise PushError(
        f"there is no version before {newest} to roll back to, other than those rolled back from"
        if older
        else f"{newest} is the only version: there is none to roll back to"
    )


def _left_by_rollback(base_directory: str, fingerprint: str) -> dict[str, Any] | None:
    """The rollback that put a model out of service, if none has brought it back since."""
    for event in reversed(read_history(base_directory)):
        if event.get("taken") == fingerprint:
            return None
        if event.get("left") == fingerprint:
            return event
    return None


def _refuse_rolled_back(base_directory: str, fingerprint: str) -> None:
    event = _left_by_rollback(base_directory, fingerprint)
    if event is not None:
        raise RolledBackError(
            f"this model was version {event['rolled_back_from']}, which was rolled back from "
            f"on {event['at']}: {event['reason']}. Train another, or make it the newest with "
            f"`local_runner.py rollback {event['rolled_back_from']}`."
        )


def _add(
    source: str,
    base_directory: str,
    about: Mapping[str, Any],
    fingerprint: str,
    extra_files: Mapping[str, bytes],
) -> int:
    """Copies, verifies and renames; see `push_files`."""
    version = max(int(time.time()), max(list_versions(base_directory), default=0) + 1)
    staging = tempfile.mkdtemp(prefix=_STAGING, dir=base_directory)
    try:
        os.chmod(staging, 0o755)
        for path in model_files(source):
            _copy(Path(source, path), Path(staging, path))
        for path, content in extra_files.items():
            _write(Path(staging, path), content)
        about = {**about, _FILES: fingerprint_of(staging)}
        _write(Path(staging, RECORD), new_record(version, fingerprint, about))
        for folder, _, _ in os.walk(staging):
            _sync(folder)
        os.rename(staging, os.path.join(base_directory, str(version)))
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _sync(base_directory)
    return version


def _copy(source: Path, target: Path) -> None:
    content = source.read_bytes()
    _write(target, content)
    if target.read_bytes() != content or target.stat().st_size != source.stat().st_size:
        raise PushError(f"the copy of {source} in {target} differs from it; is the disk sound?")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: str) -> None:
    """Makes the names in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged_newest(base_directory: str) -> int | None:
    newest = max(list_versions(base_directory), default=None)
    return None if newest is None or is_intact(base_directory, newest) else newest


def _set_aside(base_directory: str, version: int) -> None:
    """Hides a damaged version, and pushes its model again from another version that holds it."""
    model = read_record(base_directory, version).get("model_fingerprint")
    for name in os.listdir(base_directory):
        if name.startswith(_DAMAGED):
            shutil.rmtree(os.path.join(base_directory, name))
    reason = "its files are not those that were pushed"
    _note(base_directory, {"event": "damaged", "version": version, "reason": reason})
    target = os.path.join(base_directory, f"{_DAMAGED}{version}")
    os.rename(os.path.join(base_directory, str(version)), target)
    for other in reversed(list_versions(base_directory)):
        record = read_record(base_directory, other)
        if model and record.get("model_fingerprint") == model and is_intact(base_directory, other):
            about = {"rolled_back_to": other, "reason": f"version {version} was damaged"}
            _add(os.path.join(base_directory, str(other)), base_directory, about, model, {})
            return


def _remove(base_directory: str, version: int) -> None:
    removed = os.path.join(base_directory, f"{_REMOVED}{version}")
    os.rename(os.path.join(base_directory, str(version)), removed)
    shutil.rmtree(removed)


def new_record(version: int, fingerprint: str, about: Mapping[str, Any]) -> bytes:
    """The record of a push, JSON."""
    record = {"version": version, "pushed_at": _now(), "model_fingerprint": fingerprint, **about}
    return json.dumps(record, indent=2).encode()


def _note(base_directory: str, event: dict[str, Any]) -> None:
    with open(os.path.join(base_directory, _HISTORY), "a") as file:
        file.write(json.dumps({"at": _now(), **event}) + "\n")


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _require_versions(base_directory: str) -> list[int]:
    versions = list_versions(base_directory)
    if not versions:
        raise PushError(f"no version is in {base_directory}")
    return versions


def _require(base_directory: str, version: int) -> None:
    versions = _require_versions(base_directory)
    if version not in versions:
        known = ", ".join(map(str, versions))
        raise PushError(f"there is no version {version} in {base_directory}; there are {known}")


def model_files(directory: str) -> list[str]:
    """Relative paths of all files but the record of a push, sorted."""
    found = [
        os.path.relpath(os.path.join(folder, name), directory)
        for folder, _, names in os.walk(directory)
        for name in names
    ]
    return sorted(path for path in found if path != RECORD)
