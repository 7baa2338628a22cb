"""Files of the data, checked more closely than by `storage.py`; every failure is an OSError."""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO

import storage


@contextlib.contextmanager
def open_binary(path: str) -> Iterator[tuple[BinaryIO, int]]:
    """Opens a regular file for reading.

    Yields:
        The stream, which has `read(n)` and `seek(0)`, and the file's size in bytes.

    Raises:
        OSError: The file is missing, is a folder or a device, may not be read, or fails while it
            is read.
    """
    size = _regular_size(path) if storage.is_local(path) else _size_in_store(path)
    with storage.open_binary(path) as stream:
        yield stream, size


def entries(folder: str, is_wanted: Callable[[str], bool]) -> dict[str, bool]:
    """Lists a folder.

    Args:
        folder: A local folder or an address.
        is_wanted: Whether a name matters. In a store other names are not checked for being folders.

    Returns:
        For each name in the folder, whether it is a folder. A link that leads to itself is none.

    Raises:
        OSError: The folder is missing or cannot be listed.
    """
    if storage.is_local(folder):
        try:
            names = os.listdir(folder)
        except ValueError as error:  # a path with a zero byte
            raise FileNotFoundError(str(error)) from error
        return {name: os.path.isdir(os.path.join(folder, name)) for name in names}
    names = storage.names_in(folder)
    if not names and not storage.is_folder(folder):
        raise FileNotFoundError("there is no such folder")
    paths = {name: os.path.join(folder, name) for name in names}
    return {name: is_wanted(name) and storage.is_folder(path) for name, path in paths.items()}


def times_of_change(path: str) -> tuple[float, ...]:
    """When a file or a local folder was last written, seconds since 1970.

    A local path has two times: what its writer says (`cp -a`, `rsync -a` and `unzip` say what the
    original's was) and when the file system last saw a change of it. A store has one time.

    Raises:
        OSError: The file is missing or its status cannot be read.
    """
    if storage.is_local(path):
        status = os.stat(path)
        return status.st_mtime, status.st_ctime
    return (storage.modified(path),)


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


def _size_in_store(address: str) -> int:
    if not storage.exists(address):
        raise FileNotFoundError("not found")
    if storage.is_folder(address):
        raise IsADirectoryError("is a directory")
    return storage.size(address)
