"""Metrics of pixel intensities, to which a classifier's features are nearly blind."""

import numpy as np


def require_images(name: str, images: np.ndarray, fewest: int = 1) -> None:
    """Checks the dtype, shape and number of images.

    Args:
      name: what the error calls the images.
      images: uint8 [n, 28, 28, 1].
      fewest: smallest n that is accepted.

    Raises:
      ValueError: If dtype, shape or number differ; the message gives what was found.
    """
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28, 1) or len(images) < fewest:
        raise ValueError(
            f"{name}: expected uint8 [n >= {fewest}, 28, 28, 1], got {images.dtype} "
            f"{list(images.shape)}"
        )


def total_intensity(images: np.ndarray) -> np.ndarray:
    """Returns the sum of the pixels of each image.

    Args:
      images: uint8 [n, 28, 28, 1].

    Returns:
      float64 [n], 0 to 784 * 255.
    """
    return images.sum(axis=(1, 2, 3), dtype=np.float64)


def total_variation(images: np.ndarray) -> np.ndarray:
    """Returns the anisotropic total variation of each image (Rudin, Osher and Fatemi 1992).

    The total variation sums the absolute differences of neighboring pixels. Divided by the total
    intensity it is low for blurred images.

    Args:
      images: uint8 [n, 28, 28, 1].

    Returns:
      float64 [n], 0 or more.
    """
    wide = images.astype(np.int16)
    across, down = np.abs(np.diff(wide, axis=2)), np.abs(np.diff(wide, axis=1))
    return (across.sum(axis=(1, 2, 3)) + down.sum(axis=(1, 2, 3))).astype(np.float64)
