"""Precision, recall, density, coverage against a double loop, and cases with known answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from metrics.distances import distance_blocks, nearest_images, neighbor_distances
from metrics.manifold import Overlap, overlap, real_manifold


def compare(generated: np.ndarray, real: np.ndarray) -> tuple[Overlap, np.ndarray]:
    return overlap(generated, real_manifold(real)), np.arange(len(generated))


def measure(generated: np.ndarray, real: np.ndarray) -> tuple[float, float, float, float]:
    found, rows = compare(generated, real)
    return (
        found.precision(rows),
        found.recall(rows),
        found.mean_density(rows),
        found.coverage(rows),
    )


def by_loops(generated: np.ndarray, real: np.ndarray) -> tuple[float, float, float, float]:
    """The definitions as printed, one pair at a time."""

    def radius(points: np.ndarray, index: int, order: int) -> float:
        others = [np.linalg.norm(points[index] - x) for j, x in enumerate(points) if j != index]
        return sorted(others)[order - 1]

    def within(point: np.ndarray, centers: np.ndarray, radii: list[float]) -> int:
        pairs = zip(centers, radii, strict=True)
        return sum(bool(np.linalg.norm(point - center) < r) for center, r in pairs)

    real_3, real_5 = ([radius(real, i, k) for i in range(len(real))] for k in (3, 5))
    fake_3 = [radius(generated, j, 3) for j in range(len(generated))]
    precision = np.mean([within(y, real, real_3) > 0 for y in generated])
    recall = np.mean([within(x, generated, fake_3) > 0 for x in real])
    density = sum(within(y, real, real_5) for y in generated) / (5 * len(generated))
    coverage = np.mean(
        [
            min(np.linalg.norm(x - y) for y in generated) < r
            for x, r in zip(real, real_5, strict=True)
        ]
    )
    return float(precision), float(recall), float(density), float(coverage)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.tuples(st.integers(6, 40), st.integers(6, 40)),
    offset=st.sampled_from([0.0, 1e4]),
)
def test_a_double_loop_agrees(seed: int, rows: tuple[int, int], offset: float) -> None:
    random = np.random.default_rng(seed)
    real = random.normal(size=(rows[0], 4)) + offset
    generated = random.normal(0.5, 0.8, size=(rows[1], 4)) + offset
    assert measure(generated, real) == pytest.approx(by_loops(generated, real), rel=1e-6)


def test_the_reference_formulas_agree_on_more_than_a_block() -> None:
    """As `prdc` computes them, on distances of SciPy; float32 features behind a ReLU."""
    random = np.random.default_rng(1)
    real = np.maximum(random.normal(size=(2300, 16)), 0).astype(np.float32)
    generated = np.maximum(random.normal(0.1, 0.9, size=(1700, 16)), 0).astype(np.float32)
    far = [cdist(x.astype(float), y.astype(float)) for x, y in ((real, real), (real, generated))]
    among = cdist(generated.astype(float), generated.astype(float))
    radii_3, radii_5 = np.sort(far[0], axis=1)[:, [3, 5]].T
    expected = (
        (far[1] < radii_3[:, np.newaxis]).any(axis=0).mean(),
        (far[1] < np.sort(among, axis=1)[:, 3]).any(axis=1).mean(),
        (far[1] < radii_5[:, np.newaxis]).sum(axis=0).mean() / 5,
        (far[1].min(axis=1) < radii_5).mean(),
    )
    assert measure(generated, real) == pytest.approx(expected, rel=1e-6)


def test_identical_sets() -> None:
    real = np.random.default_rng(0).normal(size=(200, 5))
    assert measure(real, real) == pytest.approx((1, 1, 1, 1))


def test_sets_far_apart_share_nothing() -> None:
    real = np.random.default_rng(0).normal(size=(50, 5))
    assert measure(real + 1000, real) == (0, 0, 0, 0)


def test_constant_features_are_no_error() -> None:
    real = np.ones((20, 3))
    assert measure(real, real) == (0, 0, 0, 0), "no ball has any size"
    assert measure(np.zeros((20, 3)), real) == (0, 0, 0, 0)


def test_metrics_of_some_rows_are_those_of_the_rows_alone() -> None:
    random = np.random.default_rng(3)
    real, generated = random.normal(size=(100, 3)), random.normal(size=(90, 3))
    found, _ = compare(generated, real)
    rows = np.arange(0, 90, 3)
    alone, everything = compare(generated[rows], real)
    assert found.precision(rows) == alone.precision(everything)
    assert found.mean_density(rows) == pytest.approx(alone.mean_density(everything))
    assert found.coverage(rows) == alone.coverage(everything)


def test_too_few_rows_are_refused() -> None:
    few = np.zeros((5, 2))
    with pytest.raises(ValueError, match="5 neighbors need more than 5 rows"):
        real_manifold(few)
    with pytest.raises(ValueError, match="3 neighbors need more than 3 rows"):
        overlap(few[:3], real_manifold(np.eye(6)))


def test_distances_against_scipy() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(1500, 7)) + 1e3, random.normal(size=(40, 7)) + 1e3
    found = np.concatenate([squares.copy() for _, squares in distance_blocks(a, b)])
    np.testing.assert_allclose(found, cdist(a, b, "sqeuclidean"), rtol=1e-9)
    radii = np.sort(cdist(a, a, "sqeuclidean"), axis=1)
    np.testing.assert_allclose(neighbor_distances(a, (3, 5)), radii[:, [3, 5]], rtol=1e-9)


def test_the_nearest_image_of_the_class(digits) -> None:
    images, labels = digits[0][..., np.newaxis], digits[1].astype(int)
    found = nearest_images(images[:60], labels[:60], images[60:], labels[60:])
    for row in range(60):
        gaps = images[60:].astype(float) - images[row]
        lengths = np.sqrt((gaps**2).sum(axis=(1, 2, 3)))
        lengths[labels[60:] != labels[row]] = np.inf
        assert found.distances[row] == pytest.approx(lengths.min(), rel=1e-6)
        assert labels[60:][found.rows[row]] == labels[row]


def test_a_copy_is_found_at_distance_zero(digits) -> None:
    images, labels = digits[0][..., np.newaxis], digits[1].astype(int)
    found = nearest_images(images[100:150], labels[100:150], images, labels)
    assert found.distances.max() == 0
    assert found.rows.tolist() == list(range(100, 150))


def test_a_class_without_images_is_compared_with_all(digits) -> None:
    images, labels = digits[0][..., np.newaxis], digits[1].astype(int)
    without = labels != 3
    found = nearest_images(
        images[labels == 3], labels[labels == 3], images[without], labels[without]
    )
    assert np.isfinite(found.distances).all()
    assert (found.rows >= 0).all()
