"""The kernel distance against the unbiased estimator as printed, pair by pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.kernel import kernel_distance


def by_loops(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    own = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    other = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    across = sum(kernel(a, b) for a in x for b in y) / (n * m)
    return own + other - 2 * across


def polynomial_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The formula of `torch-fidelity`."""
    inner = (x @ x.T, y @ y.T, x @ y.T)
    k_xx, k_yy, k_xy = ((product / x.shape[1] + 1) ** 3 for product in inner)
    m = len(x)
    total = k_xx.sum() - np.trace(k_xx) + k_yy.sum() - np.trace(k_yy)
    return total / (m * (m - 1)) - 2 * k_xy.sum() / m**2


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 30))
def test_one_subset_is_the_printed_formula(seed: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(0.3, 1, size=(rows, 5)), random.normal(size=(rows, 5))
    found = kernel_distance(x, y, seed=0).value
    assert found == pytest.approx(by_loops(x, y), rel=1e-6, abs=1e-9)


def test_more_rows_are_the_mean_of_subsets() -> None:
    random = np.random.default_rng(0)
    x = random.gamma(2, size=(3000, 8)).astype(np.float32)
    y = random.gamma(2.2, size=(2500, 8)).astype(np.float32)
    order = np.random.default_rng(5)
    expected = [
        polynomial_mmd(
            x[start : start + 1000].astype(float), y[order.permutation(2500)[:1000]].astype(float)
        )
        for start in (0, 1000, 2000)
    ]
    assert kernel_distance(x, y, seed=5).value == pytest.approx(np.mean(expected), rel=1e-6)


def test_it_is_unbiased() -> None:
    """Two sets of one distribution: 0 on average, and so also below."""
    random = np.random.default_rng(0)
    found = [
        kernel_distance(random.normal(size=(60, 4)), random.normal(size=(60, 4)), seed=0).value
        for _ in range(200)
    ]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(200)
    assert min(found) < 0 < max(found)


def test_the_influence_adds_up_and_says_what_rows_would_give() -> None:
    random = np.random.default_rng(1)
    x, y = random.normal(1, 1, size=(1000, 6)), random.normal(size=(1000, 6))
    found = kernel_distance(x, y, seed=0)
    assert found.influence.mean() == pytest.approx(found.value)
    rows = random.permutation(1000)[:500]
    alone = kernel_distance(x[rows], y, seed=0).value
    assert found.influence[rows].mean() == pytest.approx(alone, rel=0.1)


def test_constant_features() -> None:
    point = np.tile([1.0, 1.0], (20, 1))
    assert kernel_distance(point, point, seed=0).value == pytest.approx(0)
    assert kernel_distance(point, 0 * point, seed=0).value == pytest.approx(2**3 + 1 - 2)
