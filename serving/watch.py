"""Keeps the newest version that loads in memory, while others come and go."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving.loading import LoadedVersion

_log = logging.getLogger(__name__)

AVAILABLE, LOADING, FAILED = "AVAILABLE", "LOADING", "END"


@dataclass(frozen=True)
class VersionStatus:
    """One version: its number, TensorFlow Serving's name for its state, and what went wrong."""

    version: int
    state: str
    error: str = ""


class VersionWatch:
    """Looks for versions in a folder, in a thread of its own.

    A new one is loaded and tried beside the one that answers, and takes its place in one step.
    One that does not load is passed over until its files change. Requests that have begun keep the
    version that they began with.
    """

    def __init__(
        self,
        base: Path,
        poll_seconds: float,
        load: Callable[[Path], LoadedVersion] = LoadedVersion,
    ) -> None:
        """Watches `<base>/<version>/`; see `ServeSettings`."""
        self.base = base
        self.served: LoadedVersion | None = None
        self.swaps = 0
        self.failures = 0
        self._load = load
        self._poll_seconds = poll_seconds
        self._failed: dict[int, tuple[object, str]] = {}
        self._loading: int | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="versions", daemon=True)

    def start(self) -> None:
        """Looks once, then again and again in the background."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Ends the background thread, after the load that it may be at."""
        self._ended.set()
        self._thread.join()

    def look(self) -> None:
        """Serves the newest version that loads, if it is not served already."""
        numbers = self._numbers()
        self._failed = {number: why for number, why in self._failed.items() if number in numbers}
        for number in reversed(numbers):
            if self.served is not None and self.served.number == number:
                return
            if self._try(number):
                return

    def statuses(self) -> list[VersionStatus]:
        """Versions that are served, being loaded or have failed, newest first."""
        found = [VersionStatus(n, FAILED, why) for n, (_, why) in list(self._failed.items())]
        if self._loading is not None:
            found.append(VersionStatus(self._loading, LOADING))
        if self.served is not None:
            found.append(VersionStatus(self.served.number, AVAILABLE))
        return sorted(found, key=lambda status: -status.version)

    def _keep_looking(self) -> None:
        while not self._ended.wait(self._poll_seconds):
            try:
                self.look()
            except Exception:
                # Whatever it is, what is served goes on being served.
                _log.exception("cannot look for versions in %s", self.base)

    def _numbers(self) -> list[int]:
        try:
            return sorted(
                int(path.name)
                for path in self.base.iterdir()
                if path.name.isascii() and path.name.isdecimal() and path.is_dir()
            )
        except OSError:
            return []

    def _try(self, number: int) -> bool:
        directory = self.base / str(number)
        files = _stamp(directory)
        if self._failed.get(number, (None,))[0] == files:
            return False
        self._loading = number
        try:
            loaded = self._load(directory)
        except Exception as error:
            reason = " ".join(str(error).split())[:500] or type(error).__name__
            self._failed[number] = (files, reason)
            self.failures += 1
            _log.error("version %d does not load: %s", number, reason)
            return False
        finally:
            self._loading = None
        self._failed.pop(number, None)
        self.served = loaded
        self.swaps += 1
        _log.info("serving version %d", number)
        return True


def _stamp(directory: Path) -> object:
    """What changes when a file of the version does."""
    try:
        return sorted(
            (str(path), path.stat().st_mtime_ns, path.stat().st_size)
            for path in directory.rglob("*")
            if path.is_file()
        )
    except OSError:
        return None
