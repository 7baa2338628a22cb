"""Reading and writing the IDX files in which MNIST is published.

An IDX file is a header and then the raw values, row by row. The header is two zero bytes, one byte
for the type of the values (8: unsigned bytes), one byte for the number of dimensions, and each
dimension as a big-endian uint32. Source: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of
handwritten digits", http://yann.lecun.com/exdb/mnist/, section "File formats for the MNIST
database".

A reader returns values or raises `IdxError`, whatever the file holds. It reads images in chunks, so
that a file of any size takes a few MB of memory, and only after it knows that the file can hold as
many as its header claims.
"""

import contextlib
import gzip
import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

import storage
from errors import UserError
from mnist import files

Uint8Array = npt.NDArray[np.uint8]
Watch = Callable[[bytes], object]
"""Called with a file's bytes as they are read, from the first to the last if the file is good."""

IMAGE_SHAPE = (28, 28)
MAX_LABEL = 9
MAX_ITEMS = 10_000_000
"""More items than this in one file are refused: 160 times the size of MNIST, 7.84 GB of pixels."""

_GZIP_MAGIC = b"\x1f\x8b"
_DEFLATE_MAX_RATIO = 1032  # zlib's technical notes, https://zlib.net/zlib_tech.html
_UINT8_CODE = 8
_CHUNK_BYTES = 1 << 20
_CHUNK_ITEMS = 4096  # 3.2 MB of images
_FETCH_AGAIN = "replace it with a complete copy of the original file"


class IdxError(UserError):
    """A file cannot be used as IDX; `where` is its path."""


class _Layout(NamedTuple):
    """What the items of a file are, and the shape of each."""

    noun: str
    item_shape: tuple[int, ...]

    @property
    def item_bytes(self) -> int:
        return math.prod(self.item_shape)

    @property
    def header_bytes(self) -> int:
        return 4 + 4 * (1 + len(self.item_shape))


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def seek(self, place: int, /) -> int: ...


class _Watched:
    """A stream that calls a function with what is read from it."""

    def __init__(self, stream: _Readable, watch: Watch) -> None:
        self._stream = stream
        self._watch = watch

    def read(self, size: int, /) -> bytes:
        chunk = self._stream.read(size)
        self._watch(chunk)
        return chunk

    def seek(self, place: int, /) -> int:
        raise io.UnsupportedOperation(f"seek to {place}: what is read again would be watched twice")


_IMAGES = _Layout("images", IMAGE_SHAPE)
_LABELS = _Layout("labels", ())


def read_images(path: str) -> Uint8Array:
    """Reads an IDX file of 28x28 images, gzip-compressed or plain.

    Compression is recognized by the file's first two bytes (1f 8b), not by its name.

    Args:
        path: A local path, or an address with "://" that `storage` can open.

    Returns:
        uint8 [n, 28, 28], n >= 1, each pixel in [0, 255], 0 the background.

    Raises:
        IdxError: The file cannot be read, or is anything other than such images.
    """
    return np.concatenate(list(image_chunks(path)))


def image_chunks(path: str, watch: Watch | None = None) -> Iterator[Uint8Array]:
    """Reads an IDX file of images as `read_images` does, at most 4,096 images at a time.

    Args:
        path: A local path, or an address with "://" that `storage` can open.
        watch: Called with the file's bytes, as they lie there, while they are read: a digest's
            `update`, say, so that the file need not be read twice.

    Yields:
        uint8 [n, 28, 28], n >= 1.

    Raises:
        IdxError: The file cannot be read, or is anything other than such images.
    """
    with _opened(path, _IMAGES, watch) as (stream, count):
        yield from _chunks(stream, path, _IMAGES, range(count))
        _check_end(stream, path, _IMAGES, count)


def read_labels(path: str, watch: Watch | None = None) -> Uint8Array:
    """Reads an IDX file of digit labels, gzip-compressed or plain.

    Args:
        path: A local path, or an address with "://" that `storage` can open.
        watch: As for `image_chunks`.

    Returns:
        uint8 [n], n >= 1, each label in [0, 9].

    Raises:
        IdxError: The file cannot be read, is anything other than labels, or holds a label above 9.
    """
    with _opened(path, _LABELS, watch) as (stream, count):
        labels = np.concatenate(list(_chunks(stream, path, _LABELS, range(count))))
        _check_end(stream, path, _LABELS, count)
    above = labels > MAX_LABEL
    if above.any():
        row = int(above.argmax())
        _fail(
            path,
            f"label {labels[row]} in row {row} (rows count from 0) is not a digit",
            f"every label in 0..{MAX_LABEL}",
            f"{int(above.sum()):,} of {len(labels):,} labels are too large: correct or remove "
            "those rows, here and in the file of images",
        )
    return labels


