"""Metrics that train a network: what it cannot tell apart, and what it must not miss."""

import numpy as np
import pytest

from evaluation.deep import classification_accuracy_score, two_sample_accuracy

QUICK = {"seed": 0, "epochs": 5}
STEPS = 100


@pytest.fixture(scope="module")
def images(digits):
    """1,000 real digits, uint8 [1000, 28, 28, 1]."""
    return digits[0][..., np.newaxis]


@pytest.fixture(scope="module")
def labels(digits):
    return digits[1].astype(np.int64)


def test_two_halves_of_the_same_digits_cannot_be_told_apart(images):
    found = two_sample_accuracy(images[:500], images[500:], **QUICK)
    # Four standard errors of 500 guesses.
    assert found.accuracy == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 500))
    assert found.interval.low < found.accuracy < found.interval.high
    assert found.interval.high - found.interval.low == pytest.approx(0.087, abs=0.003)


def test_noise_is_told_from_digits(images):
    noise = np.random.default_rng(0).integers(0, 256, images.shape, np.uint8)
    found = two_sample_accuracy(noise, images, **QUICK)
    assert found.accuracy > 0.99
    assert found.interval.low > 0.98


def test_a_background_that_is_not_quite_black_is_seen(images):
    found = two_sample_accuracy(np.maximum(images[:500], 1), images[500:], **QUICK)
    assert found.accuracy > 0.99


@pytest.mark.slow
def test_the_same_seed_gives_the_same_accuracy(images):
    halves = images[:500] // 2, images[500:] // 2
    first, same = (two_sample_accuracy(*halves, seed=1, epochs=1) for _ in range(2))
    assert first == same


def test_of_the_larger_set_only_as_many_are_used(images):
    # Otherwise naming the larger kind each time would be right on nine of ten.
    found = two_sample_accuracy(images[:100], images[100:], seed=0, epochs=5)
    assert found.accuracy < 0.7


@pytest.mark.slow
def test_real_digits_teach_a_classifier(images, labels):
    found = classification_accuracy_score(
        images[:700], labels[:700], images[700:], labels[700:], seed=0, steps=STEPS
    )
    assert found > 0.85


@pytest.mark.slow
def test_labels_that_are_not_what_is_drawn_teach_nothing(images, labels):
    shuffled = np.random.default_rng(0).permutation(labels[:700])
    found = classification_accuracy_score(
        images[:700], shuffled, images[700:], labels[700:], seed=0, steps=STEPS
    )
    assert found == pytest.approx(0.1, abs=0.1)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((20, 28, 28, 1), np.float32),
        np.zeros((20, 28, 28), np.uint8),
        np.zeros((9, 28, 28, 1), np.uint8),
    ],
)
def test_images_of_another_kind_are_refused(images, labels, bad):
    with pytest.raises(ValueError, match="generated: "):
        two_sample_accuracy(bad, images, seed=0)
    with pytest.raises(ValueError, match="real: "):
        two_sample_accuracy(images, bad, seed=0)
    with pytest.raises(ValueError, match="test_images: "):
        classification_accuracy_score(images, labels, bad, labels[: len(bad)], seed=0, steps=1)


@pytest.mark.parametrize("arguments", [{"train_share": 1.0}, {"train_share": 0.0}, {"epochs": 0}])
def test_a_test_without_training_or_testing_is_refused(images, arguments):
    with pytest.raises(ValueError, match="leaves nothing"):
        two_sample_accuracy(images, images, seed=0, **arguments)


@pytest.mark.parametrize(
    "change",
    [
        lambda labels: labels[:-1],
        lambda labels: labels.astype(np.float32),
        lambda labels: labels + 1,
    ],
)
def test_labels_that_do_not_fit_are_refused(images, labels, change):
    with pytest.raises(ValueError, match="train_labels: "):
        classification_accuracy_score(images, change(labels), images, labels, seed=0, steps=1)
