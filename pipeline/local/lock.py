"""At most one process uses an output folder at a time."""

import contextlib
import datetime
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import storage
from pipeline.local.paths import Places, UsageError

_LOCK, _HOLDER = ".lock", ".lock-holder"


class LockedError(UsageError):
    """Another process uses the output folder."""


class LockUnavailableError(UsageError):
    """The output folder cannot be written to: it is read-only or full."""


@contextlib.contextmanager
def locked(places: Places) -> Iterator[None]:
    """Locks an output folder, which is created if it is missing.

    The kernel holds the lock, see `storage.locked`, and releases it when its process ends for
    whatever reason. The file beside it names the holder in messages, and decides nothing. If the
    block raises, a lock file and folders that were made for it are removed, unless something else
    is in them.

    Raises:
      LockedError: another process holds the lock.
      LockUnavailableError: the folder cannot be written to.
    """
    root, holder = places.root, places.root / _HOLDER
    new = [path for path in (root / _LOCK, root, *root.parents) if not path.exists()]
    held = contextlib.ExitStack()
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        if not root.exists():
            root.mkdir()
            root.chmod(root.stat().st_mode | 0o011)  # whatever the umask, servers pass through
        held.enter_context(storage.locked(root / _LOCK, timeout=0))
    except TimeoutError:
        raise LockedError(
            f"{_read(holder)} uses this output folder",
            where=str(root),
            fix="wait for it to end, or choose another folder with --output-dir",
        ) from None
    except OSError as error:
        raise LockUnavailableError(
            f"the output folder cannot be written to: {error}",
            where=str(root),
            fix="choose a writable folder",
        ) from None
    with held:
        try:
            with _naming_this_process(holder):
                yield
        except BaseException:
            # While it is locked: whoever has that file open finds it unlinked, and makes a new one.
            _remove(new)
            raise


@contextlib.contextmanager
def _naming_this_process(holder: Path) -> Iterator[None]:
    since = datetime.datetime.now().astimezone()
    with contextlib.suppress(OSError):  # a full disk
        holder.write_text(
            f"process {os.getpid()} on {socket.gethostname()}, since {since:%Y-%m-%d %H:%M %Z},"
        )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink()


def _remove(new: list[Path]) -> None:
    """Removes a file and the folders around it, innermost first, up to one that is not empty."""
    with contextlib.suppress(OSError):
        for path in new:
            path.rmdir() if path.is_dir() else path.unlink()


def _read(holder: Path) -> str:
    with contextlib.suppress(OSError):
        return holder.read_text(encoding="utf-8", errors="replace")[:200] or "another process"
    return "another process"
