"""Files in local folders, where TensorFlow's file system reaches, and on S3-compatible stores.

TensorFlow reads and writes local paths and `gs://` by itself. `s3://` goes through s3fs, which
signs in with `FSSPEC_S3_KEY` and `FSSPEC_S3_SECRET` and connects to `FSSPEC_S3_ENDPOINT_URL` (MinIO
and the like) where they are set, else as the AWS command line does. They are not called `AWS_...`:
on a cluster, Kubeflow's launcher runs in the same container and would take those for its own store.

A file appears whole or not at all, everywhere.
"""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import tensorflow as tf

KEY_VARIABLE = "FSSPEC_S3_KEY"
SECRET_VARIABLE = "FSSPEC_S3_SECRET"
ENDPOINT_VARIABLE = "FSSPEC_S3_ENDPOINT_URL"
# Stores that are not AWS's may not know the checksums that botocore sends since 1.36.
_CONFIG = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
_OPTIONS = {"key": KEY_VARIABLE, "secret": SECRET_VARIABLE, "endpoint_url": ENDPOINT_VARIABLE}


def exists(address: str) -> bool:
    """Whether there is a file or a folder.

    Raises:
      OSError, tf.errors.OpError: the store does not say, as does every function here.
    """
    if not _is_s3(address):
        return bool(tf.io.gfile.exists(address))
    with _s3(address) as store:
        return bool(store.exists(address))


def is_folder(address: str) -> bool:
    """Whether it is a folder."""
    if not _is_s3(address):
        return bool(tf.io.gfile.isdir(address))
    with _s3(address) as store:
        return bool(store.isdir(address))


def names_in(folder: str) -> list[str]:
    """What is directly in a folder, sorted, without slashes; nothing where there is no folder."""
    if not _is_s3(folder):
        names = tf.io.gfile.listdir(folder) if tf.io.gfile.exists(folder) else []
        return sorted(name.rstrip("/") for name in names)
    with _s3(folder) as store:
        try:
            found = store.ls(folder, detail=False)
        except FileNotFoundError as error:
            response = getattr(error.__cause__, "response", {})
            if response.get("Error", {}).get("Code") == "NoSuchBucket":
                raise
            return []
    inside = _relative(folder, found)
    return sorted(name for name in inside if name)


def read(address: str) -> bytes:
    """The content of a file."""
    if not _is_s3(address):
        with tf.io.gfile.GFile(address, "rb") as file:
            return bytes(file.read())
    with _s3(address) as store:
        return bytes(store.cat_file(address))


def size(address: str) -> int:
    """Of a file, bytes."""
    if not _is_s3(address):
        return int(tf.io.gfile.stat(address).length)
    with _s3(address) as store:
        return int(store.size(address))


def modified(address: str) -> float:
    """When a file was last written, seconds since 1970."""
    if not _is_s3(address):
        return float(tf.io.gfile.stat(address).mtime_nsec) / 1e9
    with _s3(address) as store:
        return float(store.modified(address).timestamp())


def open_binary(address: str) -> BinaryIO:
    """A file to read from; from an S3 store, all of it."""
    if _is_s3(address):
        return io.BytesIO(read(address))
    stream: BinaryIO = tf.io.gfile.GFile(address, "rb")
    return stream


def write(address: str, content: bytes) -> None:
    """Makes or replaces a file, and the folders it is in."""
    if _is_s3(address):
        with _s3(address) as store:
            store.pipe_file(address, content)
        return
    folder, name = os.path.split(address)
    tf.io.gfile.makedirs(folder)
    # A store shows an object when it is whole; a disk shows a file while it grows.
    place = address if "://" in address else os.path.join(folder, f"partial-{name}")
    with tf.io.gfile.GFile(place, "wb") as file:
        file.write(content)
    if place != address:
        tf.io.gfile.rename(place, address, overwrite=True)


def remove(address: str) -> None:
    """Removes a file or a folder with all that is in it, if it is there."""
    if _is_s3(address):
        with _s3(address) as store:
            if store.exists(address):
                store.rm(address, recursive=True)
    elif tf.io.gfile.isdir(address):
        tf.io.gfile.rmtree(address)
    elif tf.io.gfile.exists(address):
        tf.io.gfile.remove(address)


@contextlib.contextmanager
def local_copy(folder: str) -> Iterator[str]:
    """A folder with the same files that TensorFlow can read: the same one where it can."""
    if not _is_s3(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as copy:
        with _s3(folder) as store:
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
      folder: where they go.
      last: the file that is there only if all the others are; on a disk, whoever writes sees to it.
    """
    if not _is_s3(folder):
        tf.io.gfile.makedirs(folder)
        yield folder
        return
    with tempfile.TemporaryDirectory() as staging:
        yield staging
        paths = [
            os.path.relpath(os.path.join(place, name), staging)
            for place, _, names in os.walk(staging)
            for name in names
        ]
        with _s3(folder) as store:
            for path in sorted(paths, key=lambda path: (path == last, path)):
                store.put_file(os.path.join(staging, path), f"{folder}/{path}")


def _is_s3(address: str) -> bool:
    return address.startswith("s3://")


def _relative(folder: str, found: list[str]) -> list[str]:
    prefix = folder.removeprefix("s3://").rstrip("/")
    return [path.removeprefix(prefix).strip("/") for path in found]


@contextlib.contextmanager
def _s3(address: str) -> Iterator[Any]:
    """The store; turns what botocore raises into an OSError that names the address."""
    import botocore.exceptions
    import s3fs

    given = {option: os.environ.get(variable) for option, variable in _OPTIONS.items()}
    options = {option: value for option, value in given.items() if value}
    try:
        # Others write there too, so nothing that was listed may be taken to be so still.
        yield s3fs.S3FileSystem(use_listings_cache=False, config_kwargs=_CONFIG, **options)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise OSError(f"{address}: {error}") from error
