"""The Frechet distance against closed forms and another implementation, and label figures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from metrics.diversity import class_spread, lowest_relative_spread
from metrics.frechet import (
    Gaussian,
    fit_gaussian,
    frechet_distance,
    gaussian_distance,
)
from metrics.labels import (
    agreement,
    class_agreement,
    classifier_score,
    confusion,
    digit_shares,
    share_distance,
    spread_digits,
)


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


def test_one_dimension_in_closed_form() -> None:
    """(m1 - m2)^2 + (s1 - s2)^2."""
    a = with_moments(np.array([1.0]), np.array([[4.0]]), 30, 0)
    b = with_moments(np.array([-2.0]), np.array([[25.0]]), 20, 1)
    assert frechet_distance(a, b) == pytest.approx(9 + 9)


def test_covariances_that_commute_in_closed_form() -> None:
    """In common axes each adds (s1 - s2)^2."""
    axes = stats.ortho_group.rvs(4, random_state=0)
    first, second = np.array([1.0, 4.0, 9.0, 0.25]), np.array([16.0, 1.0, 9.0, 1.0])
    a = with_moments(np.zeros(4), (axes * first) @ axes.T, 100, 1)
    b = with_moments(np.ones(4), (axes * second) @ axes.T, 80, 2)
    assert frechet_distance(a, b) == pytest.approx(4 + 9 + 1 + 0 + 0.25)


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


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-50, 50))
def test_a_shift_alone_costs_its_square(seed: int, shift: float) -> None:
    a, _ = two_sets(seed)
    assert frechet_distance(a, a + shift) == pytest.approx(5 * shift**2, rel=1e-8, abs=1e-9)


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
    """What a generator that draws one picture makes: a point at the mean."""
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


def one_hot(seen: list[int]) -> np.ndarray:
    return 3.0 * np.eye(10)[seen] - 7.0


def test_digits_to_ask_for_by_hand() -> None:
    np.testing.assert_array_equal(spread_digits(23, np.full(10, 0.1)), np.arange(23) % 10)
    halves = np.zeros(10)
    halves[[3, 8]] = 0.75, 0.25
    assert spread_digits(8, halves).tolist() == [3, 3, 8, 3, 3, 3, 8, 3]


@given(
    st.lists(st.integers(0, 1000), min_size=10, max_size=10).filter(any),
    st.integers(1, 400),
    st.integers(1, 400),
)
def test_digits_to_ask_for_are_in_their_shares_and_well_mixed(
    counts: list[int], count: int, head: int
) -> None:
    shares = np.array(counts) / sum(counts)
    digits = spread_digits(count, shares)
    assert len(digits) == count
    found = np.bincount(digits, minlength=10)
    assert (np.abs(found - count * shares) < 1 + 1e-6).all()
    assert not found[shares == 0].any()
    head = min(head, count)
    of_head = np.bincount(digits[:head], minlength=10)
    assert (np.abs(of_head - head * found / count) <= 5.5).all()


def test_agreement_by_hand() -> None:
    logits = one_hot([3, 3, 9, 0])
    assert agreement(np.array([3, 3, 9, 0]), logits) == 1.0
    assert agreement(np.array([3, 4, 9, 1]), logits) == 0.5
    assert agreement(np.array([0, 1, 2, 3]), logits) == 0.0
    assert agreement(np.array([2]), np.array([[0.0, 0.1, 0.2, *[-5.0] * 7]])) == 1.0


def test_shares_by_hand() -> None:
    shares = digit_shares(one_hot([0, 0, 9, 4]))
    assert shares.tolist() == [0.5, 0, 0, 0, 0.25, 0, 0, 0, 0, 0.25]


@settings(max_examples=30, deadline=None)
@given(seen=st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_shares_of_any_digits(seen: list[int]) -> None:
    shares = digit_shares(one_hot(seen))
    assert shares.tolist() == [seen.count(digit) / len(seen) for digit in range(10)]
    assert shares.sum() == pytest.approx(1)


def test_confusion_by_hand() -> None:
    counts = confusion(np.array([3, 3, 3, 0]), one_hot([3, 5, 5, 0]))
    assert (counts[3, 3], counts[3, 5], counts[0, 0], counts.sum()) == (1, 2, 1, 4)
    shares = class_agreement(counts)
    assert (shares[0], shares[3]) == (1, pytest.approx(1 / 3))
    assert np.isnan(shares[[1, 2, 4, 5, 6, 7, 8, 9]]).all(), "never asked for"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_confusion_against_a_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    asked, logits = random.integers(0, 10, 50), random.normal(size=(50, 10))
    counts = np.zeros((10, 10), int)
    for digit, row in zip(asked, logits, strict=True):
        counts[digit, np.argmax(row)] += 1
    np.testing.assert_array_equal(confusion(asked, logits), counts)
    assert counts.trace() / 50 == agreement(asked, logits)


def test_the_distance_of_shares_is_what_has_to_move() -> None:
    even, nine = np.full(10, 0.1), np.array([*[1 / 9] * 9, 0])
    assert share_distance(even, even) == 0
    assert share_distance(even, nine) == pytest.approx(0.1)
    assert share_distance(np.eye(10)[0], np.eye(10)[1]) == 1


def test_the_classifier_score_of_known_cases() -> None:
    sure = 50.0 * np.eye(10)
    assert classifier_score(np.tile(sure, (7, 1))) == pytest.approx(10)
    assert classifier_score(np.tile(sure[:1], (20, 1))) == pytest.approx(1)
    assert classifier_score(np.zeros((20, 10))) == pytest.approx(1)
    assert classifier_score(np.tile(sure[:4], (5, 1))) == pytest.approx(4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 30))
def test_the_classifier_score_against_its_printed_formula(seed: int, scale: float) -> None:
    logits = scale * np.random.default_rng(seed).normal(size=(60, 10))
    each = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    divergences = [stats.entropy(row, each.mean(axis=0)) for row in each]
    assert classifier_score(logits) == pytest.approx(np.exp(np.mean(divergences)), rel=1e-6)


def test_spread_within_a_digit_against_the_trace_of_its_covariance() -> None:
    random = np.random.default_rng(0)
    features, digits = random.gamma(2, size=(200, 6)), random.integers(0, 10, 200)
    expected = [np.trace(np.cov(features[digits == digit], rowvar=False)) for digit in range(10)]
    np.testing.assert_allclose(class_spread(features, digits), expected, rtol=1e-6)


def test_one_picture_of_one_digit_is_no_spread() -> None:
    random = np.random.default_rng(0)
    features, digits = random.normal(size=(200, 6)), np.arange(200) % 10
    reference = class_spread(features, digits)
    assert lowest_relative_spread(features, digits, reference) == pytest.approx(1)
    assert lowest_relative_spread(features / 2, digits, reference) == pytest.approx(0.25)
    repeated = np.where((digits == 3)[:, np.newaxis], features[3], features)
    assert lowest_relative_spread(repeated, digits, reference) == pytest.approx(0, abs=1e-12)
    assert lowest_relative_spread(features[:9], digits[:9], reference) == 0
    assert lowest_relative_spread(features, digits, np.zeros(10)) == 0, "nothing to compare with"
