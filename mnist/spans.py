"""Which files of a data folder make up a span.

A span is one portion of data, in TFX's sense: the day's, the week's. Three layouts are read.

* A folder that holds the IDX files themselves is span 1.
* A folder in which torchvision keeps MNIST (`raw/` or `MNIST/raw/` holds the IDX files) is span 1.
* In a folder with `span-<N>` folders, N from 0 to 2^63 - 1, each is span N and holds its
  IDX files.

A pair of `t10k-` files beside span folders is the fixed test split, the same for every span.
Training files there are refused, for nothing says which of the two are meant. So is a file that is
there under two spellings of its name, and one beside a `.gz` with another content.
"""

import hashlib
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from errors import UserError
from mnist import files, idx

MARKER = "_SUCCESS"
MAX_SPAN = 2**63 - 1  # TFX records a span as int64
_SPAN_FOLDER = re.compile(r"span-([0-9]{1,19})")
_INNER_FOLDERS = ("MNIST", "raw")
_ROLES = ("train-images", "train-labels", "t10k-images", "t10k-labels")
_PREFIXES = {"train": ("train",), "t10k": ("t10k", "test")}
_SUFFIXES = {"images": "idx3-ubyte", "labels": "idx1-ubyte"}
_LISTED_NAMES = 12
_CHUNK_BYTES = 1 << 20
_GZIP_TRAILER_BYTES = 8
_EXPECTED_FILES = (
    "train-images-idx3-ubyte and train-labels-idx1-ubyte, and optionally "
    "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each plain or as .gz"
)


class SpanError(UserError):
    """A data folder does not hold the requested span; the message says what it does hold."""


@dataclass(frozen=True)
class SpanFiles:
    """The files of one span. `eval_images` and `eval_labels` are both paths or both None."""

    span: int
    directory: str
    train_images: str
    train_labels: str
    eval_images: str | None
    eval_labels: str | None

    @property
    def paths(self) -> tuple[str, ...]:
        """Two or four paths, the training pair first, images before labels."""
        paths = (self.train_images, self.train_labels, self.eval_images, self.eval_labels)
        return tuple(path for path in paths if path is not None)


@dataclass(frozen=True)
class DataFolder:
    """The spans of a data folder.

    Attributes:
        spans: The folder of each span by its number, in ascending order; never empty.
        is_flat: Whether the data folder holds the IDX files themselves, which are then span 1.
        misnamed: Names that begin as a span's folder does, and are no span; sorted.
    """

    spans: dict[int, str]
    is_flat: bool
    misnamed: tuple[str, ...] = ()

    def notice(self) -> str:
        """A sentence on the misnamed folders; "" where there are none."""
        if not self.misnamed:
            return ""
        return (
            f"{_some(self.misnamed)}: no span. Expected a folder named span-<N>, N a whole number "
            f"of at most {MAX_SPAN}"
        )


def open_folder(data_dir: str) -> DataFolder:
    """Finds the spans of a data folder, without looking into the `span-<N>` folders.

    Args:
        data_dir: A local folder, or an address with "://" that `storage` can list.

    Raises:
        SpanError: The folder is missing or unreadable, holds no span, holds training files beside
            span folders, or holds two folders of the same number (`span-1` and `span-01`).
    """
    entries = _entries(data_dir)
    flat = sorted(set(entries) & _ALL_NAMES)
    training = [name for name in flat if name.startswith("train")]
    folders = sorted(name for name in entries if entries[name] and _number(name) is not None)
    if training and folders:
        raise SpanError(
            f"the folder holds both training files ({_some(training)}) and span folders "
            f"({_some(folders)}), so which are meant is unclear",
            data_dir,
            "move the files into a span folder of their own",
        )
    if flat and not folders:
        return DataFolder({1: data_dir}, is_flat=True)
    if not folders:
        inner = _inner_folder(data_dir, entries)
        if inner is None:
            raise SpanError(
                f"the folder holds no MNIST data; found: {_some(sorted(entries))}",
                data_dir,
                f"put there {_EXPECTED_FILES}; or folders named span-<N>, N a whole number, with "
                "such files",
            )
        return DataFolder({1: inner}, is_flat=True)
    misnamed = {name for name in entries if name.lower().startswith("span")} - set(folders)
    return DataFolder(_by_number(data_dir, folders), False, tuple(sorted(misnamed)))


