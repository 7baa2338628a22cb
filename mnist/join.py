"""The digits of several spans joined into one train and one eval split, and a fixed test split."""

import functools
from dataclasses import dataclass

import numpy as np

from mnist.idx import read_pair
from mnist.spans import SpanFiles
from mnist.splits import (
    EVAL,
    TRAIN,
    Digits,
    SplitError,
    load_splits,
    picture_keys,
)

TEST = "test"
CLASSES = 10
NEAR_EMPTY_SHARE = 0.01
"""A class with a smaller share of a span's digits is near-empty; MNIST's rarest has 0.09."""


@dataclass(frozen=True)
class SpanCounts:
    """What a span brings to a window.

    Attributes:
      span: its number.
      train: digits in the train split, without those that were dropped.
      eval: digits in the eval split.
      dropped: training digits whose very pixels are in an eval or test split, or in an earlier
        span's train split.
      labels: digits of each class, 0..9, train and eval together.
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
def join_spans(
    spans: tuple[SpanFiles, ...], test: tuple[str, str] | None, eval_share: float
) -> Joined:
    """Reads a window; keeps the last one, since several shards are written from it.

    Args:
      spans: ascending, one or more.
      test: paths of images and labels of the fixed test split.
      eval_share: 0..1, of the train files of a span without eval files, held out.

    Returns:
      `train`, `eval` and, where there are such files, `test`. A picture that is held out anywhere
      is in no train split, and a picture of an earlier span is not there again.

    Raises:
      IdxError: when a file is not what it should be.
      SplitError: when a split would be empty.
    """
    parts = [load_splits(files, eval_share) for files in spans]
    splits = {EVAL: _concatenate([part[EVAL] for part in parts])}
    if test:
        splits[TEST] = Digits(*read_pair(*test))
    seen = np.concatenate([picture_keys(digits.images) for digits in splits.values()])
    kept: list[Digits] = []
    counts = []
    for files, part in zip(spans, parts, strict=True):
        keys = picture_keys(part[TRAIN].images)
        fresh = ~np.isin(keys, seen)
        seen = np.concatenate([seen, keys])
        kept.append(Digits(part[TRAIN].images[fresh], part[TRAIN].labels[fresh]))
        labels = np.bincount(
            np.concatenate([kept[-1].labels, part[EVAL].labels]), minlength=CLASSES
        )
        counts.append(
            SpanCounts(
                files.span,
                len(kept[-1]),
                len(part[EVAL]),
                int((~fresh).sum()),
                tuple(labels.tolist()),
            )
        )
    splits = {TRAIN: _concatenate(kept)} | splits
    if not len(splits[TRAIN]):
        raise SplitError(
            "no digit is left to train on: each is in an eval or test split too. Check that the "
            "t10k- files are not copies of the train- files.",
            None if test else spans[-1].span,
        )
    return Joined(splits, tuple(counts))


def _concatenate(parts: list[Digits]) -> Digits:
    if len(parts) == 1:
        return parts[0]
    return Digits(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
