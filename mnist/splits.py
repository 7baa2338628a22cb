"""The digits of one span as train and eval split."""

import hashlib
from dataclasses import dataclass

import numpy as np

from mnist.idx import read_pair
from mnist.spans import SpanFiles

TRAIN, EVAL = "train", "eval"


class SplitError(ValueError):
    """A split would be empty.

    Attributes:
      span: which is at fault; None where it may be another.
    """

    def __init__(self, message: str, span: int | None = None) -> None:
        super().__init__(message)
        self.span = span


@dataclass(frozen=True)
class Digits:
    """Pictures and their labels.

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


def load_splits(files: SpanFiles, eval_share: float) -> dict[str, Digits]:
    """Reads a span.

    Where the span has no eval files, a digit is held out by a hash of its pixels, so that copies
    of one digit never end up on both sides.

    Args:
      files: of the span.
      eval_share: 0..1, of the train files to hold out when there are no eval files.

    Returns:
      The train and the eval split.

    Raises:
      IdxError: when a file is not what it should be.
      SplitError: when a split would be empty.
    """
    train = Digits(*read_pair(files.train_images, files.train_labels))
    if files.eval_images is not None and files.eval_labels is not None:
        return {TRAIN: train, EVAL: Digits(*read_pair(files.eval_images, files.eval_labels))}
    held_out = _shares(train.images) < eval_share
    if held_out.all() or not held_out.any():
        raise SplitError(
            f"span {files.span} in {files.directory} has {len(train)} digits and no t10k- files; "
            f"holding out {eval_share:.0%} of them leaves a split empty. Add the t10k- files or "
            "change data.eval_share.",
            files.span,
        )
    return {
        TRAIN: Digits(train.images[~held_out], train.labels[~held_out]),
        EVAL: Digits(train.images[held_out], train.labels[held_out]),
    }


def _shares(images: np.ndarray) -> np.ndarray:
    """A number in [0, 1) a picture that follows from its pixels alone."""
    return picture_keys(images) / 2.0**64


def picture_keys(images: np.ndarray) -> np.ndarray:
    """A number per picture, uint64 [n], the same for the same pixels.

    Of 70,000 pictures two that differ share a number once in 7.5e9 times (n^2 / 2^65).
    """
    digests = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), dtype="<u8")
