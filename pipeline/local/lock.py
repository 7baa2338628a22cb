"""One user of an output folder at a time."""

import contextlib
import datetime
import getpass
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock

import storage
from pipeline.local.paths import Places, UsageError

_LOCK, _OWNER = ".lock", ".lock-owner.json"


class LockedError(UsageError):
    """Something else is using the output folder."""


@contextlib.contextmanager
def locked(places: Places) -> Iterator[None]:
    """Holds an output folder, which is created where it is missing.

    The kernel keeps the lock (flock) and releases it when its owner ends, however that ends. What
    is written beside it says who the owner is and decides nothing.

    After an error a lock file and folders that were not there before are removed, as far as nothing
    else is in them.

    Raises:
      LockedError: when another holds it; it says who, where and since when.
      UsageError: when the folder cannot be written to.
    """
    path, owner = places.root / _LOCK, places.root / _OWNER
    new = [each for each in (path, *path.parents) if not each.exists()]
    lock = filelock.FileLock(path, timeout=0)
    try:
        places.root.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise LockedError(
            f"{_describe(owner)} is using this output folder",
            str(places.root),
            "wait for it to end, or choose another folder with --output-dir",
        ) from None
    except OSError as error:
        raise UsageError(
            f"cannot write to the output folder: {error.strerror or error}",
            str(places.root),
            "choose another with --output-dir, or make room and give this user access",
        ) from None
    try:
        with _described(owner):
            yield
    except BaseException:
        # While the lock is held, so that nobody else has it by the file that goes: whoever opened
        # that file before finds it unlinked (filelock looks), and takes a new one.
        _remove(new)
        raise
    finally:
        lock.release()


def _remove(new: list[Path]) -> None:
    """Removes a file and the folders around it, innermost first, up to one that is not empty."""
    with contextlib.suppress(OSError):
        for path in new:
            path.rmdir() if path.is_dir() else path.unlink()


@contextlib.contextmanager
def _described(owner: Path) -> Iterator[None]:
    """Has a file say who holds the lock."""
    _write(owner)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            owner.unlink(missing_ok=True)


def _write(owner: Path) -> None:
    about = {
        "pid": os.getpid(),
        "user": _user(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "host": socket.gethostname(),
        "since": _now().isoformat(timespec="seconds"),
    }
    with contextlib.suppress(OSError):  # a full disk is for the run to meet
        storage.write(str(owner), json.dumps(about).encode())


def _describe(owner: Path) -> str:
    try:
        about = json.loads(owner.read_text())
        age = _now() - datetime.datetime.fromisoformat(about["since"])
        return (
            f"another run (process {about['pid']} of {about['user']} on {about['host']}, for "
            f"{_words(age)}: {about['command']})"
        )
    except (OSError, ValueError, LookupError, TypeError):
        return "another run, of which nothing is known yet,"


def _words(age: datetime.timedelta) -> str:
    minutes = max(0, int(age.total_seconds())) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return str(os.getuid())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
