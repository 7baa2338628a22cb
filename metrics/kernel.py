"""The kernel distance between two sets of features (KID; Binkowski et al. 2018)."""

from typing import NamedTuple

import numpy as np

_SUBSET = 1000


class KernelDistance(NamedTuple):
    """The kernel distance, and the contribution of each generated row.

    Attributes:
      value: unbiased, and therefore below 0 by chance for equal distributions.
      influence: float64 [n]. Its mean is `value`, and its mean over some of the rows is the
        distance of those rows up to terms of the order of one over their number.
    """

    value: float
    influence: np.ndarray


def kernel_distance(generated: np.ndarray, real: np.ndarray, *, seed: int) -> KernelDistance:
    """Returns the unbiased squared maximum mean discrepancy with the kernel (x y / d + 1)^3.

    As in Binkowski et al. 2018 the value is a mean over subsets of about 1000 rows. Each generated
    row is in one subset, and each subset is compared with as many real rows, drawn at random.

    Args:
      generated: [n, d], n of 2 or more.
      real: [m, d], m of 2 or more.
      seed: seed of the choice of real rows.
    """
    random = np.random.default_rng(seed)
    count = max(len(generated) // min(_SUBSET, len(real)), 1)
    subsets = np.array_split(np.arange(len(generated)), count)
    values, influence = [], np.empty(len(generated))
    for rows in subsets:
        chosen = random.permutation(len(real))[: len(rows)]
        value, influence[rows] = _subset_distance(
            generated[rows].astype(np.float64), real[chosen].astype(np.float64)
        )
        values.append(value)
    value = float(np.average(values, weights=[len(rows) for rows in subsets]))
    return KernelDistance(value, influence + value - influence.mean())


def _subset_distance(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the distance of x [n, d] and y [m, d], and the contribution of each row of x."""
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
