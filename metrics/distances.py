"""Distances between all rows of two sets, in bounded memory."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_ROWS = 1000


def distance_blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Squared Euclidean distances from a block of rows of `a` to all of `b`.

    As |a|^2 + |b|^2 - 2 a b, which is a matrix product, in float64: in float32 some rows of 10,000
    land on the other side of a radius. Centred, so that an offset that both share costs no digits.

    Args:
      a: [n, d].
      b: [m, d].

    Yields:
      The rows, and the distances float64 [up to 1000, m], valid until the next block.
    """
    centre = b.mean(axis=0, dtype=np.float64)
    b = b - centre
    norms = np.einsum("ij,ij->i", b, b)
    transposed = -2.0 * b.T
    for start in range(0, len(a), _ROWS):
        block = a[start : start + _ROWS] - centre
        squares = block @ transposed
        squares += norms
        squares += np.einsum("ij,ij->i", block, block)[:, np.newaxis]
        yield slice(start, start + len(block)), np.maximum(squares, 0.0, out=squares)


def neighbour_distances(features: np.ndarray, orders: tuple[int, ...]) -> np.ndarray:
    """Squared distance of each row to its k-th nearest other row.

    Args:
      features: [n, d].
      orders: values of k, each 1 or more and below n.

    Returns:
      float64 [n, len(orders)].

    Raises:
      ValueError: when there are too few rows.
    """
    if len(features) <= max(orders):
        raise ValueError(f"{max(orders)} neighbours need more than {len(features)} rows")
    found = np.empty((len(features), len(orders)))
    for rows, squares in distance_blocks(features, features):
        # A row is its own nearest, so the k-th other one stands at k.
        squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = -1.0
        found[rows] = np.partition(squares, orders, axis=1)[:, orders]
    return found


class Nearest(NamedTuple):
    """For each picture the nearest of a set.

    Attributes:
      rows: int [n], into the set.
      distances: float64 [n], Euclidean, in grey levels 0..255.
    """

    rows: np.ndarray
    distances: np.ndarray


def nearest_pictures(
    images: np.ndarray, digits: np.ndarray, others: np.ndarray, other_digits: np.ndarray
) -> Nearest:
    """Finds the nearest picture of the same digit by its pixels; of any where there is none.

    Pixels and not features: a copy is a copy of pixels, and the classifier is trained to see no
    difference between many pictures of a digit. Found in float32; the distance to the one found is
    exact.

    Args:
      images: uint8 [n, 28, 28, 1].
      digits: int [n], what each shows.
      others: uint8 [m, 28, 28, 1].
      other_digits: int [m].
    """
    rows = np.empty(len(images), int)
    for digit in np.unique(digits):
        own, candidates = np.flatnonzero(digits == digit), np.flatnonzero(other_digits == digit)
        if not len(candidates):
            candidates = np.arange(len(others))
        rows[own] = candidates[_nearest_rows(images[own], others[candidates])]
    gaps = images.astype(np.int32) - others[rows].astype(np.int32)
    return Nearest(rows, np.sqrt((gaps**2).sum(axis=(1, 2, 3))))


def _nearest_rows(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    flat = others.reshape(len(others), -1).astype(np.float32)
    # |image|^2 is the same for all others and so left out.
    norms = np.einsum("ij,ij->i", flat, flat)
    transposed = -2.0 * flat.T
    found = []
    for start in range(0, len(images), _ROWS):
        block = images[start : start + _ROWS]
        squares = block.reshape(len(block), -1).astype(np.float32) @ transposed
        squares += norms
        found.append(squares.argmin(axis=1))
    return np.concatenate(found)
