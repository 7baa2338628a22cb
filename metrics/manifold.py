"""How much of either set lies within the other's manifold of nearest-neighbour balls.

Precision and recall: Kynkaanniemi et al. 2019; density and coverage: Naeem et al. 2020. A point
lies in a ball when it is nearer to the centre than the radius, as in the latter's reference code.
In features and not in pixels, where a shift by one pixel changes the nearest neighbour.
"""

from typing import NamedTuple

import numpy as np

from metrics.distances import distance_blocks, neighbour_distances

PRECISION_NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5


class RealManifold(NamedTuple):
    """Real features [m, d] and their squared radii float64 [m, 2] to neighbours 3 and 5."""

    features: np.ndarray
    radii: np.ndarray


class Overlap(NamedTuple):
    """Who lies in whose ball, for n generated and m real rows.

    Attributes:
      inside: bool [n], the generated row lies in some real ball.
      density: float64 [n], real balls that the generated row lies in, over 5.
      covers: uint8 [m, ceil(n / 8)], a bit for each generated row within the real ball.
      reaches: uint8 [m, ceil(n / 8)], a bit for each generated ball that the real row lies in.
    """

    inside: np.ndarray
    density: np.ndarray
    covers: np.ndarray
    reaches: np.ndarray

    def precision(self, rows: np.ndarray) -> float:
        """Share of the generated rows that lie in some real ball, 0..1."""
        return float(self.inside[rows].mean())

    def mean_density(self, rows: np.ndarray) -> float:
        """Real balls around a generated row over those expected, 0 or more; real digits: 1."""
        return float(self.density[rows].mean())

    def coverage(self, rows: np.ndarray) -> float:
        """Share of the real balls that hold one of the generated rows, 0..1."""
        return _share(self.covers, rows, len(self.inside))

    def recall(self, rows: np.ndarray) -> float:
        """Share of the real rows that lie in the ball of one of the generated rows, 0..1.

        The balls are those of the whole set, whichever rows are asked for.
        """
        return _share(self.reaches, rows, len(self.inside))


def real_manifold(features: np.ndarray) -> RealManifold:
    """Finds the radii.

    Raises:
      ValueError: for fewer than six rows.
    """
    orders = (PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS)
    return RealManifold(features, neighbour_distances(features, orders))


def overlap(generated: np.ndarray, real: RealManifold) -> Overlap:
    """Compares generated features [n, d], n of 4 or more, with real ones.

    Memory is bounded by a block of 1000 times n distances and by two bits per pair.
    """
    own_radii = neighbour_distances(generated, (PRECISION_NEIGHBOURS,))[:, 0]
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
        inside, balls / DENSITY_NEIGHBOURS, np.concatenate(covers), np.concatenate(reaches)
    )


def _share(bits: np.ndarray, rows: np.ndarray, count: int) -> float:
    chosen = np.zeros(count, bool)
    chosen[rows] = True
    return float((bits & np.packbits(chosen)).any(axis=1).mean())
