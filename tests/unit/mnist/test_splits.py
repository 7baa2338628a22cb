"""Which digits belong to which split, and the shards in which they are read."""

import gzip
import pickle
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mnist import idx
from mnist.digits import Digits, forget_scans, image_keys
from mnist.spans import SpanError, resolve_span
from mnist.splits import EVAL, TRAIN, SplitError, join_spans, load_splits
from mnist.windows import resolve_window

PAIR = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")


def written(
    folder: Path, images: np.ndarray, labels: np.ndarray, share: float = 0.1
) -> dict[str, Digits]:
    """The splits of a span with train files only."""
    folder.mkdir(parents=True)
    idx.write_images(str(folder / PAIR[0]), images)
    idx.write_labels(str(folder / PAIR[1]), labels)
    return load_splits(resolve_span(str(folder), None), share)


def rows(digits: Digits) -> list[bytes]:
    pairs = zip(digits.images, digits.labels, strict=True)
    return [image.tobytes() + bytes([label]) for image, label in pairs]


@pytest.fixture(scope="module")
def noise() -> tuple[np.ndarray, np.ndarray]:
    """6,000 images, no two alike."""
    generator = np.random.default_rng(7)
    images = generator.integers(0, 256, (6000, 28, 28), dtype=np.uint8)
    return images, generator.integers(0, 10, 6000, dtype=np.uint8)


def test_every_digit_is_on_one_side(tmp_path: Path, noise: tuple[np.ndarray, np.ndarray]) -> None:
    splits = written(tmp_path / "a", *noise)
    train, held_out = rows(splits[TRAIN]), rows(splits[EVAL])
    assert not set(train) & set(held_out)
    assert Counter(train + held_out) == Counter(rows(Digits(*noise)))
    order = {row: place for place, row in enumerate(rows(Digits(*noise)))}
    for side in (train, held_out):
        places = [order[row] for row in side]
        assert places == sorted(places), "in the order of the files"


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_share_is_about_right(
    tmp_path: Path, noise: tuple[np.ndarray, np.ndarray], share: float
) -> None:
    splits = written(tmp_path / "a", *noise, share)
    deviation = (share * (1 - share) / 6000) ** 0.5
    assert abs(len(splits[EVAL]) / 6000 - share) < 4 * deviation


def test_the_choice_depends_on_the_digits_alone(
    tmp_path: Path, noise: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = noise
    order = np.random.default_rng(1).permutation(len(labels))
    first = written(tmp_path / "a", images, labels)
    shuffled = written(tmp_path / "b", images[order], labels[order])
    fewer = written(tmp_path / "c", images[:3000], labels[:3000])
    for side in (TRAIN, EVAL):
        assert Counter(rows(first[side])) == Counter(rows(shuffled[side]))
        assert set(rows(fewer[side])) <= set(rows(first[side]))


def test_the_choice_is_the_same_on_any_day(tmp_path: Path) -> None:
    """A change here moves digits between the sides of data that models were measured on."""
    greys = np.arange(256, dtype=np.uint8)
    images = np.tile(greys[:, np.newaxis, np.newaxis], (1, 28, 28))
    splits = written(tmp_path / "a", images, np.zeros(256, np.uint8), 0.05)
    assert splits[EVAL].images[:, 0, 0].tolist() == [
        30,
        50,
        84,
        120,
        158,
        183,
        184,
        190,
        209,
        223,
        253,
        254,
    ]


def test_copies_of_a_digit_stay_together(
    tmp_path: Path, noise: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = noise[0][:200], noise[1][:200]
    relabelled = (labels + 1) % 10
    splits = written(
        tmp_path / "a",
        np.concatenate([images, images[::-1], images]),
        np.concatenate([labels, labels[::-1], relabelled]),
        0.3,
    )
    sides = [Counter(image.tobytes() for image in split.images) for split in splits.values()]
    assert not set(sides[0]) & set(sides[1])
    assert set(sides[0].values()) == set(sides[1].values()) == {3}


def test_eval_files_are_taken_as_they_are(span_dir: Path, digits: tuple) -> None:
    splits = load_splits(resolve_span(str(span_dir), None), 0.5)
    assert rows(splits[TRAIN]) == rows(Digits(*digits))[:700]
    assert rows(splits[EVAL]) == rows(Digits(*digits))[700:]


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (5, 1e-6), (5, 1 - 1e-6)])
def test_too_few_to_divide(tmp_path: Path, digits: tuple, count: int, share: float) -> None:
    with pytest.raises(SplitError):
        written(tmp_path / "a", digits[0][:count], digits[1][:count], share)


@pytest.fixture
def two_spans(tmp_path: Path, digits: tuple, write_span) -> Path:
    """Span 1 with eval files; span 2 without, compressed, and with ten digits of span 1."""
    images, labels = digits
    write_span(tmp_path / "span-1", images[:300], labels[:300], train=200)
    rows = np.r_[300:500, 0:10, 500]
    write_span(tmp_path / "span-2", images[rows], labels[rows], train=210)
    for name in PAIR:
        path = tmp_path / "span-2" / name
        path.with_name(f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    for path in (tmp_path / "span-2").glob("t10k-*"):
        path.unlink()
    return tmp_path


@pytest.mark.parametrize("size", [1, 37, 200, 1000])
@pytest.mark.parametrize("name", [TRAIN, EVAL])
def test_shards_hold_the_digits_of_the_split_in_order(
    two_spans: Path, name: str, size: int
) -> None:
    split = join_spans(resolve_window(str(two_spans), window="all"), 0.3).splits[name]
    shards = [split.shard(range(start, start + size)) for start in range(0, len(split), size)]
    found = [
        row
        for shard in shards
        for digits in pickle.loads(pickle.dumps(shard)).chunks()
        for row in rows(digits)
    ]
    expected = split.read()
    assert found == rows(expected)
    assert split.label_counts().tolist() == np.bincount(expected.labels, minlength=10).tolist()
    np.testing.assert_array_equal(split.keys, image_keys(expected.images))


def test_a_shard_reads_its_own_rows_and_sees_a_change_of_them(
    tmp_path: Path, digits: tuple
) -> None:
    written(tmp_path / "a", digits[0][:100], digits[1][:100])
    split = join_spans(resolve_window(str(tmp_path / "a")), 0.1).splits[TRAIN]
    half = len(split) // 2
    ends = ((0, half), (half, len(split)))
    first, second = (split.shard(range(*end), "the folder") for end in ends)
    path = tmp_path / "a" / PAIR[0]
    content = path.read_bytes()
    path.write_bytes(content[: -10 * 784] + bytes(10 * 784))
    assert len(list(first.chunks())) == 1
    with pytest.raises(SpanError) as caught:
        list(second.chunks())
    assert caught.value.where == "the folder"


def test_a_shard_is_read_in_chunks(tmp_path: Path) -> None:
    """40,000 digits are 31 MB, and a chunk of 4,096 is 3."""
    images = np.random.default_rng(3).integers(0, 256, (40_000, 28, 28), np.uint8)
    (tmp_path / "a").mkdir()
    idx.write_images(str(tmp_path / "a" / PAIR[0]), images)
    idx.write_labels(str(tmp_path / "a" / PAIR[1]), np.zeros(40_000, np.uint8))
    del images
    tracemalloc.start()
    split = join_spans(resolve_window(str(tmp_path / "a")), 0.1).splits[TRAIN]
    assert sum(map(len, split.shard(range(len(split))).chunks())) == len(split)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    forget_scans()
    assert peak < 16 << 20
