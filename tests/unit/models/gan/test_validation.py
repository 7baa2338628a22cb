"""Validation in training: the metrics, when they are due, collapse and the split."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.frechet import frechet_distance
from models.gan.validation import (
    Validation,
    ValidationMetrics,
    ValidationSet,
    split_validation_set,
)

EVENLY = (0.1,) * 10
PROJECTION = np.random.default_rng(0).normal(size=(784, 16)) / 784


def extract(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stands in for the classifier: features that are linear in the pixels."""
    features = (images.reshape(len(images), 784) @ PROJECTION).astype(np.float32)
    return features, features[:, :10]


def random_images(count: int, seed: int, scale: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, scale, (count, 28, 28, 1), np.uint8)


def test_the_metrics_are_those_of_the_room_metrics() -> None:
    real, generated = random_images(60, 1), random_images(40, 2, scale=200)
    labels = np.arange(40) % 10
    validation_set = ValidationSet(real, np.arange(60) % 7, extract)
    found = validation_set.evaluate(generated, labels)
    (real_features, _), (features, logits) = extract(real), extract(generated)
    np.testing.assert_array_equal(validation_set.labels, np.arange(60) % 7)
    assert found.fid == pytest.approx(frechet_distance(features, real_features))
    spread = features.var(axis=0, ddof=1).sum() / real_features.var(axis=0, ddof=1).sum()
    assert found.variance_ratio == pytest.approx(spread, rel=1e-5)
    seen = logits.argmax(axis=1)
    assert found.class_shares == tuple(float(np.mean(seen == digit)) for digit in range(10))
    assert found.conditional_accuracy == np.mean(seen == labels)
    assert (
        type(found.fid) is type(found.variance_ratio) is type(found.conditional_accuracy) is float
    )


def test_one_image_repeated_is_a_collapse() -> None:
    real = random_images(50, 1)
    validation_set = ValidationSet(real, np.zeros(50, int), extract)
    found = validation_set.evaluate(np.repeat(real[:1], 50, axis=0), np.zeros(50, int))
    assert found.variance_ratio == pytest.approx(0, abs=1e-6)
    assert found.collapse


@pytest.mark.parametrize(
    ("shares", "spread", "expected"),
    [
        (EVENLY, 1.0, None),
        (EVENLY, 0.25, None),
        ((0.01,) * 9 + (0.91,), 1.0, None),
        ((0.0, 0.2, 0.009, 0.191) + (0.1,) * 6, 1.0, "the labels 0, 2 are missing from its images"),
        (
            (0.0,) * 9 + (1.0,),
            0.01,
            "the labels 0, 1, 2, 3, 4, 5, 6, 7, 8 are missing from its images",
        ),
        (EVENLY, 0.2, "its feature variance is 20% of real images'"),
    ],
)
def test_collapse_says_how(shares: tuple[float, ...], spread: float, expected: str | None) -> None:
    assert ValidationMetrics(3.0, spread, shares, 0.9, 0.03).collapse == expected


@given(st.integers(4, 3000), st.floats(0.01, 0.5), st.integers(0, 2**31 - 1))
def test_the_split_is_disjoint_complete_and_reproducible(
    count: int, share: float, seed: int
) -> None:
    trained, validation = split_validation_set(count, share, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([trained, validation])), np.arange(count))
    assert len(validation) == max(round(count * share), 2)
    assert np.all(np.diff(trained) > 0)
    assert np.all(np.diff(validation) > 0)
    for first, again in zip(
        (trained, validation), split_validation_set(count, share, seed), strict=True
    ):
        np.testing.assert_array_equal(first, again)


def test_other_seeds_give_other_validation_sets() -> None:
    splits = [split_validation_set(1000, 0.1, seed)[1] for seed in range(5)]
    for a, b in itertools.combinations(splits, 2):
        assert len(np.intersect1d(a, b)) < 30  # ten are expected by chance
    assert 400 < np.mean(splits) < 600


class CountingSet:
    """Its FID is the number of the evaluation."""

    labels = np.arange(4)

    def __init__(self) -> None:
        self.count = 0

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> ValidationMetrics:
        assert images.tolist() == labels.tolist() == [0, 1, 2, 3]
        self.count += 1
        return ValidationMetrics(float(self.count), 1.0, EVENLY, 1.0, 0.1)


def test_evaluations_are_due_at_equal_fractions_and_never_twice() -> None:
    validation = Validation(CountingSet(), evaluations=4)
    assert validation.metrics is None
    evaluated = []
    for fraction in (0.0, 0.2, 0.25, 0.3, 0.76, 0.9, 1.0, 1.0):
        if validation.is_due(fraction):
            validation.evaluate(fraction, lambda labels: labels)
            evaluated.append((fraction, validation.done, validation.metrics.fid))
    assert evaluated == [(0.25, 1, 1.0), (0.76, 3, 2.0), (1.0, 4, 3.0)]
