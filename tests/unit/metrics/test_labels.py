"""Metrics of labels by hand, against loops, and against the printed formula of the score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from metrics.labels import (
    class_accuracy,
    class_shares,
    classifier_score,
    conditional_accuracy,
    confusion_matrix,
    labels_in_shares,
    total_variation_distance,
)


def one_hot(predicted: list[int]) -> np.ndarray:
    return 3.0 * np.eye(10)[predicted] - 7.0


def test_labels_in_shares_by_hand() -> None:
    np.testing.assert_array_equal(labels_in_shares(23, np.full(10, 0.1)), np.arange(23) % 10)
    halves = np.zeros(10)
    halves[[3, 8]] = 0.75, 0.25
    assert labels_in_shares(8, halves).tolist() == [3, 3, 8, 3, 3, 3, 8, 3]


@given(
    st.lists(st.integers(0, 1000), min_size=10, max_size=10).filter(any),
    st.integers(1, 400),
    st.integers(1, 400),
)
def test_labels_are_in_their_shares_and_well_mixed(
    counts: list[int], count: int, head: int
) -> None:
    shares = np.array(counts) / sum(counts)
    labels = labels_in_shares(count, shares)
    assert len(labels) == count
    found = np.bincount(labels, minlength=10)
    assert (np.abs(found - count * shares) < 1 + 1e-6).all()
    assert not found[shares == 0].any()
    head = min(head, count)
    of_head = np.bincount(labels[:head], minlength=10)
    assert (np.abs(of_head - head * found / count) <= 5.5).all()


def test_conditional_accuracy_by_hand() -> None:
    logits = one_hot([3, 3, 9, 0])
    assert conditional_accuracy(np.array([3, 3, 9, 0]), logits) == 1.0
    assert conditional_accuracy(np.array([3, 4, 9, 1]), logits) == 0.5
    assert conditional_accuracy(np.array([0, 1, 2, 3]), logits) == 0.0
    assert conditional_accuracy(np.array([2]), np.array([[0.0, 0.1, 0.2, *[-5.0] * 7]])) == 1.0


@settings(max_examples=30, deadline=None)
@given(predicted=st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_class_shares_of_any_predictions(predicted: list[int]) -> None:
    shares = class_shares(one_hot(predicted))
    assert shares.tolist() == [predicted.count(digit) / len(predicted) for digit in range(10)]
    assert shares.sum() == pytest.approx(1)


def test_confusion_matrix_by_hand() -> None:
    counts = confusion_matrix(np.array([3, 3, 3, 0]), one_hot([3, 5, 5, 0]))
    assert (counts[3, 3], counts[3, 5], counts[0, 0], counts.sum()) == (1, 2, 1, 4)
    shares = class_accuracy(counts)
    assert (shares[0], shares[3]) == (1, pytest.approx(1 / 3))
    assert np.isnan(shares[[1, 2, 4, 5, 6, 7, 8, 9]]).all(), "labels without images"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_confusion_matrix_against_a_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, logits = random.integers(0, 10, 50), random.normal(size=(50, 10))
    counts = np.zeros((10, 10), int)
    for digit, row in zip(labels, logits, strict=True):
        counts[digit, np.argmax(row)] += 1
    np.testing.assert_array_equal(confusion_matrix(labels, logits), counts)
    assert counts.trace() / 50 == conditional_accuracy(labels, logits)


def test_total_variation_distance_by_hand() -> None:
    even, nine = np.full(10, 0.1), np.array([*[1 / 9] * 9, 0])
    assert total_variation_distance(even, even) == 0
    assert total_variation_distance(even, nine) == pytest.approx(0.1)
    assert total_variation_distance(np.eye(10)[0], np.eye(10)[1]) == 1


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
