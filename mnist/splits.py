"""The splits of a run: train and eval of one span or several, and a fixed test split.

Which rows of the files belong to a split is decided once, from the scans of the files. What reads
or writes digits gets a `Shard`, which names its rows and reads no others.
"""

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from errors import UserError
from mnist import idx
from mnist.digits import Digits, Fingerprint, Pair, changed_while_read, image_keys, scan
from mnist.spans import SpanFiles
from mnist.windows import Window

TRAIN, EVAL, TEST = "train", "eval", "test"
CLASSES = 10
_BLOCK = 1 << 20  # rows; what is derived from so many takes a few MB
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
class _RowRange:
    """Rows of a pair of files: `start` to `stop`, of which the bits of `kept` choose."""

    images_path: str
    labels_path: str
    start: int
    stop: int
    kept: bytes

    def chunks(self) -> Iterator[Digits]:
        bits = np.frombuffer(self.kept, np.uint8)
        kept = np.unpackbits(bits, count=self.stop - self.start).astype(bool)
        rows = range(self.start, self.stop)
        first = 0
        for images, labels in idx.read_rows(self.images_path, self.labels_path, rows):
            chosen = kept[first : first + len(labels)]
            first += len(labels)
            if chosen.any():
                yield Digits(images[chosen], labels[chosen])


@dataclass(frozen=True)
class Shard:
    """Consecutive rows of a split, for a worker on any machine: a bit for each row of the files.

    Attributes:
        ranges: Where the rows are, in order.
        fingerprint: What the digits have to have, as `Split.fingerprint` gives it.
        data_dir: Which folder the error names if they have another one.
    """

    ranges: tuple[_RowRange, ...]
    fingerprint: str
    data_dir: str

    def chunks(self) -> Iterator[Digits]:
        """Reads the digits, at most 4,096 at a time.

        Raises:
            IdxError: A file cannot be read.
            SpanError: The digits are not those that were decided on. All have been yielded by then.
        """
        found = Fingerprint()
        for part in self.ranges:
            for digits in part.chunks():
                found.add(image_keys(digits.images), digits.labels)
                yield digits
        if found.hexdigest() != self.fingerprint:
            raise changed_while_read(self.data_dir)


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of a split, in the order of the spans and of their files.

    Attributes:
        parts: Pairs of files, each with the rows that belong to the split, bool [n].
    """

    parts: tuple[tuple[Pair, np.ndarray], ...]

    def __len__(self) -> int:
        return sum(int(kept.sum()) for _, kept in self.parts)

    @property
    def keys(self) -> np.ndarray:
        """The key of each digit, uint64 [n]; see `image_keys`."""
        return np.concatenate([keys for keys, _ in self._blocks()])

    def label_counts(self) -> np.ndarray:
        """How many digits each class has, int64 [10]."""
        counts = [np.bincount(labels, minlength=CLASSES) for _, labels in self._blocks()]
        return np.sum(counts, axis=0)

    def fingerprint(self) -> str:
        """SHA-256 of pixels and labels, the same however the files were packed."""
        found = Fingerprint()
        for keys, labels in self._blocks():
            found.add(keys, labels)
        return found.hexdigest()

    def _blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Keys and labels, in order."""
        for pair, kept in self.parts:
            for rows in _slices(len(pair)):
                yield pair.keys[rows][kept[rows]], pair.labels[rows][kept[rows]]

    def shard(
        self, rows: range, data_dir: str = "", copies: Mapping[str, str] | None = None
    ) -> Shard:
        """The digits in these places of the split, counted from 0.

        Args:
            rows: Consecutive places.
            data_dir: See `Shard`.
            copies: Paths to read in place of paths of the files.
        """
        ranges = []
        found = Fingerprint()
        first = 0  # the place of a pair's first digit
        for pair, kept in self.parts:
            count = int(kept.sum())
            inside = range(max(rows.start - first, 0), min(rows.stop - first, count))
            first += count
            if inside:
                start, stop = _row_of(kept, inside[0]), _row_of(kept, inside[-1]) + 1
                chosen = kept[start:stop]
                paths = [(copies or {}).get(p, p) for p in (pair.images_path, pair.labels_path)]
                bits = np.packbits(chosen).tobytes()
                ranges.append(_RowRange(paths[0], paths[1], start, stop, bits))
                found.add(pair.keys[start:stop][chosen], pair.labels[start:stop][chosen])
        return Shard(tuple(ranges), found.hexdigest(), data_dir)

    def read(self) -> Digits:
        """Reads all digits into memory; raises as `Shard.chunks` does."""
        chunks = list(self.shard(range(len(self))).chunks())
        return Digits(
            np.concatenate([chunk.images for chunk in chunks]),
            np.concatenate([chunk.labels for chunk in chunks]),
        )


