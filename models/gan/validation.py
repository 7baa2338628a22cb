"""Validation of the generator in training, on images that it is not trained on."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metrics.frechet import fit_gaussian, gaussian_distance
from metrics.labels import class_shares, conditional_accuracy

# Images uint8 [n, 28, 28, 1] to features float32 [n, d] and logits float32 [n, 10].
Extractor = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

_LEAST_CLASS_SHARE = 0.01
_LEAST_VARIANCE_RATIO = 0.25


@dataclass(frozen=True)
class ValidationMetrics:
    """Metrics of generated images against the validation set.

    Attributes:
      fid: Frechet distance to the validation set in the classifier's features, 0 or more.
      variance_ratio: total variance of the features divided by the variance of the validation set.
      class_shares: share of each predicted label 0..9, each 0..1.
      conditional_accuracy: share of images whose predicted label is their label, 0..1.
      relative_fid: `fid` over the total variance of the validation set. It does not depend on the
        scale of the features, so it is comparable between classifiers.
    """

    fid: float
    variance_ratio: float
    class_shares: tuple[float, ...]
    conditional_accuracy: float
    relative_fid: float

    @property
    def collapse(self) -> str | None:
        """Describes a mode collapse; None if there is none."""
        missing = [label for label in range(10) if self.class_shares[label] < _LEAST_CLASS_SHARE]
        if missing:
            return f"the labels {', '.join(map(str, missing))} are missing from its images"
        if self.variance_ratio < _LEAST_VARIANCE_RATIO:
            return f"its feature variance is {self.variance_ratio:.0%} of real images'"
        return None


class ValidationSet:
    """Labels of the validation images, and the distribution of their features."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, extract: Extractor) -> None:
        """Extracts the features of images uint8 [n, 28, 28, 1], n being 2 or more.

        Attributes:
          labels: int [n], 0..9, to generate one image each for `evaluate`.
        """
        self._extract = extract
        self.labels = labels
        features, _ = extract(images)
        self._reference = fit_gaussian(features)

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> ValidationMetrics:
        """Compares images uint8 [n, 28, 28, 1], generated for labels int [n], with the set."""
        features, logits = self._extract(images)
        generated = fit_gaussian(features)
        fid = gaussian_distance(generated, self._reference)
        variance = max(float(np.trace(self._reference.covariance)), 1e-12)
        return ValidationMetrics(
            fid=fid,
            variance_ratio=float(np.trace(generated.covariance)) / variance,
            class_shares=tuple(class_shares(logits).tolist()),
            conditional_accuracy=conditional_accuracy(labels, logits),
            relative_fid=fid / variance,
        )


class Validation:
    """Evaluates a generator at equal fractions of the budget.

    Attributes:
      done: how many of the evaluations are done or have been skipped.
      metrics: of the last evaluation; None before the first.
      seconds: duration of the last evaluation.
    """

    def __init__(self, validation_set: ValidationSet, evaluations: int) -> None:
        """Schedules the evaluations.

        Args:
          validation_set: what generated images are compared with.
          evaluations: over the budget.
        """
        self._set = validation_set
        self._evaluations = evaluations
        self.done = 0
        self.metrics: ValidationMetrics | None = None
        self.seconds = 0.0

    def is_due(self, fraction: float) -> bool:
        """Whether an evaluation is due at this fraction of the budget."""
        return self._due(fraction) > self.done

    def evaluate(
        self, fraction: float, generate: Callable[[np.ndarray], np.ndarray]
    ) -> ValidationMetrics:
        """Evaluates once, whatever the number of evaluations that are due.

        Args:
          fraction: of the budget used, 0..1.
          generate: maps labels int [n] to images uint8 [n, 28, 28, 1].
        """
        started = time.monotonic()
        self.done = self._due(fraction)
        labels = self._set.labels
        self.metrics = self._set.evaluate(generate(labels), labels)
        self.seconds = time.monotonic() - started
        return self.metrics

    def _due(self, fraction: float) -> int:
        return int(fraction * self._evaluations + 1e-9)


def split_validation_set(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits row numbers at random.

    Args:
      count: of the rows.
      share: of the validation set, 0..1.
      seed: of the split.

    Returns:
      Rows int [m] to train on and rows int [count - m] of the validation set, each ascending. The
      validation set has at least 2 rows.
    """
    shuffled = np.random.default_rng(seed).permutation(count)
    validation = max(round(count * share), 2)
    return np.sort(shuffled[validation:]), np.sort(shuffled[:validation])
