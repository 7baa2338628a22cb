"""Downloads of MNIST's files, each from the first mirror that gives it and checked before use."""

import contextlib
import gzip
import hashlib
import queue
import re
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from storage import atomic_file

if TYPE_CHECKING:
    import httpx

Progress = Callable[[str, int, int], None]

DEFAULT_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)

_CONNECT_SECONDS = 5.0
_MOST_BACKOFF_SECONDS = 10.0
_SLOWEST_BYTES_PER_SECOND = 1 << 16  # of content: 14 kB/s of MNIST's compressed images
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file on a mirror, and the size and SHA-256 of its content once decompressed."""

    name: str
    content_bytes: int
    content_sha256: str


MNIST_FILES = (
    RemoteFile(
        "train-images-idx3-ubyte.gz",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    RemoteFile(
        "train-labels-idx1-ubyte.gz",
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    RemoteFile(
        "t10k-images-idx3-ubyte.gz",
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    RemoteFile(
        "t10k-labels-idx1-ubyte.gz",
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
"""The canonical MNIST. Mirrors compress it in ways of their own, so only the content is checked."""


class MirrorsError(Exception):
    """No mirror gave a file; the message has a line for each.

    Attributes:
        summary: The same in a few words.
    """

    def __init__(self, failures: Sequence[str], summary: str) -> None:
        super().__init__("\n".join(f"  {line}" for line in failures))
        self.summary = summary


class _BadAnswerError(Exception):
    """A mirror gave something else than the file, and asking again would not help."""


class _TryAgainError(Exception):
    """A mirror did not give the file this time."""


@dataclass(frozen=True)
class Download:
    """How files are downloaded.

    Attributes:
        mirrors: Addresses to which file names are added, in order of preference.
        timeout_seconds: How long a mirror may be silent, > 0.
        attempts: How often a file is asked of one mirror, >= 1.
        progress: Called with file name, bytes so far, and bytes in all (0: unknown) as they come. A
            new attempt starts again from 0.
        backoff_seconds: The wait before the second attempt; it doubles with each, up to 10 s.
    """

    mirrors: Sequence[str]
    timeout_seconds: float
    attempts: int
    progress: Progress
    backoff_seconds: float = 0.5

    def require_answer(self, seconds: float) -> None:
        """Returns as soon as any mirror answers anything at all.

        The mirrors are asked in threads that are left behind, since looking up a name cannot be
        given a time limit.

        Raises:
            MirrorsError: No mirror answered within `seconds`.
        """
        answers: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        for mirror in self.mirrors:
            threading.Thread(target=_ask, args=(mirror, seconds, answers), daemon=True).start()
        failures = dict.fromkeys(self.mirrors, f"no answer within {seconds:g} s")
        deadline = time.monotonic() + seconds
        with contextlib.suppress(queue.Empty):
            for _ in self.mirrors:
                mirror, failure = answers.get(timeout=max(0.0, deadline - time.monotonic()))
                if not failure:
                    return
                failures[mirror] = failure
        lines = [f"{_shown(mirror)}: {why}" for mirror, why in failures.items()]
        raise MirrorsError(lines or ["no mirror is named"], "no mirror reachable")

    def fetch_all(self, files: Sequence[RemoteFile], folder: Path) -> list[str]:
        """Downloads files into a folder; a mirror that gave one is asked first for the next.

        A file gets its name only after its content was checked.

        Returns:
            The mirrors that gave files, as they may be shown.

        Raises:
            MirrorsError: No mirror gave one of the files.
            OSError: The folder cannot be written.
        """
        # Only for a download: it is a fifth of what a pass with nothing to do takes.
        import httpx

        folder.mkdir(exist_ok=True)
        for left in folder.glob("*.tmp"):
            left.unlink()
        connect = min(self.timeout_seconds, _CONNECT_SECONDS)
        mirrors, givers = list(self.mirrors), []
        with httpx.Client(
            timeout=httpx.Timeout(self.timeout_seconds, connect=connect),
            follow_redirects=True,
            headers={"Accept-Encoding": "identity"},
        ) as client:
            for file in files:
                giver = self._fetch(client, mirrors, file, folder)
                givers.append(_shown(giver))
                mirrors.sort(key=lambda mirror: mirror != giver)
        return list(dict.fromkeys(givers))

    def _fetch(
        self, client: "httpx.Client", mirrors: Sequence[str], file: RemoteFile, folder: Path
    ) -> str:
        """Downloads one file from the first mirror that gives it, and returns that mirror."""
        import httpx
        import tenacity

        failures = []
        for mirror in mirrors:
            url = f"{mirror.rstrip('/')}/{file.name}"
            retrying = tenacity.Retrying(
                retry=tenacity.retry_if_exception_type((_TryAgainError, httpx.TransportError)),
                stop=tenacity.stop_after_attempt(self.attempts),
                wait=tenacity.wait_exponential(self.backoff_seconds, max=_MOST_BACKOFF_SECONDS),
                reraise=True,
            )
            try:
                retrying(self._attempt, client, url, file, folder)
            except (httpx.HTTPError, httpx.InvalidURL, _BadAnswerError, _TryAgainError) as error:
                tries = retrying.statistics["attempt_number"]
                attempts = f" ({tries} attempts)" if tries > 1 else ""
                failures.append(f"{_shown(url)}: {_reason(error)}{attempts}")
            else:
                return mirror
        raise MirrorsError(failures, "no mirror gave the complete files")

    def _attempt(self, client: "httpx.Client", url: str, file: RemoteFile, folder: Path) -> None:
        seconds = self.timeout_seconds + file.content_bytes / _SLOWEST_BYTES_PER_SECOND
        deadline = time.monotonic() + seconds
        with client.stream("GET", url) as response:
            status = f"HTTP status {response.status_code} {response.reason_phrase}".rstrip()
            if response.status_code == 429 or response.status_code >= 500:
                raise _TryAgainError(status)
            if response.status_code != 200:
                raise _BadAnswerError(status)
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else 0
            with atomic_file(str(folder / file.name)) as stream:
                for chunk in response.iter_raw():
                    stream.write(chunk)
                    self.progress(file.name, response.num_bytes_downloaded, total)
                    if response.num_bytes_downloaded > file.content_bytes + _CHUNK_BYTES:
                        raise _BadAnswerError("corrupt: more bytes than the content has")
                    if time.monotonic() > deadline:
                        raise _TryAgainError(f"not complete after {seconds:.0f} s")
                stream.flush()
                _check(stream.name, file)


def _ask(mirror: str, seconds: float, answers: "queue.SimpleQueue[tuple[str, str]]") -> None:
    """Puts a mirror and why it cannot be asked, "" if it answers, be it with an error."""
    import httpx

    try:
        httpx.head(mirror, timeout=seconds)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as error:
        answers.put((mirror, _reason(error)))
    else:
        answers.put((mirror, ""))


def _reason(error: Exception) -> str:
    return _shown(str(error)) or type(error).__name__


def _shown(text: str) -> str:
    """An address, or a message with one, without the user and the password that it may hold."""
    return re.sub("//.*@", "//***@", text)


def _check(path: str, file: RemoteFile) -> None:
    """Decompresses a file in bounded memory, and compares its content with what is known of it."""
    digest, size = hashlib.sha256(), 0
    try:
        with gzip.open(path) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                if size > file.content_bytes:
                    raise _BadAnswerError(
                        f"corrupt: more than {file.content_bytes:,} bytes of content"
                    )
    except EOFError as error:
        raise _TryAgainError(
            f"cut short: the gzip data end after {size:,} bytes of content"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _BadAnswerError(f"corrupt: not valid gzip data ({error})") from error
    if (size, digest.hexdigest()) != (file.content_bytes, file.content_sha256):
        raise _BadAnswerError(
            f"corrupt: its content has {size:,} bytes and SHA-256 {digest.hexdigest()}, not "
            f"{file.content_bytes:,} and {file.content_sha256}"
        )
