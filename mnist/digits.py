"""The digits of a span: scanned once, and then read by rows.

A scan hashes and checks each file and keeps nine bytes a digit, so that a span of any size fits in
memory. A process that looks whether a span is complete keeps its scan, so that ingestion in the
same process does not scan the files again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnist import idx
from mnist.spans import SpanError, join_digests

_KEY_TYPE = "<u8"
_kept: dict[tuple[str, ...], "tuple[Pair, ...]"] = {}  # by fingerprint and paths


@dataclass(frozen=True)
class Digits:
    """Images and their labels.

    Attributes:
        images: uint8 [n, 28, 28].
        labels: uint8 [n], 0..9.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Pair:
    """A file of images, the file of their labels, and what a scan keeps of both.

    Attributes:
        images_path: Path or URI of the IDX file of images.
        labels_path: Path or URI of the IDX file of labels.
        labels: uint8 [n], 0..9.
        keys: uint64 [n], see `image_keys`.
    """

    images_path: str
    labels_path: str
    labels: np.ndarray
    keys: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


class Fingerprint:
    """Digests digits in order, however they are divided into chunks and packed into files."""

    def __init__(self) -> None:
        self._keys, self._labels = hashlib.sha256(), hashlib.sha256()

    def add(self, keys: np.ndarray, labels: np.ndarray) -> None:
        """Adds digits: keys as `image_keys` gives them, uint64 [n], and labels, uint8 [n]."""
        self._keys.update(np.ascontiguousarray(keys).data)
        self._labels.update(np.ascontiguousarray(labels).data)

    def hexdigest(self) -> str:
        """SHA-256 of all digits so far, as 64 hexadecimal digits."""
        return hashlib.sha256(self._keys.digest() + self._labels.digest()).hexdigest()


def image_keys(images: np.ndarray) -> np.ndarray:
    """A number per image, uint64 [n], the same for the same pixels.

    Of 70,000 images two that differ share a number once in 7.5e9 times (n^2 / 2^65), of 10 million
    once in 370,000 times.
    """
    digests = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), _KEY_TYPE)


def scan(paths: Sequence[str], fingerprint: str = "") -> tuple[Pair, ...]:
    """Reads pairs of IDX files from beginning to end, or takes what `keep_scan` kept.

    Args:
        paths: Images and labels in turn, as `SpanFiles.paths` gives them.
        fingerprint: What `fingerprint_files` returned for the files; "" to take them as they are.

    Raises:
        IdxError: A file is not what it should be.
        SpanError: The files have another fingerprint by now.
    """
    kept = _kept.get((fingerprint, *paths))
    if kept:
        return kept
    digests = [hashlib.sha256() for _ in paths]
    pairs = []
    for row in range(0, len(paths), 2):
        watches = (digests[row].update, digests[row + 1].update)
        pairs.append(_scan_pair(paths[row], paths[row + 1], *watches))
    found = join_digests(paths, [digest.hexdigest() for digest in digests])
    if fingerprint and found != fingerprint:
        raise changed_while_read(paths[0])
    return tuple(pairs)


def _scan_pair(
    images_path: str, labels_path: str, watch_images: idx.Watch, watch_labels: idx.Watch
) -> Pair:
    # The labels first: theirs is the smaller file, so a mistake there is seen soonest.
    labels = idx.read_labels(labels_path, watch_labels)
    keys = bytearray()
    for images in idx.image_chunks(images_path, watch_images):
        keys += image_keys(images).tobytes()
    found = np.frombuffer(keys, _KEY_TYPE)
    idx.check_counts(images_path, len(found), labels_path, len(labels))
    return Pair(images_path, labels_path, labels, found)


def changed_while_read(where: str) -> SpanError:
    """The error of files that are no longer what they were when the run began."""
    return SpanError(
        "this file or one that belongs to it was changed while the run read it",
        where,
        "run again when the files are complete",
    )


def keep_scan(paths: Sequence[str], fingerprint: str) -> None:
    """Scans pairs of IDX files and keeps the result for `scan`; raises as it does."""
    _kept[(fingerprint, *paths)] = scan(paths, fingerprint)


def forget_scans() -> None:
    """Frees what `keep_scan` kept."""
    _kept.clear()
