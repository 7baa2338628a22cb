"""The digit classifier learns, repeats itself, and is exported as it was trained."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from saved_variables import variables_of

from mnist.records import serialize_examples
from models.digit_classifier.features import FeatureExtractor
from models.digit_classifier.network import FEATURES, build_classifier
from models.digit_classifier.run_fn import ClassifierTooWeakError, export_classifier, run_fn
from models.digit_classifier.settings import ClassifierSettings
from models.digit_classifier.training import ClassifierTrainer, accuracy, shift

STEPS = 60


@pytest.fixture(scope="module")
def split(digits):
    """700 training and 300 eval digits: images uint8 [n, 28, 28, 1], labels int64 [n]."""
    images, labels = digits[0][..., np.newaxis], digits[1].astype(np.int64)
    return (images[:700], labels[:700]), (images[700:], labels[700:])


def train(split, steps=STEPS, seed=0):
    return ClassifierTrainer(*split[0], steps=steps, seed=seed).fit(lambda *progress: None)


@pytest.fixture(scope="module")
def trained(split):
    return train(split)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("classifier") / "Format-Serving")
    export_classifier(trained, directory)
    return directory


def test_features_are_what_a_relu_leaves_and_logits_one_a_digit():
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    features, logits = build_classifier(0)(images, training=False)
    assert features.shape == (5, FEATURES)
    assert logits.shape == (5, 10)
    assert features.dtype == logits.dtype == tf.float32
    assert features.numpy().min() >= 0


def test_the_seed_chooses_the_weights():
    first, same, other = (build_classifier(seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_a_few_steps_on_few_digits_teach_most_of_them(trained, split):
    assert accuracy(trained, *split[1]) > 0.8


def test_the_same_seed_gives_the_same_classifier_another_seed_another(trained, split):
    _, (images, _) = split
    again = train(split)
    np.testing.assert_array_equal(again(images)[1], trained(images)[1])
    other = train(split, seed=1)
    assert not np.array_equal(other(images)[1], trained(images)[1])


def test_progress_is_reported_up_to_the_last_step(split):
    reported = []
    ClassifierTrainer(*split[0], steps=51).fit(lambda *progress: reported.append(progress))
    steps, losses, seconds = ([progress[i] for progress in reported] for i in range(3))
    assert steps == sorted(set(steps))
    assert steps[-1] == 51
    assert np.isfinite(losses).all()
    assert seconds == sorted(seconds)


def test_trains_on_fewer_digits_than_a_batch_holds(split):
    images, labels = split[0]
    model = ClassifierTrainer(images[:3], labels[:3], steps=2).fit(lambda *progress: None)
    assert np.isfinite(model(images[:3])[1]).all()


def test_shift_moves_each_picture_by_whole_pixels():
    images = np.zeros((3, 28, 28, 1), np.uint8)
    images[:, 10, 20] = 255
    images[:, 0, 0] = 100
    moved = shift(tf.constant(images), tf.constant([[0, 0], [2, 0], [-1, -2]])).numpy()
    np.testing.assert_array_equal(moved[0], images[0])
    assert moved.dtype == np.uint8
    assert np.argwhere(moved[1, ..., 0]).tolist() == [[10, 18]]
    assert np.argwhere(moved[2, ..., 0]).tolist() == [[2, 1], [12, 21]]


def test_the_export_gives_the_same_features_and_logits(trained, exported, split):
    images, _ = split[1]
    expected = trained(images, training=False)
    for seen, wanted in zip(FeatureExtractor(exported)(images), expected, strict=True):
        assert seen.dtype == np.float32
        np.testing.assert_allclose(seen, wanted, rtol=1e-4, atol=1e-5)


def test_each_variable_is_exported_once(trained, exported):
    in_graph, restored, stored = variables_of(exported)
    assert in_graph == restored
    # Seeds of the layers are variables that the signature does not read.
    assert len(in_graph) == stored == len(trained.weights)


def test_features_do_not_depend_on_the_batch_they_are_computed_in(exported, split):
    images, _ = split[0]
    extractor = FeatureExtractor(exported)
    many = np.tile(images, (2, 1, 1, 1))[:1100]
    for whole, alone in zip(extractor(many), extractor(many[1050:1053]), strict=True):
        assert whole.shape[0] == 1100
        np.testing.assert_allclose(whole[1050:1053], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 28, 28, 1), np.float32), np.zeros((2, 28, 28), np.uint8)],
    ids=["float", "rank"],
)
def test_the_extractor_refuses_what_is_not_a_batch_of_digits(exported, images):
    with pytest.raises(ValueError, match="expected uint8"):
        FeatureExtractor(exported)(images)


def arguments(folder: Path, split, **settings) -> SimpleNamespace:
    """What TFX's Trainer hands to `run_fn`, for records written into a folder."""
    folder.mkdir(exist_ok=True)
    for name, (images, labels) in zip(("train", "eval"), split, strict=True):
        with tf.io.TFRecordWriter(str(folder / f"{name}.gz"), "GZIP") as writer:
            for record in serialize_examples(images[..., 0], labels):
                writer.write(record)
    return SimpleNamespace(
        train_files=[str(folder / "train.gz")],
        eval_files=[str(folder / "eval.gz")],
        serving_model_dir=str(folder / "Format-Serving"),
        model_run_dir=str(folder / "model_run"),
        custom_config={"settings": settings},
    )


def test_run_fn_leaves_a_model_its_metrics_and_a_line_of_progress(tmp_path, split, caplog):
    caplog.set_level(logging.INFO, "mnist_gan.progress")
    run_fn(arguments(tmp_path, split, steps=60, min_accuracy=0.5))
    metrics = json.loads((tmp_path / "model_run" / "metrics.json").read_text())
    assert metrics["steps"] == 60
    images, labels = split[1]
    _, logits = FeatureExtractor(str(tmp_path / "Format-Serving"))(images)
    seen = (logits.argmax(axis=1) == labels).mean()
    assert metrics["accuracy"] == pytest.approx(seen, abs=0.004)
    assert f"{metrics['accuracy']:.2%}" in caplog.text


def test_a_classifier_that_is_too_weak_is_an_error_and_leaves_no_model(tmp_path, split):
    given = arguments(tmp_path, split, steps=1, min_accuracy=0.99)
    with pytest.raises(ClassifierTooWeakError, match=r"at least 99\.00%.*steps"):
        run_fn(given)
    assert not (tmp_path / "Format-Serving").exists()


@pytest.mark.slow
def test_the_defaults_reach_what_they_promise_on_all_digits(mnist_dir):
    from mnist.spans import resolve_span
    from mnist.splits import load_splits

    train_digits, eval_digits = load_splits(resolve_span(str(mnist_dir), None), 0.1).values()
    sets = [
        (digits.images.reshape(-1, 28, 28, 1), digits.labels.astype(np.int64))
        for digits in (train_digits, eval_digits)
    ]
    assert accuracy(train(sets, ClassifierSettings().steps), *sets[1]) >= 0.992
