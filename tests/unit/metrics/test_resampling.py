"""Half-samples and intervals against what they stand for: independent draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.frechet import frechet_distance
from metrics.resampling import half_samples, interval_of


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), max_size=6).map(lambda sizes: [2, *sizes]),
    seed=st.integers(0, 2**32 - 1),
)
def test_half_of_each_stratum_and_no_row_twice(sizes: list[int], seed: int) -> None:
    strata = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    for rows in half_samples(strata, 3, seed):
        assert (np.diff(rows) > 0).all()
        counts = np.bincount(strata[rows], minlength=len(sizes))
        assert counts.tolist() == [size // 2 for size in sizes]


def test_draws_follow_their_seed() -> None:
    strata = np.zeros(100, int)
    first, same, other = (half_samples(strata, 4, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (np.array(first) != np.array(other)).any()
    assert (first[0] != first[1]).any()


@pytest.mark.parametrize("strata", [[], [0], [0, 1, 2]])
def test_strata_of_one_are_refused(strata: list[int]) -> None:
    with pytest.raises(ValueError, match="two rows or more"):
        half_samples(np.array(strata), 2, 0)


def test_the_interval_by_hand() -> None:
    low, high = interval_of(10.0, np.array([1.0, 3.0]))
    assert (low, high) == (
        pytest.approx(10 - 1.96 * np.sqrt(2)),
        pytest.approx(10 + 1.96 * np.sqrt(2)),
    )


def sets(random: np.random.Generator, count: int) -> list[np.ndarray]:
    """Sets of 500 rows in two clusters, as many rows of each, as of labels that are given."""
    centers = np.repeat([[0.0, 0, 0], [6.0, 0, 0]], 250, axis=0)
    return [centers + random.normal(1.0, 1.5, size=(500, 3)) for _ in range(count)]


def test_an_interval_has_the_width_of_fresh_draws() -> None:
    """Of the Frechet distance; the strata matter, since rows of each were not drawn by chance."""
    random = np.random.default_rng(6)
    [real] = sets(random, 1)
    spread = np.std([frechet_distance(x, real) for x in sets(random, 300)])
    widths = {"strata": [], "none": []}
    for x in sets(random, 10):
        for name, strata in (("strata", np.arange(500) // 250), ("none", np.zeros(500, int))):
            halves = half_samples(strata, 100, 0)
            draws = np.array([frechet_distance(x[rows], real) for rows in halves])
            low, high = interval_of(0.0, draws)
            widths[name].append((high - low) / (2 * 1.96))
    assert np.mean(widths["strata"]) == pytest.approx(spread, rel=0.2)
    assert np.mean(widths["none"]) > 1.3 * spread
