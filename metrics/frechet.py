"""The Frechet distance between two sets of features (FID; Heusel et al. 2017)."""

from typing import NamedTuple

import numpy as np
from scipy import linalg


class Gaussian(NamedTuple):
    """Mean float64 [d] and covariance float64 [d, d] of a set of features."""

    mean: np.ndarray
    covariance: np.ndarray


def fit_gaussian(features: np.ndarray) -> Gaussian:
    """Mean and unbiased covariance of features [n, d].

    Raises:
      ValueError: for fewer than two rows, another rank, or NaN or infinite features.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"expected features [n >= 2, d], got shape {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("features hold NaN or infinite values")
    features = features.astype(np.float64)
    return Gaussian(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def gaussian_distance(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), Dowson and Landau 1982; 0 or more.

    The trace of the root is the sum of the square roots of the eigenvalues of the symmetric
    S_a^(1/2) S_b S_a^(1/2), which is safe for singular covariances.

    Raises:
      ValueError: when the dimensions differ.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features have {a.mean.size} and {b.mean.size} dimensions")
    values, vectors = linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = linalg.eigvalsh(root @ b.covariance @ root)
    trace = np.trace(a.covariance) + np.trace(b.covariance)
    distance = np.sum((a.mean - b.mean) ** 2) + trace - 2 * np.sqrt(np.clip(cross, 0, None)).sum()
    return max(float(distance), 0.0)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The Frechet distance between features [n, d] and [m, d]; see `fit_gaussian` for errors."""
    return gaussian_distance(fit_gaussian(a), fit_gaussian(b))
