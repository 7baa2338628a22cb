"""Files at local paths, in stores that TensorFlow reads (`gs://`) and in S3-compatible stores.

An address is a local path or a URI. A local path is opened with Python's own functions, and no
TensorFlow is imported. `s3://` goes through s3fs, which signs in with `FSSPEC_S3_KEY` and
`FSSPEC_S3_SECRET` and connects to `FSSPEC_S3_ENDPOINT_URL` (MinIO and the like) where they are set,
else as the AWS command line does. The variables are not called `AWS_...`: on a cluster, Kubeflow's
launcher runs in the same container and would take those for its own store.

A file that is written appears whole or not at all. Each function raises OSError where a disk or a
store refuses or does not answer, also in place of TensorFlow's and botocore's own errors.
"""

import contextlib
import datetime
import errno
import functools
import os
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

KEY_VARIABLE = "FSSPEC_S3_KEY"
SECRET_VARIABLE = "FSSPEC_S3_SECRET"
ENDPOINT_VARIABLE = "FSSPEC_S3_ENDPOINT_URL"
# Stores that are not AWS's may not know the checksums that botocore sends since 1.36.
_CONFIG = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
_OPTIONS = {"key": KEY_VARIABLE, "secret": SECRET_VARIABLE, "endpoint_url": ENDPOINT_VARIABLE}
_NOT_SUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
# No file, a folder, a file where a folder should be, a link that leads to itself, a pipe or device.
_NO_FILE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)


def is_local(address: str) -> bool:
    """Whether an address is a local path, and no URI such as `gs://bucket/models`."""
    return "://" not in address


def exists(address: str) -> bool:
    """Whether there is a file or a folder."""
    if is_local(address):
        return _mode(address) is not None
    with _store(address) as store:
        return bool(store.exists(address))


def is_folder(address: str) -> bool:
    """Whether there is a folder."""
    if is_local(address):
        return stat.S_ISDIR(_mode(address) or 0)
    with _store(address) as store:
        return bool(store.isdir(address))


def names_in(folder: str) -> list[str]:
    """Lists what is directly in a folder.

    Returns:
      Names without slashes, sorted; none where there is no folder.
    """
    if is_local(folder):
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []
    with _store(folder) as store:
        try:
            found = store.ls(folder, detail=False)
        except FileNotFoundError as error:
            response = getattr(error.__cause__, "response", {})
            if response.get("Error", {}).get("Code") == "NoSuchBucket":
                raise
            return []
    return sorted(name for name in _relative(folder, found) if name)


def files_in(folder: str) -> list[str]:
    """The files in a folder and in all folders below it, as relative paths, sorted.

    Raises:
      FileNotFoundError: when there is no local folder.
    """
    if is_local(folder):
        walked = os.walk(folder, onerror=_raise)
        found = [os.path.join(place, name) for place, _, names in walked for name in names]
        return sorted(os.path.relpath(path, folder) for path in found)
    with _store(folder) as store:
        return sorted(set(_relative(folder, store.find(folder))))


def read(address: str) -> bytes:
    """Reads a file.

    Raises:
      FileNotFoundError: when there is none.
    """
    if is_local(address):
        with _open_local(address) as file:
            return file.read()
    with _store(address) as store:
        return bytes(store.cat_file(address))


def read_if_there(address: str, limit: int | None = None) -> bytes | None:
    """Reads a file; None where there is none, something else has its name, or it is too large.

    Args:
      address: of the file.
      limit: the largest size to read, bytes; None for any.
    """
    try:
        return None if limit is not None and size(address) > limit else read(address)
    except FileNotFoundError:  # without a number where s3fs raises it
        return None
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise


def size(address: str) -> int:
    """The size of a file, bytes."""
    if is_local(address):
        return os.stat(address).st_size
    with _store(address) as store:
        return int(store.size(address))


def modified(address: str) -> float:
    """When a file was last written, seconds since 1970."""
    if is_local(address):
        return os.stat(address).st_mtime
    with _store(address) as store:
        return float(store.modified(address).timestamp())


