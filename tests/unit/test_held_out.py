"""Judging by held-out digits: the same figures as the metrics', collapse, patience, the split."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.frechet import frechet_distance
from models.gan.held_out import HeldOut, Judgement, Patience, split_held_out

EVENLY = (0.1,) * 10
PROJECTION = np.random.default_rng(0).normal(size=(784, 16)) / 784


def extract(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stands in for the classifier: features that are linear in the pixels."""
    features = (images.reshape(len(images), 784) @ PROJECTION).astype(np.float32)
    return features, features[:, :10]


def pictures(count: int, seed: int, scale: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, scale, (count, 28, 28, 1), np.uint8)


def test_a_judgement_is_that_of_the_metrics() -> None:
    real, drawn = pictures(60, 1), pictures(40, 2, scale=200)
    asked = np.arange(40) % 10
    held_out = HeldOut(real, np.arange(60) % 7, extract)
    found = held_out.judge(drawn, asked)
    (real_features, _), (features, logits) = extract(real), extract(drawn)
    np.testing.assert_array_equal(held_out.labels, np.arange(60) % 7)
    assert found.fid == pytest.approx(frechet_distance(features, real_features))
    spread = features.var(axis=0, ddof=1).sum() / real_features.var(axis=0, ddof=1).sum()
    assert found.spread == pytest.approx(spread, rel=1e-5)
    seen = logits.argmax(axis=1)
    assert found.shares == tuple(float(np.mean(seen == digit)) for digit in range(10))
    assert found.agreement == np.mean(seen == asked)
    assert type(found.fid) is type(found.spread) is type(found.agreement) is float


def test_the_held_out_digits_themselves_are_perfect() -> None:
    real = pictures(50, 1)
    found = HeldOut(real, np.zeros(50, int), extract).judge(real, np.zeros(50, int))
    assert found.fid == pytest.approx(0, abs=1e-6)
    assert found.spread == pytest.approx(1)


def test_one_picture_again_and_again_is_a_collapse() -> None:
    real = pictures(50, 1)
    held_out = HeldOut(real, np.zeros(50, int), extract)
    found = held_out.judge(np.repeat(real[:1], 50, axis=0), np.zeros(50, int))
    assert found.spread == pytest.approx(0, abs=1e-6)
    assert found.collapse


@pytest.mark.parametrize(
    ("shares", "spread", "expected"),
    [
        (EVENLY, 1.0, None),
        (EVENLY, 0.25, None),
        ((0.01,) * 9 + (0.91,), 1.0, None),
        ((0.0, 0.2, 0.009, 0.191) + (0.1,) * 6, 1.0, "it does not draw 0, 2"),
        ((0.0,) * 9 + (1.0,), 0.01, "it does not draw 0, 1, 2, 3, 4, 5, 6, 7, 8"),
        (EVENLY, 0.2, "its digits vary 20% as much as real ones"),
    ],
)
def test_collapse_says_how(shares: tuple[float, ...], spread: float, expected: str | None) -> None:
    assert Judgement(3.0, spread, shares, 0.9, 0.03).collapse == expected


@given(st.integers(4, 3000), st.floats(0.01, 0.5), st.integers(0, 2**31 - 1))
def test_the_split_is_disjoint_whole_and_the_seeds(count: int, share: float, seed: int) -> None:
    trained, held_out = split_held_out(count, share, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([trained, held_out])), np.arange(count))
    assert len(held_out) == max(round(count * share), 2)
    assert np.all(np.diff(trained) > 0)
    assert np.all(np.diff(held_out) > 0)
    for first, again in zip((trained, held_out), split_held_out(count, share, seed), strict=True):
        np.testing.assert_array_equal(first, again)


def test_other_seeds_hold_out_other_digits_from_all_over() -> None:
    splits = [split_held_out(1000, 0.1, seed)[1] for seed in range(5)]
    for a, b in itertools.combinations(splits, 2):
        assert len(np.intersect1d(a, b)) < 30  # ten are expected by chance
    assert 400 < np.mean(splits) < 600


FIDS = st.lists(st.integers(0, 6).map(float), max_size=20)


@given(FIDS, st.integers(1, 5))
def test_patience_ends_when_the_best_is_as_long_ago(fids: list[float], limit: int) -> None:
    patience, unlimited = Patience(limit), Patience(None)
    best, since = float("inf"), 0
    for fid in fids:
        is_best = patience.is_best(fid)
        assert unlimited.is_best(fid) == is_best == (fid <= best)
        # An equal one is kept, as the later of the two, but is no improvement.
        since = 0 if fid < best else since + 1
        best = min(best, fid)
        assert patience.exhausted == (since >= limit)
    assert patience.fids == fids
    assert not unlimited.exhausted
    assert not Patience(limit).exhausted


@given(FIDS, FIDS, st.integers(1, 5))
def test_patience_taken_up_is_patience_kept(
    before: list[float], after: list[float], limit: int
) -> None:
    whole, first = Patience(limit), Patience(limit)
    for fid in before:
        assert whole.is_best(fid) == first.is_best(fid)
    second = Patience(limit, first.fids)
    for fid in after:
        assert whole.is_best(fid) == second.is_best(fid)
        assert whole.exhausted == second.exhausted
    assert first.fids == before
