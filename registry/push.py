"""Pushes: a model becomes the newest version in a base."""

import os
from collections.abc import Mapping

import storage
from registry.errors import RegistryError, RolledBackError
from registry.history import left_by_rollback
from registry.integrity import fingerprint, is_intact, read_files
from registry.layout import PUSH_RECORD, SAVED_MODEL, list_versions, newest_version, version_address
from registry.local import add_version, locked, remove_version
from registry.object_store import add_to_store
from registry.records import read_record

_FEWEST_KEPT = 2


def push(
    model_dir: str | os.PathLike[str],
    base: str | os.PathLike[str],
    *,
    extra_files: Mapping[str, bytes] | None = None,
    keep_versions: int | None = None,
    run: str = "",
) -> int:
    """Makes a model the newest version, unless it is that already.

    Args:
      model_dir: path or URI of a SavedModel.
      base: path or URI of the folder that a server watches; created when missing.
      extra_files: content by path relative to the version, added to the model's own files.
      keep_versions: in a local base, remove the oldest beyond so many, 2 or more; None: keep all.
      run: id of the run that pushes it, for the push record; "" for none.

    Returns:
      The version: seconds since 1970, or a later number where that is taken.

    Raises:
      RegistryError: the folder holds no SavedModel, or the version differs from it.
      RolledBackError: the model was rolled back from, and no rollback has served it again.
    """
    contents, address = read_files(model_dir), os.fspath(base)
    if SAVED_MODEL not in contents:
        raise RegistryError(f"holds no {SAVED_MODEL}, expected a SavedModel", str(model_dir))
    model, contents = fingerprint(contents), contents | dict(extra_files or {})
    if not storage.is_local(address):
        return _serving(address, model) or add_to_store(address, contents, model, run)
    with locked(address):
        served = _serving(address, model)
        if served is not None:
            return served
        _refuse_rolled_back(address, model)
        version = add_version(address, contents, model, run=run)
        if keep_versions is not None:
            for old in list_versions(address)[: -max(keep_versions, _FEWEST_KEPT)]:
                remove_version(address, old)
        return version


def copy_version(base: str | os.PathLike[str], version: int, target: str) -> None:
    """Copies a version with its push record, so that it can be restored.

    Args:
      base: path or URI.
      version: to be copied.
      target: path or URI of a folder.
    """
    folder = version_address(base, version)
    record = storage.read(os.path.join(folder, PUSH_RECORD))
    for path, content in {**read_files(folder), PUSH_RECORD: record}.items():
        storage.write(os.path.join(target, path), content)


def _serving(base: str, model: str) -> int | None:
    """The newest version, where it holds a model and is intact."""
    newest = newest_version(base)
    if newest is None:
        return None
    folder = version_address(base, newest)
    record = read_record(folder)
    is_same = record is not None and record.model_fingerprint == model
    return newest if is_same and is_intact(folder) else None


def _refuse_rolled_back(base: str, model: str) -> None:
    event = left_by_rollback(base, model)
    if event is not None:
        raise RolledBackError(
            f"this model was version {event.version}, which was rolled back from on "
            f"{event.at:%Y-%m-%d %H:%M}: {event.reason}",
            fix=f"train another, or serve it again with `local_runner.py rollback {event.version}`",
        )
