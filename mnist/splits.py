"""The splits of a run: train and eval of one span or several, and a fixed test split."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from errors import UserError
from mnist.digits import Digits, read_digits
from mnist.spans import SpanFiles
from mnist.windows import Window

TRAIN, EVAL, TEST = "train", "eval", "test"
CLASSES = 10
NEAR_EMPTY_SHARE = 0.01
"""A class with a smaller share of a span's digits is near-empty; MNIST's rarest has 0.09."""


class SplitError(UserError):
    """A split would be empty.

    Attributes:
        span: The span at fault; None where it may be another.
    """

    span: int | None = None


@dataclass(frozen=True)
class SpanCounts:
    """What a span brings to a window.

    Attributes:
        span: Its number.
        train: Digits in the train split, without the dropped ones.
        eval: Digits in the eval split.
        dropped: Training digits whose very pixels are in an eval or test split, or in an earlier
            span's train split.
        labels: Digits of each class, 0..9, train and eval together.
    """

    span: int
    train: int
    eval: int
    dropped: int
    labels: tuple[int, ...]

    def near_empty(self) -> list[int]:
        """The classes with less than `NEAR_EMPTY_SHARE` of the digits."""
        return [d for d, n in enumerate(self.labels) if n < NEAR_EMPTY_SHARE * sum(self.labels)]


@dataclass(frozen=True)
class Joined:
    """The splits of a window, rows in the order of the spans, and what each span brought."""

    splits: dict[str, Digits]
    counts: tuple[SpanCounts, ...]


@functools.lru_cache(maxsize=1)
def join_spans(window: Window, eval_share: float) -> Joined:
    """Reads the digits of a window; keeps the last one, since several shards are written from it.

    Args:
        window: The spans, and the fixed test split where there is one.
        eval_share: 0..1, of the train files of a span without eval files, held out.

    Returns:
        `train`, `eval` and, where there are such files, `test`. An image that is held out anywhere
        is in no train split, and an image of an earlier span is not there again.

    Raises:
        IdxError: A file is not what it should be.
        SpanError: A file has changed since the window was resolved.
        SplitError: A split would be empty.
    """
    parts = [
        load_splits(files, eval_share, state.fingerprint)
        for files, state in zip(window.files, window.spans, strict=True)
    ]
    splits = {EVAL: _concatenate([part[EVAL] for part in parts])}
    if window.test:
        [splits[TEST]] = read_digits(window.test.paths, window.test.fingerprint)
    seen = np.concatenate([image_keys(digits.images) for digits in splits.values()])
    kept: list[Digits] = []
    counts = []
    for state, part in zip(window.spans, parts, strict=True):
        keys = image_keys(part[TRAIN].images)
        fresh = ~np.isin(keys, seen)
        seen = np.concatenate([seen, keys])
        kept.append(Digits(part[TRAIN].images[fresh], part[TRAIN].labels[fresh]))
        labels = np.concatenate([kept[-1].labels, part[EVAL].labels])
        counts.append(
            SpanCounts(
                span=state.span,
                train=len(kept[-1]),
                eval=len(part[EVAL]),
                dropped=int((~fresh).sum()),
                labels=tuple(np.bincount(labels, minlength=CLASSES).tolist()),
            )
        )
    splits = {TRAIN: _concatenate(kept)} | splits
    if not len(splits[TRAIN]):
        error = SplitError(
            "no digit is left to train on: each is in an eval or test split too",
            fix="check that the t10k- files are not copies of the train- files",
        )
        error.span = None if window.test else window.newest
        raise error
    return Joined(splits, tuple(counts))


def load_splits(files: SpanFiles, eval_share: float, fingerprint: str = "") -> dict[str, Digits]:
    """Reads a span.

    Where the span has no eval files, a digit is held out by a hash of its pixels, so that copies
    of one digit never end up on both sides.

    Args:
        files: The files of the span.
        eval_share: 0..1, of the train files to hold out when there are no eval files.
        fingerprint: What the files must have, as `content_fingerprint` gives it; "" for any.

    Returns:
        The train and the eval split.

    Raises:
        IdxError: A file is not what it should be.
        SpanError: The files have another fingerprint.
        SplitError: A split would be empty.
    """
    train, *held_out_files = read_digits(files.paths, fingerprint)
    if held_out_files:
        return {TRAIN: train, EVAL: held_out_files[0]}
    held_out = image_keys(train.images) / 2.0**64 < eval_share
    if held_out.all() or not held_out.any():
        error = SplitError(
            f"span {files.span} has {len(train)} digits and no t10k- files, and holding out "
            f"{eval_share:.0%} of the digits leaves a split empty",
            files.directory,
            "add the t10k- files or change data.eval_share",
        )
        error.span = files.span
        raise error
    return {
        TRAIN: Digits(train.images[~held_out], train.labels[~held_out]),
        EVAL: Digits(train.images[held_out], train.labels[held_out]),
    }


def image_keys(images: np.ndarray) -> np.ndarray:
    """A number per image, uint64 [n], the same for the same pixels.

    Of 70,000 images two that differ share a number once in 7.5e9 times (n^2 / 2^65).
    """
    digests = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), dtype="<u8")


def _concatenate(parts: Sequence[Digits]) -> Digits:
    if len(parts) == 1:
        return parts[0]
    return Digits(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