def list_spans(data_dir: str) -> dict[int, str]:
    """The folder of each span by its number, in ascending order; see `open_folder`."""
    return open_folder(data_dir).spans


def find_test_files(data_dir: str) -> tuple[str, str] | None:
    """Finds the fixed test split: a pair of `t10k-` files beside span folders.

    Returns:
        The paths of its images and labels; None where there is none, as in a folder that is span 1.

    Raises:
        SpanError: One of the pair is missing, or a file is there twice.
    """
    if open_folder(data_dir).is_flat:
        return None
    return _find_pair(data_dir, _entries(data_dir), "t10k")


def resolve_span(data_dir: str, span: int | None) -> SpanFiles:
    """Finds the files of a span by their names.

    Which spans a run may use, `windows.py` says.

    Args:
        data_dir: A local folder, or an address with "://" that `storage` can list.
        span: The span's number, or None for the largest there is.

    Returns:
        Paths inside `data_dir`; the eval pair is None where the span has no `t10k-` files.

    Raises:
        SpanError: As for `open_folder` and `find_files`; or there is no such span.
    """
    spans = list_spans(data_dir)
    number = max(spans) if span is None else span
    if number not in spans:
        raise SpanError(
            f"the folder has no span {number}",
            data_dir,
            f"choose one of {_some(list(map(str, spans)))}",
        )
    return find_files(number, spans[number])


def find_files(number: int, directory: str) -> SpanFiles:
    """Finds the files in the folder of a span by their names.

    A file is read only where it lies there plain and as `.gz`: the plain one is taken if it is what
    the archive holds.

    Raises:
        SpanError: A training file is missing, one of the eval pair is missing, or a file is there
            twice.
    """
    entries = _entries(directory)
    train = _find_pair(directory, entries, "train")
    if train is None:
        raise _missing(directory, entries, "train-images")
    return SpanFiles(
        number, directory, *train, *(_find_pair(directory, entries, "t10k") or (None, None))
    )


def content_fingerprint(span_files: SpanFiles) -> str:
    """Digests the span's files as they lie on disk, so that changed data are seen.

    Neither the folder's path nor the span's number counts: the same files elsewhere give the same
    fingerprint. The same digits compressed in another way give another one.

    Args:
        span_files: The files of a span.

    Returns:
        SHA-256 over name and SHA-256 of each file, as 64 hexadecimal digits.

    Raises:
        mnist.idx.IdxError: A file cannot be read.
    """
    return fingerprint_files(span_files.paths)


def fingerprint_files(paths: Sequence[str]) -> str:
    """Digests files in order; see `content_fingerprint`."""
    return join_digests(paths, [_digest(path) for path in paths])


def join_digests(paths: Sequence[str], digests: Sequence[str]) -> str:
    """The fingerprint of files of which each has been digested by itself, as hexadecimal digits."""
    joined = hashlib.sha256()
    for path, digest in zip(paths, digests, strict=True):
        name = os.path.basename(path).encode(errors="surrogateescape")
        joined.update(name + b"\0" + digest.encode() + b"\0")
    return joined.hexdigest()


def has_marker(directory: str) -> bool:
    """Whether `_SUCCESS` in the folder says that whoever wrote it is done."""
    return MARKER in _entries(directory)


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with idx.open_binary(path) as (stream, _):
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _names(role: str) -> list[str]:
    """Every name under which a file may lie, such as those of "train-images"; plain before .gz."""
    split, values = role.split("-")
    return [
        f"{prefix}-{values}{mark}{_SUFFIXES[values]}{end}"
        for prefix in _PREFIXES[split]
        for mark in "-."
        for end in ("", ".gz")
    ]


