"""Diversity within a class against the covariance matrix, and in cases with known answers."""

import numpy as np
import pytest

from metrics.diversity import class_variance, lowest_class_diversity


def test_class_variance_against_the_trace_of_the_covariance() -> None:
    random = np.random.default_rng(0)
    features, classes = random.gamma(2, size=(200, 6)), random.integers(0, 10, 200)
    expected = [np.trace(np.cov(features[classes == digit], rowvar=False)) for digit in range(10)]
    np.testing.assert_allclose(class_variance(features, classes), expected, rtol=1e-6)


def test_a_class_of_one_image_has_no_diversity() -> None:
    random = np.random.default_rng(0)
    features, classes = random.normal(size=(200, 6)), np.arange(200) % 10
    reference = class_variance(features, classes)
    assert lowest_class_diversity(features, classes, reference) == pytest.approx(1)
    assert lowest_class_diversity(features / 2, classes, reference) == pytest.approx(0.25)
    repeated = np.where((classes == 3)[:, np.newaxis], features[3], features)
    assert lowest_class_diversity(repeated, classes, reference) == pytest.approx(0, abs=1e-12)
    assert lowest_class_diversity(features[:9], classes[:9], reference) == 0
    assert lowest_class_diversity(features, classes, np.zeros(10)) == 0, "nothing to compare with"
