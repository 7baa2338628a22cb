"""Keeps the newest version that loads in memory, while others come and go."""

import gc
import logging
import os
import queue
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.layout import list_versions, version_dir

if TYPE_CHECKING:
    from serving.loading import LoadedVersion

_log = logging.getLogger(__name__)

AVAILABLE, LOADING, FAILED = "AVAILABLE", "LOADING", "END"
LOAD_SECONDS = 60.0
_POLL_SECONDS = 1.0
_MAX_LOADS = 4  # at the same time; one on a hung mount may never end
# What TensorFlow reads of a version.
_READ = (
    "saved_model.pb",
    "saved_model.cpb",
    "saved_model.pbtxt",
    "fingerprint.pb",
    "variables",
    "assets",
    "assets.extra",
)


@dataclass(frozen=True)
class VersionStatus:
    """One version: its number, TensorFlow Serving's name for its state, and what went wrong."""

    version: int
    state: str
    error: str = ""


@dataclass
class _Attempt:
    """A version that is being loaded, or that did not load."""

    began: float
    ended: bool = False
    loaded: "LoadedVersion | None" = None
    error: str = ""
    files: object = None  # of the version when it did not load

    def is_late(self) -> bool:
        return not self.ended and time.monotonic() - self.began > LOAD_SECONDS


class VersionWatch:
    """Looks for versions in a folder, in a thread of its own.

    A new version is loaded in another thread, beside the version that answers, and takes its place
    in one step. A version that does not load, or is not loaded within `LOAD_SECONDS`, is passed
    over; it is tried again when its files change. Requests that have begun keep the version that
    they began with.

    Attributes:
      served: the version that answers, None before the first is loaded.
      swaps: versions that became the one that answers.
      failures: attempts to load a version that failed.
    """

    def __init__(
        self,
        base: Path,
        load: "Callable[[Path], LoadedVersion] | None" = None,
        poll_seconds: float = _POLL_SECONDS,
    ) -> None:
        """Watches `<base>/<version>/`.

        Args:
          base: folder of the versions.
          load: loads a version's folder; None for `LoadedVersion`, which imports TensorFlow.
          poll_seconds: time between two looks.
        """
        self.served: LoadedVersion | None = None
        self.swaps = 0
        self.failures = 0
        self._base = base
        self._load = load or _load
        self._poll_seconds = poll_seconds
        self._attempts: dict[int, _Attempt] = {}
        self._ended: queue.Queue[int] = queue.Queue()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begins to look in the background."""
        threading.Thread(target=self._keep_looking, name="versions", daemon=True).start()

    def stop(self) -> None:
        """Begins no other load; does not wait for the one that runs."""
        self._stopping.set()
        self._ended.put(-1)

    def statuses(self, version: int | None = None) -> list[VersionStatus]:
        """The versions that are served, being loaded or have failed, newest first.

        Args:
          version: only this version; None for all.
        """
        found = {}
        for number, attempt in list(self._attempts.items()):
            if attempt.is_late():
                error = f"not loaded within {LOAD_SECONDS:g} s"
                found[number] = VersionStatus(number, FAILED, error)
            elif attempt.ended:
                found[number] = VersionStatus(number, FAILED, attempt.error)
            else:
                found[number] = VersionStatus(number, LOADING)
        if self.served is not None:
            found[self.served.number] = VersionStatus(self.served.number, AVAILABLE)
        numbers = sorted(found, reverse=True)
        return [found[number] for number in numbers if version in (None, number)]

    def _keep_looking(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look()
            except OSError as error:
                _log.error("cannot look for versions in %s: %s", self._base, error)
            self._wait()

    def _wait(self) -> None:
        """Until a load has ended, or it is time to look again."""
        try:
            number = self._ended.get(timeout=self._poll_seconds)
        except queue.Empty:
            return
        if not self._stopping.is_set():
            self._take(number)

    def _look(self) -> None:
        """Begins to load the newest version that is not known to fail, if it is not served."""
        numbers = list_versions(self._base)
        for number in self._attempts.keys() - set(numbers):
            if self._attempts[number].ended:
                del self._attempts[number]
        for number in reversed(numbers):
            if self.served is not None and self.served.number == number:
                return
            attempt = self._attempts.get(number)
            if attempt is None:
                if self._begin(number):
                    return
            elif not attempt.ended and not attempt.is_late():
                return
            elif attempt.ended and _files(version_dir(self._base, number)) != attempt.files:
                self._begin(number)
                return

    def _begin(self, number: int) -> bool:
        """Loads a version in a thread; returns whether there was room for one."""
        if sum(not attempt.ended for attempt in self._attempts.values()) >= _MAX_LOADS:
            return False
        attempt = self._attempts[number] = _Attempt(time.monotonic())
        arguments = (number, attempt)
        threading.Thread(target=self._try, args=arguments, name="load", daemon=True).start()
        return True

    def _try(self, number: int, attempt: _Attempt) -> None:
        directory = version_dir(self._base, number)
        try:
            attempt.files = _files(directory)
            _require_regular_files(directory)
            attempt.loaded = self._load(directory)
        except Exception as error:  # whatever a damaged model makes TensorFlow raise
            # A path in it may have bytes that are no text, which neither API can send.
            text = str(error).encode("utf-8", "backslashreplace").decode()
            attempt.error = " ".join(text.split())[:500] or type(error).__name__
        attempt.ended = True
        self._ended.put(number)

    def _take(self, number: int) -> None:
        """Serves what was loaded, unless a newer version is served, or says why it did not load."""
        attempt = self._attempts.get(number)
        if attempt is None or not attempt.ended:
            return
        if attempt.loaded is None:
            self.failures += 1
            _log.error("version %d does not load: %s", number, attempt.error)
            return
        del self._attempts[number]
        present = list_versions(self._base)
        served = self.served
        if served is None or number > served.number or served.number not in present:
            self.served = attempt.loaded
            self.swaps += 1
            _log.info("serving version %d", number)
            # The version before it holds references to itself: without this it stays for minutes.
            del attempt, served
            gc.collect()


def _load(directory: Path) -> "LoadedVersion":
    from serving.loading import LoadedVersion

    return LoadedVersion(directory)


def _model_files(directory: Path) -> list[tuple[str, os.stat_result]]:
    found = []
    for name in _READ:
        top = directory / name
        below = [Path(folder, each) for folder, _, names in os.walk(top) for each in names]
        for path in below or [top]:
            try:
                found.append((str(path), path.stat()))
            except FileNotFoundError:
                continue
    return found


def _files(directory: Path) -> object:
    """What changes when a file that TensorFlow reads of the version does."""
    try:
        return [(path, s.st_mtime_ns, s.st_size) for path, s in _model_files(directory)]
    except OSError as error:
        return error.errno


def _require_regular_files(directory: Path) -> None:
    """Refuses what would block whoever opens it."""
    for path, status in _model_files(directory):
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise ValueError(f"{path} is not a regular file")
