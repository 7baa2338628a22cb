"""Overlap of generated and real features, each set's manifold being a union of k-NN balls.

Precision and recall follow Kynkaanniemi et al. 2019, density and coverage Naeem et al. 2020. A
point lies in a ball if it is nearer to the center than the radius, as in the `prdc` package, the
reference implementation of Naeem et al.
"""

from typing import NamedTuple

import numpy as np

from metrics.distances import distance_blocks, neighbor_distances

PRECISION_NEIGHBORS = 3
DENSITY_NEIGHBORS = 5


class RealManifold(NamedTuple):
    """Real features with the radii of their balls.

    Attributes:
      features: [m, d].
      radii: float64 [m, 2], the squared distances to neighbors 3 and 5.
    """

    features: np.ndarray
    radii: np.ndarray


class Overlap(NamedTuple):
    """Which of n generated rows lie in the balls of which of m real rows, and the reverse.

    Attributes:
      inside: bool [n], whether the generated row lies in some real ball.
      density: float64 [n], the number of real balls around the generated row, divided by 5.
      covers: uint8 [m, ceil(n / 8)], a bit for each generated row within the real ball.
      reaches: uint8 [m, ceil(n / 8)], a bit for each generated ball around the real row.
    """

    inside: np.ndarray
    density: np.ndarray
    covers: np.ndarray
    reaches: np.ndarray

    def precision(self, rows: np.ndarray) -> float:
        """Returns the share of the generated rows int [k] that lie in some real ball, 0 to 1."""
        return float(self.inside[rows].mean())

    def mean_density(self, rows: np.ndarray) -> float:
        """Returns the mean density of the generated rows int [k]: 0 or more, 1 for real images."""
        return float(self.density[rows].mean())

    def coverage(self, rows: np.ndarray) -> float:
        """Returns the share of real balls that hold one of the generated rows int [k], 0 to 1."""
        return _share(self.covers, rows, len(self.inside))

    def recall(self, rows: np.ndarray) -> float:
        """Returns the share of real rows in the ball of one of the generated rows int [k], 0 to 1.

        The radius of a generated row's ball is that among all n rows, whichever `rows` are given.
        """
        return _share(self.reaches, rows, len(self.inside))


def real_manifold(features: np.ndarray) -> RealManifold:
    """Finds the radii of the balls of real features.

    Args:
      features: [m, d], m of 6 or more.

    Raises:
      ValueError: If there are fewer than six rows.
    """
    orders = (PRECISION_NEIGHBORS, DENSITY_NEIGHBORS)
    return RealManifold(features, neighbor_distances(features, orders))


def overlap(generated: np.ndarray, real: RealManifold) -> Overlap:
    """Compares generated features with real ones.

    Memory is bounded by a block of 1000 times n distances and by two bits per pair.

    Args:
      generated: [n, d], n of 4 or more.
      real: the manifold to compare with.

    Raises:
      ValueError: If there are fewer than four generated rows.
    """
    own_radii = neighbor_distances(generated, (PRECISION_NEIGHBORS,))[:, 0]
    inside = np.zeros(len(generated), bool)
    balls = np.zeros(len(generated), np.int64)
    covers, reaches = [], []
    for rows, squares in distance_blocks(real.features, generated):
        narrow, wide = real.radii[rows].T[:, :, np.newaxis]
        inside |= (squares < narrow).any(axis=0)
        within = squares < wide
        balls += within.sum(axis=0)
        covers.append(np.packbits(within, axis=1))
        reaches.append(np.packbits(squares < own_radii, axis=1))
    return Overlap(
        inside, balls / DENSITY_NEIGHBORS, np.concatenate(covers), np.concatenate(reaches)
    )


def _share(bits: np.ndarray, rows: np.ndarray, count: int) -> float:
    chosen = np.zeros(count, bool)
    chosen[rows] = True
    return float((bits & np.packbits(chosen)).any(axis=1).mean())
