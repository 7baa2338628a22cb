"""Chance does not decide: how often equals are rejected, and how often a fifth worse is not."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from evaluation.decision import check_baseline
from evaluation.evaluate import RESAMPLES, SEED
from evaluation.settings import Tolerances
from metrics.frechet import Gaussian, fit_gaussian, gaussian_distance
from metrics.resampling import Estimate, half_samples, interval_of
from mnist.spans import resolve_span
from mnist.splits import load_splits
from models.digit_classifier.training import ClassifierTrainer

COUNT = 20_000
TRIALS = 40

pytestmark = pytest.mark.slow


class Pool:
    """Digits to sample from, and the reference, as a classifier sees them."""

    def __init__(self, mnist_dir: Path) -> None:
        digits = load_splits(resolve_span(str(mnist_dir), None), 0.1)
        images = {name: part.images.reshape(-1, 28, 28, 1) for name, part in digits.items()}
        labels = digits["train"].labels.astype(np.int64)
        trainer = ClassifierTrainer(images["train"], labels, steps=600)
        model = trainer.fit(lambda *progress: None)
        self.labels = labels
        self._images = images["train"]
        self._classify = lambda x: model.predict(x, batch_size=1000, verbose=0)[0]
        self.real = fit_gaussian(self._classify(images["eval"]))

    def softened(self, amount: float, count: int | None = None) -> np.ndarray:
        """Features of the digits blurred by a share, as a generator's are."""
        images = self._images[:count]
        blurred = ndimage.gaussian_filter(images.astype(np.float32), (0, 0.7, 0.7, 0))
        return self._classify(np.round((1 - amount) * images + amount * blurred).astype(np.uint8))

    def with_distance(self, target: float) -> np.ndarray:
        """Features of the digits, blurred until their distance is the target."""
        low, high = 0.0, 1.0
        for _ in range(8):
            amount = (low + high) / 2
            found = gaussian_distance(fit_gaussian(self.softened(amount, COUNT)), self.real)
            low, high = (amount, high) if found < target else (low, amount)
        return self.softened(amount)


@pytest.fixture(scope="module")
def pool(mnist_dir: Path) -> Pool:
    return Pool(mnist_dir)


@pytest.fixture(scope="module")
def rejections(pool: Pool) -> dict[str, int]:
    """Of TRIALS, by what the candidate is like; the baseline is twice as far as real digits are."""
    floor = gaussian_distance(fit_gaussian(pool.softened(0.0, COUNT)), pool.real)
    baseline = pool.with_distance(2 * floor)
    kinds = {"equal": baseline, "worse": pool.with_distance(1.2 * 2 * floor)}
    found = {}
    for kind, candidate in kinds.items():
        trials = (two_sets(pool.labels, seed) for seed in range(TRIALS))
        found[kind] = sum(
            is_rejected(candidate[first], baseline[second], pool.labels[first], pool.real)
            for first, second in trials
        )
    return found


def two_sets(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two sets that share none, as many of each digit, in the same order."""
    random = np.random.default_rng(seed)
    rows = [random.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    share = COUNT // 10
    sides = [np.concatenate([part[s : s + share] for part in rows]) for s in (0, share)]
    return sides[0], sides[1]


def is_rejected(
    candidate: np.ndarray, baseline: np.ndarray, labels: np.ndarray, real: Gaussian
) -> bool:
    halves = half_samples(labels, RESAMPLES, SEED)

    def distance(features: np.ndarray) -> float:
        return gaussian_distance(fit_gaussian(features), real)

    gap = distance(candidate) - distance(baseline)
    draws = np.array([distance(candidate[rows]) - distance(baseline[rows]) for rows in halves])
    [check] = check_baseline(
        {"fid": Estimate(gap, interval_of(gap, draws))},
        {"fid": Estimate(distance(baseline), None)},
        Tolerances(),
    )
    return not check.passed


def test_equals_are_rejected_in_at_most_1_of_20(rejections: dict[str, int]) -> None:
    assert rejections["equal"] <= TRIALS / 20


def test_a_fifth_worse_is_caught_in_at_least_19_of_20(rejections: dict[str, int]) -> None:
    assert rejections["worse"] >= TRIALS * 19 / 20
