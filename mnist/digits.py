"""The digits of a span in memory: each file is opened and parsed once, and hashed as it is read.

A process that looks whether a span is complete keeps the digits that it read, so that ingestion in
the same process reads no file again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnist.idx import read_pair
from mnist.spans import SpanError, join_digests

_kept: dict[str, "tuple[Digits, ...]"] = {}


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

    def fingerprint(self) -> str:
        """SHA-256 of pixels and labels, the same however the files were packed."""
        digest = hashlib.sha256(str(len(self)).encode())
        digest.update(self.images.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


def read_digits(paths: Sequence[str], fingerprint: str = "") -> tuple[Digits, ...]:
    """Reads pairs of IDX files, or takes what `keep_digits` kept.

    Args:
        paths: Images and labels in turn, as `SpanFiles.paths` gives them.
        fingerprint: What `fingerprint_files` returned for the files; "" to take them as they are.

    Returns:
        The digits of each pair.

    Raises:
        IdxError: A file is not what it should be.
        SpanError: The files have another fingerprint by now.
    """
    if fingerprint in _kept:
        return _kept[fingerprint]
    digests = [hashlib.sha256() for _ in paths]
    pairs = []
    for row in range(0, len(paths), 2):
        watches = (digests[row].update, digests[row + 1].update)
        pairs.append(Digits(*read_pair(paths[row], paths[row + 1], *watches)))
    found = join_digests(paths, [digest.hexdigest() for digest in digests])
    if fingerprint and found != fingerprint:
        raise SpanError(
            "this file or one that belongs to it was changed while the run read it",
            paths[0],
            "run again when the files are complete",
        )
    return tuple(pairs)


def keep_digits(paths: Sequence[str], fingerprint: str) -> None:
    """Reads pairs of IDX files and keeps them in memory for `read_digits`; raises as it does."""
    _kept[fingerprint] = read_digits(paths, fingerprint)


def forget_digits() -> None:
    """Frees what `keep_digits` kept."""
    _kept.clear()