@contextlib.contextmanager
def open_binary(address: str) -> Iterator[BinaryIO]:
    """Opens a file for reading; what is not read of a file in a store is not fetched either."""
    if is_local(address):
        with _open_local(address) as file:
            yield file
        return
    with _store(address) as store, store.open(address, "rb") as file:
        yield file


def _open_local(path: str) -> BinaryIO:
    """Opens a file; raises OSError for a pipe, which nobody may ever write to, and for a device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    if is_folder:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.ENXIO, "is a pipe, a socket or a device", path)


def write(address: str, content: bytes) -> None:
    """Makes or replaces a file, and makes the folders around it."""
    if is_local(address):
        os.makedirs(os.path.dirname(address) or ".", exist_ok=True)
        with atomic_file(address) as file:
            file.write(content)
        return
    with _store(address) as store:
        store.pipe_file(address, content)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a local file for writing that is made or replaced when the block ends without an error.

    The content is on the disk before it has the name, so that a power cut leaves the former file
    or the new one.

    Args:
      path: the file; its folder must exist.
    """
    folder, name = os.path.split(path)
    partial = os.path.join(folder, f".{name}.{uuid.uuid4().hex}")
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync(folder or ".")
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)


def sync(path: str | os.PathLike[str]) -> None:
    """Waits until a local file, or the names in a local folder, are on the disk.

    Some file systems refuse that for a folder, and keep its names in their own way.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED or not os.path.isdir(path):
            raise
    finally:
        os.close(descriptor)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Waits until the files and names in a local folder, if there is one, are on the disk."""
    for place, _, names in os.walk(folder):
        paths = (os.path.join(place, name) for name in names)
        for path in (*filter(os.path.isfile, paths), place):
            sync(path)


@contextlib.contextmanager
def locked(file: str | os.PathLike[str], timeout: float = -1) -> Iterator[bool]:
    """Holds a lock of this machine, which ends with the process that holds it.

    Where the file system has no flock, as some network mounts, nothing is locked, and a warning
    says so once.

    Args:
      file: the lock; it is made, and its folder must exist.
      timeout: how long to wait for another process, seconds; -1: for ever.

    Yields:
      Whether the file is locked.

    Raises:
      TimeoutError: another process held it all the time.
    """
    import filelock  # not above: the settings import this module

    lock = filelock.FileLock(file, timeout=timeout, fallback_to_soft=False)
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NOT_SUPPORTED:
            raise
        _warn_without_lock(os.path.dirname(file))
    try:
        yield lock.is_locked
    finally:
        lock.release()


@functools.cache
def _warn_without_lock(folder: str) -> None:
    print(
        f"warning: {folder} is on a file system without locks (flock): let one process at a time "
        "use it",
        file=sys.stderr,
    )


def remove(address: str) -> None:
    """Removes a file, a link, or a folder with all that is in it, if it is there."""
    if is_local(address):
        if os.path.isdir(address) and not os.path.islink(address):
            shutil.rmtree(address)
        else:
            Path(address).unlink(missing_ok=True)
        return
    with _store(address) as store:
        if store.exists(address):
            store.rm(address, recursive=True)


