"""Which files of a data folder make up a span.

A span is one portion of data, in TFX's sense: the day's, the week's. Two layouts are read.

* A folder that holds the IDX files themselves is span 1.
* In a folder with `span-<N>` folders, N from 0, each of them is span N and holds its IDX files.

A pair of `t10k-` files beside span folders is the fixed test split, the same for every span.
Training files there are refused, for nothing says which of the two are meant. So is a file that is
there twice, plain and as `.gz` or under both spellings of its name.
"""

import errno
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mnist import idx

_SPAN_FOLDER = re.compile(r"span-([0-9]{1,9})")
_ROLES = ("train-images", "train-labels", "t10k-images", "t10k-labels")
_SUFFIXES = {"images": "idx3-ubyte", "labels": "idx1-ubyte"}
MARKER = "_SUCCESS"
_LISTED_NAMES = 12
_CHUNK_BYTES = 1 << 20
_EXPECTED_FILES = (
    "Expected train-images-idx3-ubyte and train-labels-idx1-ubyte, and optionally "
    "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each plain or as .gz"
)


class SpanError(ValueError):
    """A data folder does not hold the span asked for; the message says what it does hold."""


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
        """Two or four paths, the training pair first."""
        paths = (self.train_images, self.train_labels, self.eval_images, self.eval_labels)
        return tuple(path for path in paths if path is not None)


def list_spans(data_dir: str) -> dict[int, str]:
    """Lists the spans of a data folder, without looking into the `span-<N>` folders.

    Args:
        data_dir: A local folder, or an address with "://" that TensorFlow's file system can list.

    Returns:
        The folder of each span by its number, in ascending order; never empty.

    Raises:
        SpanError: The folder is missing or unreadable, holds no span, holds training files beside
            span folders, or holds two folders of the same number (`span-1` and `span-01`).
    """
    entries = _entries(data_dir)
    flat = sorted(set(entries) & _all_names())
    training = [name for name in flat if name.startswith("train-")]
    folders = sorted(name for name in entries if _SPAN_FOLDER.fullmatch(name) and entries[name])
    if training and folders:
        raise SpanError(
            f"{data_dir!r} holds both training files ({_some(training)}) and span folders "
            f"({_some(folders)}), so which are meant is unclear. Move the files into a span folder "
            "of their own."
        )
    if flat and not folders:
        return {1: data_dir}
    if not folders:
        raise SpanError(
            f"{data_dir!r} holds no MNIST data. {_EXPECTED_FILES}; or folders named span-<N> with "
            f"such files. Found: {_some(sorted(entries))}."
        )
    return _by_number(data_dir, folders)


def find_test_files(data_dir: str) -> tuple[str, str] | None:
    """Finds the fixed test split: a pair of `t10k-` files beside span folders.

    Returns:
        The paths of its images and labels; None where there is none, as in a folder that is span 1.

    Raises:
        SpanError: One of the pair is missing, or a file is there twice.
    """
    entries = _entries(data_dir)
    images, labels = (_find(data_dir, entries, role) for role in _ROLES[2:])
    if list_spans(data_dir) == {1: data_dir} or (images is None and labels is None):
        return None
    if images is None or labels is None:
        raise _missing(data_dir, entries, "t10k-images" if images is None else "t10k-labels")
    return images, labels


def resolve_span(data_dir: str, span: int | None) -> SpanFiles:
    """Finds the files of a span by their names alone, without reading them.

    Which spans a run may use, `windows.py` says.

    Args:
        data_dir: As for `list_spans`.
        span: The span's number, or None for the largest there is.

    Returns:
        Paths inside `data_dir`; the eval pair is None where the span has no `t10k-` files.

    Raises:
        SpanError: As for `list_spans`; or there is no such span, a training file is missing, one of
            the eval pair is missing, or a file is there twice.
    """
    spans = list_spans(data_dir)
    number = max(spans) if span is None else span
    if number not in spans:
        raise SpanError(
            f"{data_dir!r} has no span {number}. Expected one of: {_some(list(map(str, spans)))}."
        )
    return find_files(number, spans[number])


def find_files(number: int, directory: str) -> SpanFiles:
    """Finds the files in the folder of a span; raises SpanError as `resolve_span` does."""
    entries = _entries(directory)
    train_images, train_labels, eval_images, eval_labels = (
        _find(directory, entries, role) for role in _ROLES
    )
    if train_images is None or train_labels is None:
        raise _missing(
            directory, entries, "train-images" if train_images is None else "train-labels"
        )
    if (eval_images is None) != (eval_labels is None):
        raise _missing(directory, entries, "t10k-images" if eval_images is None else "t10k-labels")
    return SpanFiles(number, directory, train_images, train_labels, eval_images, eval_labels)


