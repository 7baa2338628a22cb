"""Distances from the served data against TFDV's and by hand, and labels against images."""

import numpy as np
import pytest
import tensorflow_data_validation as tfdv
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from components.data_gate.drift import Distance, jensen_shannon, measure
from components.data_gate.labels import agrees, by_class, nearest
from components.data_gate.statistics import (
    DataStatistics,
    Digits,
    class_means,
    describe,
)
from mnist.features import derive_scalars
from pipeline.pipeline import SCHEMA_FILE

SCHEMA = tfdv.load_schema_text(SCHEMA_FILE)


def as_digits(images: np.ndarray, labels: np.ndarray) -> Digits:
    columns = {"label": labels.astype(np.int64), **derive_scalars(images)}
    return Digits(images.reshape(-1, 784), columns)


@pytest.fixture(scope="module")
def halves(digits) -> tuple[Digits, Digits]:
    """Digits in two parts that differ: the second is shifted, and has hardly a 4."""
    images, labels = digits
    keep = np.arange(500, 1000)[(labels[500:] != 4) | (np.arange(500) < 50)]
    moved = np.roll(images[keep], 1, axis=2)
    return as_digits(images[:500], labels[:500]), as_digits(moved, labels[keep])


def by_tfdv(new: Digits, before: Digits) -> dict[tuple[str, str], float]:
    """What TFDV's drift comparators say, by feature and kind of distance."""
    measurement = anomalies_pb2.DriftSkewInfo.Measurement
    kinds = {
        measurement.JENSEN_SHANNON_DIVERGENCE: "jensen_shannon",
        measurement.L_INFTY: "l_infinity",
    }
    bounded = schema_pb2.Schema()
    bounded.CopyFrom(SCHEMA)
    for feature in bounded.feature:
        if feature.WhichOneof("domain_info"):
            name = "infinity_norm" if feature.name == "label" else "jensen_shannon_divergence"
            getattr(feature.drift_comparator, name).threshold = 0.0
    statistics = [describe(part, SCHEMA) for part in (new, before)]
    report = tfdv.validate_statistics(statistics[0], bounded, previous_statistics=statistics[1])
    return {
        (info.path.step[0], kinds[each.type]): each.value
        for info in report.drift_skew_info
        for each in info.drift_measurements
    }


def without_sevens(images: np.ndarray, labels: np.ndarray) -> Digits:
    kept = (labels != 7) | (np.arange(len(labels)) % 5 == 0)
    return as_digits(images[kept], labels[kept])


@pytest.mark.parametrize(
    "change",
    [
        as_digits,
        without_sevens,
        lambda images, labels: as_digits(np.maximum(images, np.roll(images, 1, axis=2)), labels),
        lambda images, labels: as_digits(np.roll(images, 9, axis=2), labels),
    ],
    ids=["none", "few sevens", "thick", "wrapped"],
)
def test_the_distances_are_those_of_tfdv(digits, change):
    images, labels = digits
    before, new = as_digits(images[:500], labels[:500]), change(images[500:], labels[500:])
    found = measure(new.columns, describe(before, SCHEMA).datasets[0])
    expected = by_tfdv(new, before)
    assert len(expected) == 8
    assert {(each.feature, each.kind): each.value for each in found} == pytest.approx(
        expected, abs=1e-5
    )


def test_the_label_and_a_scalar_by_hand():
    """Shares of 1/4 and 3/4 against halves; and all in one bin against an even two."""
    images = np.zeros((4, 28, 28), np.uint8)
    before = as_digits(images, np.array([3, 3, 8, 8]))
    [label, *scalars] = measure(
        {"label": np.array([3, 8, 8, 8]), "pixel_mean": np.array([0.0, 0.0, 1.0, 1.0])},
        describe(before, SCHEMA).datasets[0],
    )
    assert label == Distance("label", "l_infinity", 0.25)
    # 3/4 log2(4/3) + 1/4 log2(4), and for the other 1/2 log2(2/3) + 1/2 log2(2): 0.3113.
    assert scalars == [Distance("pixel_mean", "jensen_shannon", pytest.approx(0.311278, abs=1e-6))]


counts = hypothesis_numpy.arrays(np.float64, 12, elements=st.integers(0, 1000).map(float)).filter(
    lambda array: array.sum() > 0
)


@given(first=counts, second=counts)
@settings(deadline=None)
def test_the_divergence_against_its_formula(first, second):
    p, q = first / first.sum(), second / second.sum()
    mean = (p + q) / 2
    entropy = [sum(x * np.log2(x / m) for x, m in zip(s, mean, strict=True) if x) for s in (p, q)]
    assert jensen_shannon(first, second) == pytest.approx(sum(entropy) / 2, abs=1e-9)
    assert jensen_shannon(first, second) == jensen_shannon(second, first) >= 0


def test_the_same_data_are_at_no_distance(halves):
    statistics = describe(halves[0], SCHEMA)
    found = measure(halves[0].columns, statistics.datasets[0])
    assert len(found) == 8
    assert max(distance.value for distance in found) == pytest.approx(0, abs=1e-12)


def test_statistics_outlast_a_file(halves):
    spans = [{"span": 3, "fingerprint": "f"}]
    kept = DataStatistics(describe(halves[0], SCHEMA), class_means(halves[0]), spans)
    found = DataStatistics.of_files(kept.as_files())
    assert found.features == kept.features
    np.testing.assert_array_equal(found.class_means, kept.class_means)
    assert found.fingerprints == ["f"]
    for name in kept.as_files():
        with pytest.raises(ValueError, match="statistics"):
            DataStatistics.of_files(kept.as_files() | {name: b"\xff\xff"})


def test_the_nearest_mean_by_brute_force(halves):
    first, second = halves
    means = class_means(first)
    distances = ((second.images[:, None].astype(float) - means[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(nearest(second.images, means), distances.argmin(axis=1))
    means[3] = np.nan
    assert 3 not in nearest(second.images, means)


def test_a_class_that_is_not_there_has_no_mean(halves):
    first, _ = halves
    rows = np.flatnonzero(first.labels == 7)
    few = Digits(first.images[rows], {"label": first.labels[rows]})
    means = class_means(few)
    assert np.isnan(means).all(axis=1).sum() == 9
    assert agrees(few, means).all()
    assert agrees(few, None).all()


def test_labels_that_fit_and_that_do_not(halves):
    first, _ = halves
    assert agrees(first, None).mean() > 0.65
    shuffled = np.random.default_rng(0).permutation(first.labels)
    assert agrees(Digits(first.images, {"label": shuffled}), None).mean() < 0.2


def test_swapped_labels_are_seen_in_their_classes(halves):
    first, _ = halves
    swapped = np.choose(first.labels, [0, 1, 2, 5, 4, 3, 6, 7, 8, 9])
    renamed = Digits(first.images, {"label": swapped})
    found = by_class(renamed, agrees(renamed, class_means(first)))
    assert sum(count for _, count in found.values()) == len(first)
    assert {digit for digit, (share, _) in found.items() if share < 0.35} == {3, 5}


def test_a_single_digit_agrees_with_nothing(halves):
    assert not agrees(halves[0].rows(0, 1), None).any()
