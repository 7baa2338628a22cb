"""Intervals from half-samples (Politis and Romano 1994), the same halves for all that is compared.

A bootstrap with replacement repeats rows, which biases every figure that looks at pairs or at
covariances. Half of n rows drawn without replacement repeats none, and what is computed from it
varies as much from draw to draw as what is computed from n fresh rows.
"""

from typing import NamedTuple

import numpy as np

NORMAL_95 = 1.96


class Interval(NamedTuple):
    """A central 95 % interval."""

    low: float
    high: float


def half_samples(strata: np.ndarray, resamples: int, seed: int) -> list[np.ndarray]:
    """Draws half of the rows of each stratum, rounded down, several times.

    Args:
      strata: int [n], what was fixed when the rows were made and so must not vary: the digits
        asked for. All equal where nothing was.
      resamples: how many draws, 2 or more.
      seed: of the draws.

    Returns:
      Rows int [about n / 2] in rising order, one array per draw.

    Raises:
      ValueError: when no stratum has two rows.
    """
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    if max(map(len, members), default=0) < 2:
        raise ValueError("half-samples need a stratum of two rows or more")
    random = np.random.default_rng(seed)
    return [
        np.sort(np.concatenate([random.permutation(rows)[: len(rows) // 2] for rows in members]))
        for _ in range(resamples)
    ]


def interval_of(value: float, draws: np.ndarray) -> Interval:
    """The interval around a figure, from its values [resamples] on half-samples.

    Only their spread is used: the mean of a biased figure lies elsewhere on half as many rows. As a
    multiple of the standard deviation it needs fewer draws than their outer quantiles would.
    """
    half = NORMAL_95 * float(np.std(draws, ddof=1))
    return Interval(value - half, value + half)
