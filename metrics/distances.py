"""Distances between all rows of two sets, in bounded memory."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_ROWS = 1000


def distance_blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields squared Euclidean distances from a block of rows of `a` to all rows of `b`.

    The distances are computed as |a|^2 + |b|^2 - 2 a b, a matrix product, in float64: in float32
    some rows of 10,000 land on the other side of a radius. Both sets are centered first, so that a
    common offset costs no precision.

    Args:
      a: [n, d].
      b: [m, d].

    Yields:
      The rows of the block, and float64 [up to 1000, m], which is valid until the next block.
    """
    center = b.mean(axis=0, dtype=np.float64)
    b = b - center
    norms = np.einsum("ij,ij->i", b, b)
    transposed = -2.0 * b.T
    for start in range(0, len(a), _ROWS):
        block = a[start : start + _ROWS] - center
        squares = block @ transposed
        squares += norms
        squares += np.einsum("ij,ij->i", block, block)[:, np.newaxis]
        yield slice(start, start + len(block)), np.maximum(squares, 0.0, out=squares)


def neighbor_distances(features: np.ndarray, orders: tuple[int, ...]) -> np.ndarray:
    """Returns the squared distance of each row to its k-th nearest other row.

    Args:
      features: [n, d].
      orders: values of k, each at least 1 and less than n.

    Returns:
      float64 [n, len(orders)].

    Raises:
      ValueError: If there are too few rows.
    """
    if len(features) <= max(orders):
        raise ValueError(f"{max(orders)} neighbors need more than {len(features)} rows")
    found = np.empty((len(features), len(orders)))
    for rows, squares in distance_blocks(features, features):
        # -1 sorts each row itself before all others, so that the k-th other one stands at k.
        squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = -1.0
        found[rows] = np.partition(squares, orders, axis=1)[:, orders]
    return found


class Nearest(NamedTuple):
    """The nearest neighbor of each image in another set.

    Attributes:
      rows: int [n], rows of the other set.
      distances: float64 [n], Euclidean, in pixel values 0 to 255.
    """

    rows: np.ndarray
    distances: np.ndarray


def nearest_images(
    images: np.ndarray, classes: np.ndarray, others: np.ndarray, other_classes: np.ndarray
) -> Nearest:
    """Finds the nearest neighbor of each image, in pixels, among the images of its class.

    If `others` has no image of the class, the neighbor is of any class. Pixels and not features: a
    memorized image is a copy of pixels, and the classifier is trained to ignore many differences.
    The search uses float32; the distance to the neighbor found is exact.

    Args:
      images: uint8 [n, 28, 28, 1].
      classes: int [n].
      others: uint8 [m, 28, 28, 1].
      other_classes: int [m].
    """
    rows = np.empty(len(images), int)
    for digit in np.unique(classes):
        own, candidates = np.flatnonzero(classes == digit), np.flatnonzero(other_classes == digit)
        if not len(candidates):
            candidates = np.arange(len(others))
        rows[own] = candidates[_nearest_rows(images[own], others[candidates])]
    gaps = images.astype(np.int32) - others[rows].astype(np.int32)
    return Nearest(rows, np.sqrt((gaps**2).sum(axis=(1, 2, 3))))


def _nearest_rows(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    flat = others.reshape(len(others), -1).astype(np.float32)
    # |image|^2 is equal for all others and so left out.
    norms = np.einsum("ij,ij->i", flat, flat)
    transposed = -2.0 * flat.T
    found = []
    for start in range(0, len(images), _ROWS):
        block = images[start : start + _ROWS]
        squares = block.reshape(len(block), -1).astype(np.float32) @ transposed
        squares += norms
        found.append(squares.argmin(axis=1))
    return np.concatenate(found)
