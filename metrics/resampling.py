"""Confidence intervals from half-samples (Politis and Romano 1994).

A bootstrap with replacement repeats rows, which biases metrics of pairs and of covariances. Half of
n rows drawn without replacement repeats none, and its metric varies from draw to draw as much as
the metric of n fresh rows.
"""

from typing import NamedTuple

import numpy as np

_NORMAL_95 = 1.96


class Interval(NamedTuple):
    """A central 95 % confidence interval."""

    low: float
    high: float


class Estimate(NamedTuple):
    """The value of a metric, and its 95 % interval; None if there is no interval."""

    value: float
    interval: Interval | None


def half_samples(strata: np.ndarray, resamples: int, seed: int) -> list[np.ndarray]:
    """Draws half of the rows of each stratum, rounded down, several times.

    Args:
      strata: int [n], what was fixed when the rows were generated and must not vary, such as the
        labels; all equal if nothing was fixed.
      resamples: number of draws, 2 or more.
      seed: seed of the draws.

    Returns:
      One array of rows int [about n / 2] per draw, in rising order.

    Raises:
      ValueError: If no stratum has two rows.
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
    """Returns the interval around a metric, given its values on half-samples.

    Only the spread of the draws is used: on half as many rows the mean of a biased metric lies
    elsewhere. A multiple of their standard deviation needs fewer draws than their outer quantiles.

    Args:
      value: the metric on all rows.
      draws: float [resamples], 2 or more.
    """
    half = _NORMAL_95 * float(np.std(draws, ddof=1))
    return Interval(value - half, value + half)
