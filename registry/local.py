"""Adding and removing version folders in a local base.

A server loads whatever folder appears under a number. So a version is made under a name that is no
number, and renamed: it appears whole or not at all. Servers run as another user, so a version is
readable by all.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import storage
from registry.errors import RegistryError
from registry.history import now, user
from registry.integrity import digests
from registry.layout import LARGEST_VERSION, PUSH_RECORD, version_dir, version_number
from registry.records import PushRecord

_LOCK = ".push.lock"
_STAGING, _REMOVED, _DAMAGED = ".incoming-", ".removed-", ".damaged-"
# A push takes seconds.
_LOCK_SECONDS = 600.0
_Base = str | os.PathLike[str]


@contextmanager
def locked(base: _Base) -> Iterator[None]:
    """Holds a base, which is created where it is missing, and removes what killed pushes left.

    The lock ends with the process that holds it.

    Raises:
      RegistryError: another process holds it for ten minutes.
    """
    _make_readable_folders(Path(base))
    file, held = os.path.join(base, _LOCK), ExitStack()
    try:
        held.enter_context(storage.locked(file, timeout=_LOCK_SECONDS))
    except TimeoutError:
        raise RegistryError(
            f"another process has been changing the versions here for {_LOCK_SECONDS:g} s",
            str(base),
            f"see which one holds {file} (`fuser`), and end it if it hangs",
        ) from None
    with held:
        for path in leftovers(base):
            storage.remove(path)
        yield


def leftovers(base: _Base) -> list[str]:
    """The paths that a killed push left, sorted; whoever takes the lock next removes them."""
    names = storage.names_in(os.fspath(base))
    return [os.path.join(base, name) for name in names if name.startswith((_STAGING, _REMOVED))]


def remove_leftovers(base: _Base) -> None:
    """Removes what `leftovers` lists, once no push is in progress."""
    with locked(base):
        pass


def add_version(
    base: _Base,
    contents: Mapping[str, bytes],
    model: str,
    *,
    copy_of: int | None = None,
    reason: str = "",
    run: str = "",
) -> int:
    """Writes a version, the newest; to be called by whoever holds the lock.

    Args:
      base: the folder that a server watches.
      contents: of its files, by path relative to the version.
      model: see `PushRecord.model_fingerprint`.
      copy_of: see `PushRecord`.
      reason: see `PushRecord`.
      run: see `PushRecord`.

    Returns:
      The version: seconds since 1970, or one more than the highest number there if that is later.

    Raises:
      RegistryError: what was written differs from the content.
    """
    version = max(int(time.time()), *(number + 1 for number in _numbers(base)))
    staging = tempfile.mkdtemp(prefix=_STAGING, dir=base)
    try:
        record = PushRecord(
            version=version,
            pushed_at=now(),
            model_fingerprint=model,
            files=digests(contents),
            copy_of=copy_of,
            reason=reason,
            run=run,
            user=user(),
        )
        written = {**contents, PUSH_RECORD: record.model_dump_json(indent=2).encode()}
        for path, content in written.items():
            _write(Path(staging, path), content)
        for folder, _, names in os.walk(staging):
            for name in names:
                os.chmod(os.path.join(folder, name), 0o644)
            os.chmod(folder, 0o755)
            storage.sync(folder)
        os.rename(staging, version_dir(base, version))
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    storage.sync(base)
    return version


def remove_version(base: _Base, version: int) -> None:
    """Removes a version; to be called by whoever holds the lock."""
    removed = os.path.join(base, f"{_REMOVED}{version}")
    os.rename(version_dir(base, version), removed)
    shutil.rmtree(removed)


def set_aside(base: _Base, version: int) -> Path:
    """Renames a version so that no server sees it; to be called by whoever holds the lock.

    Returns:
      `.damaged-<version>`, with a number behind it where that name is taken.
    """
    target, count = Path(base, f"{_DAMAGED}{version}"), 1
    while os.path.lexists(target):
        count += 1
        target = Path(base, f"{_DAMAGED}{version}-{count}")
    os.rename(version_dir(base, version), target)
    return target


def _numbers(base: _Base) -> list[int]:
    """Numbers below which no version must be added: those of versions, files and links, and 0."""
    numbers = map(version_number, os.listdir(base))
    return [0, *(number for number in numbers if number is not None and number < LARGEST_VERSION)]


def _make_readable_folders(folder: Path) -> None:
    """Makes a folder and those above it, which the user of a server can read whatever the umask."""
    if not folder.is_dir():
        _make_readable_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if path.read_bytes() != content:
        raise RegistryError("differs from what was written to it", str(path), "check the disk")
