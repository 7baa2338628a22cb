"""The kernel distance between two sets of features (KID; Binkowski et al. 2018)."""

from typing import NamedTuple

import numpy as np

_SUBSET = 1000


class KernelDistance(NamedTuple):
    """The distance and what each row adds to it.

    Attributes:
      value: unbiased, and so also below 0 by chance.
      influence: float64 [n], of each generated row; its mean is `value`. The mean over some of the
        rows is the distance of those, up to terms that go as the inverse of their number.
    """

    value: float
    influence: np.ndarray


def kernel_distance(generated: np.ndarray, real: np.ndarray, *, seed: int) -> KernelDistance:
    """The squared maximum mean discrepancy with the kernel (x y / d + 1)^3, unbiased.

    The mean over subsets, as printed: the generated rows in blocks of about 1000, so that each
    is used once, and as many real rows drawn for each.

    Args:
      generated: [n, d], n of 2 or more.
      real: [m, d], m of 2 or more.
      seed: of the choice of real rows.
    """
    random = np.random.default_rng(seed)
    count = max(len(generated) // min(_SUBSET, len(real)), 1)
    parts = np.array_split(np.arange(len(generated)), count)
    values, influence = [], np.empty(len(generated))
    for rows in parts:
        chosen = random.permutation(len(real))[: len(rows)]
        value, influence[rows] = _subset(
            generated[rows].astype(np.float64), real[chosen].astype(np.float64)
        )
        values.append(value)
    value = float(np.average(values, weights=[len(rows) for rows in parts]))
    return KernelDistance(value, influence + value - influence.mean())


def _subset(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """The discrepancy of x [n, d] and y [m, d], and what each row of x adds to it."""
    within = _off_diagonal_sums(x) / (len(x) - 1)
    across = _kernel(x, y).mean(axis=1)
    other = _off_diagonal_sums(y).mean() / (len(y) - 1)
    return float(within.mean() + other - 2 * across.mean()), 2 * (within - across)


def _off_diagonal_sums(x: np.ndarray) -> np.ndarray:
    kernel = _kernel(x, x)
    return kernel.sum(axis=1) - np.diagonal(kernel)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    products = x @ y.T / x.shape[1] + 1.0
    return products * products * products