@dataclass(frozen=True)
class Joined:
    """The splits of a window, rows in the order of the spans, and what each span brought."""

    splits: dict[str, Split]
    counts: tuple[SpanCounts, ...]


def join_spans(window: Window, eval_share: float) -> Joined:
    """Scans the files of a window, and decides which rows belong to which split.

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
        _split(scan(files.paths, state.fingerprint), files, eval_share)
        for files, state in zip(window.files, window.spans, strict=True)
    ]
    splits = {EVAL: _join([part[EVAL] for part in parts])}
    if window.test:
        [test] = scan(window.test.paths, window.test.fingerprint)
        splits[TEST] = _all_of(test)
    seen = np.sort(np.concatenate([split.keys for split in splits.values()]))
    kept: list[Split] = []
    counts = []
    for state, part in zip(window.spans, parts, strict=True):
        [(pair, rows)] = part[TRAIN].parts
        fresh = rows & ~_is_in(pair.keys, seen)
        kept.append(Split(((pair, fresh),)))
        if state is not window.spans[-1]:
            seen = np.sort(np.concatenate([seen, pair.keys[rows]]))
        labels = kept[-1].label_counts() + part[EVAL].label_counts()
        counts.append(
            SpanCounts(
                span=state.span,
                train=len(kept[-1]),
                eval=len(part[EVAL]),
                dropped=len(part[TRAIN]) - len(kept[-1]),
                labels=tuple(labels.tolist()),
            )
        )
    splits = {TRAIN: _join(kept)} | splits
    if not len(splits[TRAIN]):
        error = SplitError(
            "no digit is left to train on: each is in an eval or test split too",
            fix="check that the t10k- files are not copies of the train- files",
        )
        error.span = None if window.test else window.newest
        raise error
    return Joined(splits, tuple(counts))


def load_splits(files: SpanFiles, eval_share: float) -> dict[str, Digits]:
    """Reads a span into memory.

    Args:
        files: The files of the span.
        eval_share: 0..1, of the train files to hold out when there are no eval files.

    Returns:
        The train and the eval split.

    Raises:
        IdxError: A file is not what it should be.
        SplitError: A split would be empty.
    """
    splits = _split(scan(files.paths), files, eval_share)
    return {name: split.read() for name, split in splits.items()}


def _split(pairs: Sequence[Pair], files: SpanFiles, eval_share: float) -> dict[str, Split]:
    """The train and the eval split of a span.

    Where the span has no eval files, a digit is held out by a hash of its pixels, so that copies
    of one digit never end up on both sides.
    """
    train, *held_out_files = pairs
    if held_out_files:
        return {TRAIN: _all_of(train), EVAL: _all_of(held_out_files[0])}
    blocks = [train.keys[rows] / 2.0**64 < eval_share for rows in _slices(len(train))]
    held_out = np.concatenate(blocks)
    if held_out.all() or not held_out.any():
        error = SplitError(
            f"span {files.span} has {len(train)} digits and no t10k- files, and holding out "
            f"{eval_share:.0%} of the digits leaves a split empty",
            files.directory,
            "add the t10k- files or change data.eval_share",
        )
        error.span = files.span
        raise error
    return {TRAIN: Split(((train, ~held_out),)), EVAL: Split(((train, held_out),))}


def _all_of(pair: Pair) -> Split:
    return Split(((pair, np.ones(len(pair), bool)),))


def _join(splits: Sequence[Split]) -> Split:
    return Split(tuple(part for split in splits for part in split.parts))


def _is_in(keys: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Which of the keys are among others; in far less memory than `np.isin`."""
    found = np.empty(len(keys), bool)
    for rows in _slices(len(keys)):
        places = np.searchsorted(ascending, keys[rows])
        found[rows] = ascending[np.minimum(places, len(ascending) - 1)] == keys[rows]
    return found


def _row_of(kept: np.ndarray, place: int) -> int:
    """The row of the digit in a place, counted from 0, among those that are kept."""

    def kept_until(row: int) -> int:
        return int(np.count_nonzero(kept[: row + 1]))

    return bisect.bisect_left(range(len(kept)), place + 1, key=kept_until)


def _slices(count: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]