@contextlib.contextmanager
def local_copy(folder: str) -> Iterator[str]:
    """A folder with the same files that TensorFlow can read: the folder itself where it can."""
    if not _is_s3(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as copy:
        with _store(folder) as store:
            files = store.find(folder)
            for file, path in zip(files, _relative(folder, files), strict=True):
                target = os.path.join(copy, path)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                store.get_file(file, target)
        yield copy


@contextlib.contextmanager
def new_folder(folder: str, last: str) -> Iterator[str]:
    """A folder to write files into with TensorFlow, which are all in `folder` after the block.

    Args:
      folder: where the files go.
      last: the file that is there only if all the others are; on a disk, whoever writes sees to it.
    """
    if not _is_s3(folder):
        if is_local(folder):
            os.makedirs(folder, exist_ok=True)
        else:
            with _store(folder) as store:
                store.makedirs(folder)
        yield folder
        return
    with tempfile.TemporaryDirectory() as staging:
        yield staging
        with _store(folder) as store:
            for path in sorted(files_in(staging), key=lambda path: path == last):
                store.put_file(os.path.join(staging, path), f"{folder}/{path}")


def _raise(error: OSError) -> None:
    raise error


def _mode(path: str) -> int | None:
    """The mode of what a path leads to; None where it leads nowhere."""
    try:
        return os.stat(path).st_mode
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise


def _is_s3(address: str) -> bool:
    return address.startswith("s3://")


def _relative(folder: str, found: list[str]) -> list[str]:
    prefix = folder.removeprefix("s3://").rstrip("/")
    return [path.removeprefix(prefix).strip("/") for path in found]


def _store(address: str) -> contextlib.AbstractContextManager[Any]:
    """The store of a URI, with fsspec's methods."""
    return _s3(address) if _is_s3(address) else _gfile(address)


@contextlib.contextmanager
def _s3(address: str) -> Iterator[Any]:
    """s3fs; turns what botocore raises into an OSError that names the address."""
    import botocore.exceptions
    import s3fs

    given = {option: os.environ.get(variable) for option, variable in _OPTIONS.items()}
    options = {option: value for option, value in given.items() if value}
    try:
        # Others write there too, so nothing that was listed may be taken to be so still.
        yield s3fs.S3FileSystem(use_listings_cache=False, config_kwargs=_CONFIG, **options)
    except (
        botocore.exceptions.BotoCoreError,
        botocore.exceptions.ClientError,
        UnicodeError,
    ) as error:
        raise OSError(f"{address}: {error}") from error


@contextlib.contextmanager
def _gfile(address: str) -> Iterator["_TensorFlowFiles"]:
    """TensorFlow's file systems; turns what they raise into an OSError that names the address."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its notes on this machine's hardware
    import tensorflow as tf

    kinds = {tf.errors.NotFoundError: FileNotFoundError}
    kinds |= {tf.errors.PermissionDeniedError: PermissionError}
    try:
        yield _TensorFlowFiles(tf.io.gfile)
    except tf.errors.UnimplementedError as error:
        what = "this is neither a local path nor gs:// or s3://"
        raise OSError(errno.EPROTONOSUPPORT, what, address) from error
    except (tf.errors.OpError, UnicodeError) as error:
        reason = getattr(error, "message", error)
        raise kinds.get(type(error), OSError)(f"{address}: {reason}") from error


class _TensorFlowFiles:
    """`tf.io.gfile` under the names that fsspec gives its methods."""

    def __init__(self, gfile: Any) -> None:
        self._gfile = gfile
        self.exists, self.isdir, self.makedirs = gfile.exists, gfile.isdir, gfile.makedirs

    def ls(self, folder: str, detail: bool) -> list[str]:
        del detail
        return self._gfile.listdir(folder) if self._gfile.exists(folder) else []

    def find(self, folder: str) -> list[str]:
        walked = self._gfile.walk(folder)
        return [os.path.join(place, name) for place, _, names in walked for name in names]

    def open(self, address: str, mode: str) -> Any:
        return self._gfile.GFile(address, mode)

    def cat_file(self, address: str) -> bytes:
        with self.open(address, "rb") as file:
            return bytes(file.read())

    def pipe_file(self, address: str, content: bytes) -> None:
        self._gfile.makedirs(os.path.dirname(address))
        with self.open(address, "wb") as file:
            file.write(content)

    def size(self, address: str) -> int:
        return int(self._gfile.stat(address).length)

    def modified(self, address: str) -> datetime.datetime:
        seconds = self._gfile.stat(address).mtime_nsec / 1e9
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)

    def rm(self, address: str, recursive: bool) -> None:
        del recursive
        (self._gfile.rmtree if self._gfile.isdir(address) else self._gfile.remove)(address)
