"""Figures of the grey levels themselves, to which a classifier's features are nearly blind."""

import numpy as np


def require_pictures(name: str, images: np.ndarray, fewest: int = 1) -> None:
    """Checks that images are uint8 [n, 28, 28, 1] and at least `fewest`.

    Raises:
      ValueError: when they are not; it says what they are.
    """
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28, 1) or len(images) < fewest:
        raise ValueError(
            f"{name}: expected uint8 [n >= {fewest}, 28, 28, 1], got {images.dtype} "
            f"{list(images.shape)}"
        )


def ink(images: np.ndarray) -> np.ndarray:
    """Sum of the grey levels of each of the images uint8 [n, 28, 28, 1], float64 [n]."""
    return images.sum(axis=(1, 2, 3), dtype=np.float64)


def variation(images: np.ndarray) -> np.ndarray:
    """Sum of the absolute differences of neighbouring pixels of each picture, float64 [n].

    The total variation; per ink it is low for what is blurred.

    Args:
      images: uint8 [n, 28, 28, 1].
    """
    wide = images.astype(np.int16)
    across, down = np.abs(np.diff(wide, axis=2)), np.abs(np.diff(wide, axis=1))
    return (across.sum(axis=(1, 2, 3)) + down.sum(axis=(1, 2, 3))).astype(np.float64)