def content_fingerprint(files: SpanFiles) -> str:
    """Digests the span's files as they lie on disk, so that changed data are seen.

    Neither the folder's path nor the span's number counts: the same files elsewhere give the same
    fingerprint. The same digits compressed in another way give another one.

    Args:
        files: The files of a span.

    Returns:
        SHA-256 over name, size and raw bytes of each file, as 64 hexadecimal digits.

    Raises:
        mnist.idx.IdxError: A file cannot be read.
    """
    return fingerprint_files(files.paths)


def fingerprint_files(paths: Sequence[str]) -> str:
    """Digests files in order; see `content_fingerprint`."""
    digest = hashlib.sha256()
    for path in paths:
        with idx.open_binary(path) as (stream, size):
            digest.update(f"{os.path.basename(path)}\0{size}\0".encode(errors="surrogateescape"))
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def has_marker(directory: str) -> bool:
    """Whether `_SUCCESS` in the folder says that whoever wrote it is done."""
    return MARKER in _entries(directory)


def _names(role: str) -> list[str]:
    """Every name under which a file may lie, such as those of "train-images"."""
    suffix = _SUFFIXES[role.split("-")[1]]
    return [f"{role}{mark}{suffix}{end}" for mark in "-." for end in ("", ".gz")]


def _all_names() -> set[str]:
    return {name for role in _ROLES for name in _names(role)}


def _entries(directory: str) -> dict[str, bool]:
    """What lies in a folder: for each name, whether it is a folder itself."""
    if "://" in directory:
        return _remote_entries(directory)
    try:
        with os.scandir(directory) as entries:
            return {entry.name: entry.is_dir() for entry in entries}
    except (OSError, ValueError) as error:
        raise _unreadable(directory, error) from error


def _remote_entries(directory: str) -> dict[str, bool]:
    import tensorflow as tf

    from models import storage

    try:
        names = set(storage.names_in(directory))
        if not names and not storage.is_folder(directory):
            raise FileNotFoundError(errno.ENOENT, "there is no such folder")
        known = {name for name in names if name in _all_names() or _SPAN_FOLDER.fullmatch(name)}
        folders = {name for name in known if storage.is_folder(_join(directory, name))}
    except (OSError, UnicodeError, tf.errors.OpError) as error:
        raise _unreadable(directory, error) from error
    return {name: name in folders for name in names}


def _unreadable(directory: str, error: Exception) -> SpanError:
    reason = getattr(error, "strerror", None) or str(error)
    return SpanError(
        f"{directory!r} cannot be listed ({reason}). Expected a folder with MNIST's files. Check "
        "the path and who may read it."
    )


def _by_number(data_dir: str, folders: Sequence[str]) -> dict[int, str]:
    spans: dict[int, str] = {}
    for name in sorted(folders, key=_number):
        if _number(name) in spans:
            raise SpanError(
                f"{data_dir!r} has two folders for span {_number(name)}: "
                f"{os.path.basename(spans[_number(name)])} and {name}. Expected one: rename the "
                "other."
            )
        spans[_number(name)] = _join(data_dir, name)
    return spans


def _number(folder: str) -> int:
    return int(folder.removeprefix("span-"))


def _find(directory: str, entries: dict[str, bool], role: str) -> str | None:
    """The path of a role's file, or None; a folder of that name counts only if no file has one."""
    present = [name for name in _names(role) if name in entries]
    present = [name for name in present if not entries[name]] or present
    if len(present) > 1:
        raise SpanError(
            f"{directory!r} holds the {role} more than once: {_some(present)}. Expected one: "
            "remove the others."
        )
    return _join(directory, present[0]) if present else None


def _missing(directory: str, entries: dict[str, bool], role: str) -> SpanError:
    return SpanError(
        f"{directory!r} lacks {_names(role)[0]}, plain or as .gz. {_EXPECTED_FILES} (both of a "
        f"pair or neither). Found: {_some(sorted(entries))}."
    )


def _join(directory: str, name: str) -> str:
    return (
        f"{directory.rstrip('/')}/{name}" if "://" in directory else os.path.join(directory, name)
    )


def _some(names: Sequence[str]) -> str:
    """Names for a message: the first few, and how many more there are."""
    if not names:
        return "nothing"
    more = len(names) - _LISTED_NAMES
    return ", ".join(names[:_LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")
