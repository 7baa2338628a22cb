"""Diversity of the images of each class, measured in feature space."""

import numpy as np


def class_variance(features: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns the total variance of the features within each class.

    The total variance is the trace of the unbiased covariance matrix.

    Args:
      features: [n, d].
      classes: int [n], 0 to 9.

    Returns:
      float64 [10]; 0 for a class with fewer than two rows.
    """
    variance = np.zeros(10)
    for digit in range(10):
        rows = features[classes == digit]
        if len(rows) > 1:
            variance[digit] = rows.var(axis=0, ddof=1, dtype=np.float64).sum()
    return variance


def lowest_class_diversity(
    features: np.ndarray, classes: np.ndarray, real_variance: np.ndarray
) -> float:
    """Returns the lowest ratio, over the classes, of generated to real feature variance.

    Args:
      features: [n, d].
      classes: int [n], 0 to 9.
      real_variance: float [10], `class_variance` of real images. Classes without variance are left
        out of the minimum.

    Returns:
      0 or more; 0 if a class has one image or none, and about 1 for real images.
    """
    known = real_variance > 0
    if not known.any():
        return 0.0
    return float((class_variance(features, classes)[known] / real_variance[known]).min())