_ALL_NAMES = frozenset(name for role in _ROLES for name in _names(role))


def _entries(directory: str) -> dict[str, bool]:
    """What lies in a folder: for each name, whether it is a folder itself."""
    try:
        return files.entries(directory, _matters)
    except OSError as error:
        raise SpanError(
            f"a folder with MNIST's files is expected, and cannot be listed: "
            f"{error.strerror or error}",
            directory,
            "check the path and who may read it",
        ) from error


def _matters(name: str) -> bool:
    return name in _ALL_NAMES or name in _INNER_FOLDERS or _number(name) is not None


def _inner_folder(
    folder: str, entries: dict[str, bool], names: Sequence[str] = _INNER_FOLDERS
) -> str | None:
    """The folder inside one of torchvision's that holds the IDX files; None where there is none."""
    for name in names:
        if entries.get(name):
            inner = os.path.join(folder, name)
            below = _entries(inner)
            if _ALL_NAMES & set(below):
                return inner
            return _inner_folder(inner, below, ("raw",)) if name == "MNIST" else None
    return None


def _number(folder: str) -> int | None:
    """The number of a span's folder; None for any other name."""
    found = _SPAN_FOLDER.fullmatch(folder)
    return int(found[1]) if found and int(found[1]) <= MAX_SPAN else None


def _by_number(data_dir: str, folders: Sequence[str]) -> dict[int, str]:
    spans: dict[int, str] = {}
    for number, name in sorted((_number(name) or 0, name) for name in folders):
        if number in spans:
            raise SpanError(
                f"the folder has two folders for span {number}: "
                f"{os.path.basename(spans[number])} and {name}",
                data_dir,
                "rename one",
            )
        spans[number] = os.path.join(data_dir, name)
    return spans


def _find_pair(directory: str, entries: dict[str, bool], split: str) -> tuple[str, str] | None:
    """The images and the labels of a split; None where both are missing."""
    images, labels = (_find(directory, entries, f"{split}-{values}") for values in _SUFFIXES)
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        raise _missing(directory, entries, f"{split}-{'images' if images is None else 'labels'}")
    return images, labels


def _find(directory: str, entries: dict[str, bool], role: str) -> str | None:
    """The path of a role's file, or None; a folder of that name counts only if no file has one."""
    present = [name for name in _names(role) if name in entries]
    present = [name for name in present if not entries[name]] or present
    paths = [os.path.join(directory, name) for name in present]
    if len(paths) == 2 and present[1] == f"{present[0]}.gz" and _is_unpacked(*paths):
        return paths[0]
    if len(present) > 1:
        raise SpanError(
            f"the folder holds the {role} more than once, and not as a .gz and what it holds: "
            f"{_some(present)}",
            directory,
            "remove all but one",
        )
    return paths[0] if paths else None


def _is_unpacked(plain: str, archive: str) -> bool:
    """Whether a file has the CRC-32 and the size with which a gzip file ends."""
    try:
        with files.open_binary(archive) as (stream, size):
            stream.seek(max(0, size - _GZIP_TRAILER_BYTES))
            trailer = stream.read(_GZIP_TRAILER_BYTES)
        with files.open_binary(plain) as (stream, size):
            checksum = 0
            while chunk := stream.read(_CHUNK_BYTES):
                checksum = zlib.crc32(chunk, checksum)
    except OSError:
        return False
    return trailer == checksum.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")


def _missing(directory: str, entries: dict[str, bool], role: str) -> SpanError:
    return SpanError(
        f"the folder lacks {_names(role)[0]}, plain or as .gz; found: {_some(sorted(entries))}",
        directory,
        f"put there {_EXPECTED_FILES} (both of a pair or neither)",
    )


def _some(names: Sequence[str]) -> str:
    """Names for a message: the first few, and how many more there are."""
    if not names:
        return "nothing"
    more = len(names) - _LISTED_NAMES
    return ", ".join(names[:_LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")
