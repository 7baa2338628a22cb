"""The hold-out of a span that has no files of its own to evaluate on."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mnist import idx
from mnist.digits import Digits
from mnist.spans import resolve_span
from mnist.splits import EVAL, TRAIN, SplitError, load_splits

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


def test_the_fingerprint_follows_pixels_labels_and_order(digits: tuple) -> None:
    images, labels = digits[0][:10], digits[1][:10]
    fingerprint = Digits(images, labels).fingerprint()
    assert fingerprint == Digits(images.copy(), labels.copy()).fingerprint()
    others = [
        Digits(images[::-1].copy(), labels),
        Digits(images, (labels + 1) % 10),
        Digits(images[:9], labels[:9]),
    ]
    assert len({fingerprint, *(other.fingerprint() for other in others)}) == 4
