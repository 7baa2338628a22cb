"""The Frechet distance against closed forms and another implementation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from metrics.frechet import Gaussian, fit_gaussian, frechet_distance, gaussian_distance


def with_moments(mean: np.ndarray, covariance: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """Features whose sample mean and unbiased covariance are exactly these."""
    draws = np.random.default_rng(seed).normal(size=(rows, len(mean)))
    draws -= draws.mean(axis=0)
    white = draws @ linalg.inv(linalg.cholesky(np.cov(draws, rowvar=False), lower=True)).T
    values, vectors = linalg.eigh(covariance)
    return white @ (vectors * np.sqrt(np.clip(values, 0, None))).T + mean


def spread(seed: int, dimensions: int, rank: int | None = None) -> np.ndarray:
    """A covariance matrix."""
    root = np.random.default_rng(seed).normal(size=(dimensions, rank or 2 * dimensions))
    return root @ root.T / root.shape[1]


def by_sqrtm(a: np.ndarray, b: np.ndarray) -> float:
    """The formula as printed in Heusel et al. 2017."""
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sum(covariances) - 2 * root)


def two_sets(seed: int, dimensions: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(dimensions, dimensions))
    return generator.normal(size=(40, dimensions)), generator.gamma(
        2, size=(60, dimensions)
    ) @ mixing


def test_moments_are_fitted_without_bias() -> None:
    mean, covariance = np.array([1.0, -2.0, 3.0]), spread(0, 3)
    fitted = fit_gaussian(with_moments(mean, covariance, 50, 1))
    np.testing.assert_allclose(fitted.mean, mean, atol=1e-12)
    np.testing.assert_allclose(fitted.covariance, covariance, atol=1e-12)
    assert fit_gaussian(np.array([[0.0], [2.0]])).covariance.tolist() == [[2.0]]


def test_covariances_that_do_not_commute_in_closed_form() -> None:
    """In two dimensions the trace of the root of M is sqrt(tr M + 2 sqrt(det M))."""
    first, second = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -2.0], [-2.0, 1.0]])
    assert not np.allclose(first @ second, second @ first)
    product = first @ second
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    a, b = (with_moments(np.zeros(2), x, 40, seed) for seed, x in enumerate((first, second)))
    assert frechet_distance(a, b) == pytest.approx(np.trace(first + second) - 2 * root)


@pytest.mark.parametrize("dimensions", [2, 10, 64])
def test_another_implementation_agrees(dimensions: int) -> None:
    generator = np.random.default_rng(dimensions)
    a = generator.gamma(2, size=(400, dimensions)) @ generator.normal(size=(dimensions,) * 2)
    b = generator.normal(size=(300, dimensions)) @ generator.normal(size=(dimensions,) * 2)
    assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 100))
def test_properties_of_a_distance(seed: int, scale: float) -> None:
    a, b = two_sets(seed)
    distance = frechet_distance(a, b)
    assert distance > 0
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-8)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(b, b.copy()) == pytest.approx(0, abs=1e-9 * np.square(b).sum())
    order = np.random.default_rng(seed).permutation(len(a))
    assert frechet_distance(a[order], b) == pytest.approx(distance, rel=1e-8)
    rotation = stats.ortho_group.rvs(5, random_state=seed)
    moved = [x @ rotation + np.arange(5) for x in (a, b)]
    assert frechet_distance(*moved) == pytest.approx(distance, rel=1e-8)
    assert frechet_distance(scale * a, scale * b) == pytest.approx(scale**2 * distance, rel=1e-8)


def test_fewer_rows_than_dimensions() -> None:
    """Singular covariances, as features behind a ReLU have; the axes of one are not the other's."""
    flat = Gaussian(np.zeros(3), np.diag([4.0, 0.0, 0.0]))
    other = Gaussian(np.zeros(3), np.diag([0.0, 9.0, 0.0]))
    tilted = Gaussian(np.zeros(3), np.full((3, 3), 1.0))  # all along (1, 1, 1), variance 3
    assert gaussian_distance(flat, other) == pytest.approx(13)
    assert gaussian_distance(flat, flat) == 0
    # The root of a product of rank one is its trace's root: tr(flat tilted) = 4.
    assert gaussian_distance(flat, tilted) == pytest.approx(4 + 3 - 2 * 2)
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(10, 64)), generator.normal(size=(12, 64))
    assert 0 < frechet_distance(a, b) < np.inf
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)


def test_constant_features() -> None:
    """What a generator of a single image makes: a point at the mean."""
    point = np.tile([3.0, 4.0], (20, 1))
    assert frechet_distance(point, point) == 0
    assert frechet_distance(point, np.zeros((5, 2))) == pytest.approx(25)
    real = with_moments(np.array([3.0, 4.0]), np.diag([2.0, 7.0]), 30, 0)
    assert frechet_distance(point, real) == pytest.approx(9)


def test_float32_features_lose_nothing_more() -> None:
    """Far from 0 a mean in float32 would be off."""
    a, b = two_sets(3)
    a, b = (x.astype(np.float32) + np.float32(1000) for x in (a, b))
    exact = frechet_distance(a.astype(np.float64), b.astype(np.float64))
    assert frechet_distance(a, b) == exact


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.array([[1.0, np.nan], [0, 0]]), "NaN or infinite"),
        (np.array([[1.0, np.inf], [0, 0]]), "NaN or infinite"),
        (np.ones((1, 2)), r"\[n >= 2, d\], got shape \(1, 2\)"),
        (np.ones((0, 2)), r"got shape \(0, 2\)"),
        (np.ones(4), r"got shape \(4,\)"),
        (np.ones((4, 2, 1)), r"got shape \(4, 2, 1\)"),
        (np.ones((4, 3)), "features have .* dimensions"),
    ],
)
def test_features_that_are_refused(features: np.ndarray, message: str) -> None:
    good = np.random.default_rng(0).normal(size=(10, 2))
    for pair in ((features, good), (good, features)):
        with pytest.raises(ValueError, match=message):
            frechet_distance(*pair)
