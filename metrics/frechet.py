"""The Frechet distance between two sets of features (FID; Heusel et al. 2017)."""

from typing import NamedTuple

import numpy as np
import scipy


class Gaussian(NamedTuple):
    """The normal distribution fitted to a set of features.

    Attributes:
      mean: float64 [d].
      covariance: float64 [d, d].
    """

    mean: np.ndarray
    covariance: np.ndarray


def fit_gaussian(features: np.ndarray) -> Gaussian:
    """Returns the mean and the unbiased covariance of features.

    Args:
      features: [n, d], n of 2 or more.

    Raises:
      ValueError: If there are fewer than two rows, the rank is not 2, or a value is NaN or
        infinite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"expected features [n >= 2, d], got shape {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("features hold NaN or infinite values")
    features = features.astype(np.float64)
    return Gaussian(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def gaussian_distance(a: Gaussian, b: Gaussian) -> float:
    """Returns the squared Frechet distance of two normal distributions (Dowson and Landau 1982).

    The distance is |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)). The trace of the root is the
    sum of the square roots of the eigenvalues of the symmetric S_a^(1/2) S_b S_a^(1/2), which also
    exists for singular covariances.

    Returns:
      0 or more, in squared units of the features.

    Raises:
      ValueError: If the dimensions differ.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features have {a.mean.size} and {b.mean.size} dimensions")
    values, vectors = scipy.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = scipy.linalg.eigvalsh(root @ b.covariance @ root)
    trace = np.trace(a.covariance) + np.trace(b.covariance)
    distance = np.sum((a.mean - b.mean) ** 2) + trace - 2 * np.sqrt(np.clip(cross, 0, None)).sum()
    return max(float(distance), 0.0)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the squared Frechet distance between features [n, d] and features [m, d].

    Raises:
      ValueError: If `fit_gaussian` refuses either set, or the dimensions differ.
    """
    return gaussian_distance(fit_gaussian(a), fit_gaussian(b))
