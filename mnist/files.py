"""Files of the data, at local paths and in stores (`gs://`, `s3://`); every failure is an OSError.

No other module of this room knows `storage`, and this one imports it for an address with "://"
alone, so that a local path needs no TensorFlow.
"""

import contextlib
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO


def is_local(path: str) -> bool:
    """Whether a path is local, and no address such as `gs://bucket/mnist`."""
    return "://" not in path


def join(folder: str, name: str) -> str:
    """The path of a name in a folder."""
    return os.path.join(folder, name) if is_local(folder) else f"{folder.rstrip('/')}/{name}"


@contextlib.contextmanager
def open_binary(path: str) -> Iterator[tuple[BinaryIO, int]]:
    """Opens a regular file for reading.

    Yields:
        The stream, which has `read(n)` and `seek(0)`, and the file's size in bytes.

    Raises:
        OSError: The file is missing, is a folder or a device, may not be read, or fails while it
            is read.
    """
    if is_local(path):
        size = _regular_size(path)
        with open(path, "rb") as stream:
            yield stream, size
        return
    with _storage() as storage:
        if not storage.exists(path):
            raise FileNotFoundError("not found")
        if storage.is_folder(path):
            raise IsADirectoryError("is a directory")
        size = storage.size(path)
        with storage.open_binary(path) as stream:
            yield stream, size


def entries(folder: str, is_wanted: Callable[[str], bool]) -> dict[str, bool]:
    """Lists a folder.

    Args:
        folder: A local folder or an address.
        is_wanted: Whether a name matters. In a store no other name is asked whether it is a folder.

    Returns:
        For each name in the folder, whether it is a folder. A link that leads to itself is none.

    Raises:
        OSError: The folder is missing or cannot be listed.
    """
    if is_local(folder):
        try:
            names = os.listdir(folder)
        except ValueError as error:  # a path with a zero byte
            raise FileNotFoundError(str(error)) from error
        return {name: os.path.isdir(os.path.join(folder, name)) for name in names}
    with _storage() as storage:
        names = storage.names_in(folder)
        if not names and not storage.is_folder(folder):
            raise FileNotFoundError("there is no such folder")
        return {name: is_wanted(name) and storage.is_folder(join(folder, name)) for name in names}


def times_of_change(path: str) -> tuple[float, ...]:
    """When a file or a local folder was last written, seconds since 1970.

    A local path has two times: what its writer says (`cp -a`, `rsync -a` and `unzip` say what the
    original's was) and when the file system last saw a change of it. A store has one time.

    Raises:
        OSError: The file is missing or cannot be asked.
    """
    if is_local(path):
        status = os.stat(path)
        return status.st_mtime, status.st_ctime
    with _storage() as storage:
        return (storage.modified(path),)


def read_text(path: str) -> str | None:
    """The text of a file; None where there is no such file.

    Raises:
        OSError: The file cannot be read.
        UnicodeError: The file is no UTF-8 text.
    """
    if is_local(path):
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
    with _storage() as storage:
        return storage.read(path).decode() if storage.exists(path) else None


def write_text(path: str, text: str) -> None:
    """Makes or replaces a file, and the folders that it lies in; the file changes as a whole.

    Raises:
        OSError: The file cannot be written.
    """
    if not is_local(path):
        with _storage() as storage:
            storage.write(path, text.encode())
        return
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with atomic_file(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def atomic_file(path: str) -> Iterator[BinaryIO]:
    """Opens a local file for writing that appears under its name only when the block succeeds.

    What is written goes to "<path>.<random>.tmp", which is flushed to disk and renamed, or removed
    on any exception.

    Raises:
        OSError: The file cannot be written.
    """
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _regular_size(path: str) -> int:
    try:
        status = os.stat(path)
    except ValueError as error:  # a path with a zero byte
        raise FileNotFoundError(str(error)) from error
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError("is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise OSError("is a pipe, a socket or a device")
    return status.st_size


@contextlib.contextmanager
def _storage() -> Iterator[Any]:
    """`storage`, with TensorFlow's own errors as OSError."""
    import tensorflow as tf

    import storage

    try:
        yield storage
    except (UnicodeError, tf.errors.OpError) as error:
        raise OSError(str(error)) from error
