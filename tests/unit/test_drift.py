"""Distances between statistics against SciPy's, and labels against pictures."""

import numpy as np
import pytest
import tensorflow_data_validation as tfdv
from scipy.spatial.distance import jensenshannon

from components.data_gate.drift import measure
from components.data_gate.labels import agrees, by_class, nearest
from components.data_gate.statistics import (
    DataStatistics,
    Digits,
    bin_edges,
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


def test_distances_are_scipys(halves):
    first, second = halves
    found = measure(describe(second, SCHEMA), describe(first, SCHEMA), SCHEMA)
    assert len(found) == 8
    by_name = {distance.feature: distance for distance in found}
    shares = [np.bincount(part.labels, minlength=10) / len(part) for part in halves]
    assert by_name["label"].kind == "l_infinity"
    assert by_name["label"].value == pytest.approx(np.abs(shares[0] - shares[1]).max(), abs=1e-6)
    for feature in SCHEMA.feature:
        if feature.name in ("image", "label"):
            continue
        edges = bin_edges(feature)
        # A digit may be wider than the schema allows: the outermost bins take it.
        inside = [np.clip(part.columns[feature.name], edges[0], edges[-1]) for part in halves]
        counts = [np.histogram(values, edges)[0] for values in inside]
        expected = jensenshannon(*counts, base=2) ** 2
        assert by_name[feature.name].kind == "jensen_shannon"
        assert by_name[feature.name].value == pytest.approx(expected, abs=1e-6), feature.name


def test_the_same_data_are_at_no_distance(halves):
    statistics = describe(halves[0], SCHEMA)
    assert {d.value for d in measure(statistics, statistics, SCHEMA)} == {0.0}


def test_statistics_outlast_a_file(halves):
    spans = [{"span": 3, "fingerprint": "f"}]
    kept = DataStatistics(describe(halves[0], SCHEMA), class_means(halves[0]), spans)
    found = DataStatistics.of_files(kept.as_files())
    assert found.features == kept.features
    np.testing.assert_array_equal(found.class_means, kept.class_means)
    assert found.fingerprints == ["f"]
    for name in kept.as_files():
        with pytest.raises(ValueError, match="statistics cannot be read"):
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