def read_rows(
    images_path: str, labels_path: str, rows: range
) -> Iterator[tuple[Uint8Array, Uint8Array]]:
    """Reads some images and their labels, at most 4,096 at a time, and no byte of other rows.

    A compressed file is read from its beginning.

    Args:
        images_path: The IDX file of images.
        labels_path: The IDX file of labels.
        rows: Consecutive rows, counted from 0.

    Yields:
        Images, uint8 [n, 28, 28], and labels, uint8 [n], n >= 1.

    Raises:
        IdxError: A file cannot be read, or does not hold these rows.
    """
    with (
        _opened(images_path, _IMAGES) as (images, _),
        _opened(labels_path, _LABELS) as (labels, _),
    ):
        yield from zip(
            _chunks(images, images_path, _IMAGES, rows),
            _chunks(labels, labels_path, _LABELS, rows),
            strict=True,
        )


def check_counts(images_path: str, images: int, labels_path: str, labels: int) -> None:
    """Raises IdxError unless there is one label for each image."""
    if images != labels:
        _fail(
            images_path,
            f"{images:,} images, but {labels:,} labels in {labels_path}",
            "one label for each image",
            "take both files from the same data set and the same split",
        )


def is_compressed(path: str) -> bool:
    """Whether a file begins as gzip does; raises IdxError if it cannot be read."""
    with open_binary(path) as (stream, _):
        return stream.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC


def unpacked_chunks(path: str) -> Iterator[bytes]:
    """Reads what a gzip file holds, at most 1 MB at a time; raises IdxError if it is damaged."""
    with (
        open_binary(path) as (raw, _),
        _gzip_errors(path),
        gzip.GzipFile(fileobj=raw, mode="rb") as stream,
    ):
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def write_images(path: str, images: Uint8Array) -> None:
    """Writes images as a plain IDX file; the same images always give the same bytes.

    Args:
        path: A local path. The file appears there complete or not at all.
        images: uint8 [n, 28, 28], n >= 1.

    Raises:
        IdxError: The array has another type or shape.
        OSError: The file cannot be written.
    """
    _write(path, images, _IMAGES)


def write_labels(path: str, labels: Uint8Array) -> None:
    """Writes labels as a plain IDX file; the same labels always give the same bytes.

    Args:
        path: A local path. The file appears there complete or not at all.
        labels: uint8 [n], n >= 1, each in [0, 9].

    Raises:
        IdxError: The array has another type or shape, or a label is above 9.
        OSError: The file cannot be written.
    """
    if labels.size and labels.max() > MAX_LABEL:
        _fail(path, f"a label is {labels.max()}", f"0..{MAX_LABEL}", "nothing was written")
    _write(path, labels, _LABELS)


@contextlib.contextmanager
def open_binary(path: str) -> Iterator[tuple[BinaryIO, int]]:
    """Opens a regular file for reading.

    Yields:
        The stream, which has `read(n)` and `seek(0)`, and the file's size in bytes.

    Raises:
        IdxError: The file is missing, is a folder or a device, may not be read, or fails while it
            is read.
    """
    try:
        with files.open_binary(path) as opened:
            yield opened
    except OSError as error:
        wrong, remedy = _explain(error)
        raise _error(path, wrong, "a file that can be read", remedy) from error


def _error(path: str, wrong: str, expected: str, remedy: str) -> IdxError:
    return IdxError(f"{wrong}, expected {expected}", path, remedy)


def _fail(path: str, wrong: str, expected: str, remedy: str) -> NoReturn:
    raise _error(path, wrong, expected, remedy)


def _explain(error: OSError) -> tuple[str, str]:
    """What an error of the file system means, and what to do about it."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return "there is no such file", "check the path and that the copy is complete"
        case IsADirectoryError():
            return "this is a folder, not a file", "move the file itself there"
        case PermissionError():
            return "this user may not read the file", "give this user read permission (chmod a+r)"
        case _:
            return f"the file cannot be read ({error})", "check the path and the storage it lies on"


@contextlib.contextmanager
def _opened(
    path: str, layout: _Layout, watch: Watch | None = None
) -> Iterator[tuple[_Readable, int]]:
    """The values of a file as a stream after its header, and how many items the header claims."""
    with open_binary(path) as (raw, size):
        zipped = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        raw.seek(0)
        stream = _Watched(raw, watch) if watch else raw
        if not zipped:
            yield stream, _read_count(stream, path, layout, size)
            return
        with _gzip_errors(path), gzip.GzipFile(fileobj=stream, mode="rb") as unzipped:
            yield unzipped, _read_count(unzipped, path, layout, size * _DEFLATE_MAX_RATIO)


@contextlib.contextmanager
def _gzip_errors(path: str) -> Iterator[None]:
    try:
        yield
    except EOFError as error:
        wrong = "the gzip data end too early: the file was cut short"
        raise _error(path, wrong, "a complete gzip file", _FETCH_AGAIN) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        wrong = f"the gzip data are corrupt ({error})"
        raise _error(path, wrong, "an undamaged gzip file", _FETCH_AGAIN) from error


def _chunks(stream: _Readable, path: str, layout: _Layout, rows: range) -> Iterator[Uint8Array]:
    """Reads rows of a stream that stands after its header."""
    if rows.start:
        stream.seek(layout.header_bytes + rows.start * layout.item_bytes)
    for first in range(rows.start, rows.stop, _CHUNK_ITEMS):
        wanted = min(_CHUNK_ITEMS, rows.stop - first) * layout.item_bytes
        content = stream.read(wanted)
        if len(content) < wanted:
            wrong = (
                f"{_claim(layout, rows.stop)}, but only "
                f"{first * layout.item_bytes + len(content):,} follow: the file was cut short"
            )
            _fail(path, wrong, "all that the header claims", _FETCH_AGAIN)
        yield np.frombuffer(content, np.uint8).reshape(-1, *layout.item_shape)


def _check_end(stream: _Readable, path: str, layout: _Layout, count: int) -> None:
    if stream.read(1):
        wrong = f"{_claim(layout, count)}, and more bytes follow after those"
        _fail(path, wrong, "nothing after the last value", _FETCH_AGAIN)


def _claim(layout: _Layout, count: int) -> str:
    return f"the header claims {count:,} {layout.noun}, {count * layout.item_bytes:,} bytes"


def _read_count(stream: _Readable, path: str, layout: _Layout, most_bytes: int) -> int:
    """Checks the header of a stream of at most `most_bytes`; returns the number of items."""
    header = stream.read(layout.header_bytes)
    _check_magic(header[:4], path, layout)
    if len(header) < layout.header_bytes:
        wrong = f"the file ends inside its header, after {len(header)} bytes"
        _fail(path, wrong, f"a header of {layout.header_bytes} bytes", _FETCH_AGAIN)
    count, *item_shape = struct.unpack(f">{1 + len(layout.item_shape)}I", header[4:])
    if tuple(item_shape) != layout.item_shape:
        found, expected = ("x".join(map(str, shape)) for shape in (item_shape, layout.item_shape))
        remedy = "resize the images: only MNIST's own size is supported"
        _fail(path, f"the images are {found} pixels", f"{expected} pixels", remedy)
    if count == 0:
        _fail(path, f"the file holds no {layout.noun}", "at least one", _FETCH_AGAIN)
    if count > MAX_ITEMS:
        remedy = "split the data into spans, or replace the file if it should be smaller"
        _fail(path, f"the header claims {count:,} {layout.noun}", f"at most {MAX_ITEMS:,}", remedy)
    most_values = most_bytes - layout.header_bytes
    if count * layout.item_bytes > most_values:
        wrong = f"{_claim(layout, count)}, but a file of its size can hold at most {most_values:,}"
        _fail(path, wrong, "all that the header claims", _FETCH_AGAIN)
    return int(count)


def _check_magic(magic: bytes, path: str, layout: _Layout) -> None:
    dimensions = 1 + len(layout.item_shape)
    expected = f"00 00 08 {dimensions:02x}, an IDX file of {layout.noun}"
    if not magic:
        _fail(path, "the file is empty", expected, _FETCH_AGAIN)
    if magic[:2] != b"\0\0"[: len(magic)]:
        wrong = f"this is not an IDX file: it starts with {magic.hex(' ')} (wrong magic number)"
        _fail(path, wrong, expected, "name the right file, or download it again")
    if len(magic) < 4:
        wrong = f"the file ends inside its header, after {len(magic)} bytes"
        _fail(path, wrong, expected, _FETCH_AGAIN)
    if magic[2] != _UINT8_CODE:
        wrong = f"the values have the IDX type code {magic[2]:02x}"
        _fail(path, wrong, f"{_UINT8_CODE:02x} (unsigned bytes)", "convert the values to uint8")
    if magic[3] != dimensions:
        wrong = f"the values have {magic[3]} dimension(s), which {layout.noun} do not"
        _fail(path, wrong, str(dimensions), "check that images and labels are not swapped")


def _write(path: str, values: Uint8Array, layout: _Layout) -> None:
    expected_shape = (values.size // layout.item_bytes, *layout.item_shape)
    if values.dtype != np.uint8 or values.shape != expected_shape or not values.size:
        wrong = f"cannot write {values.dtype} {list(values.shape)} as {layout.noun}"
        expected = f"uint8, one or more {layout.noun}, each of shape {list(layout.item_shape)}"
        _fail(path, wrong, expected, "nothing was written")
    header = struct.pack(f">4B{values.ndim}I", 0, 0, _UINT8_CODE, values.ndim, *values.shape)
    with storage.atomic_file(path) as stream:
        stream.write(header)
        stream.write(np.ascontiguousarray(values).data)
