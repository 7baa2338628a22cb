"""The training loop: budget, evaluations, early stopping, interruptions and checkpoints."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from gan_helpers import (
    SGD,
    TINY,
    ScriptedValidationSet,
    assert_close,
    forty,
    make_update,
    same,
    weights,
)

from models.gan.averaged import AveragedGenerator
from models.gan.checkpoints import Checkpoints
from models.gan.device_loop import DeviceLoop
from models.gan.settings import TrainSettings
from models.gan.training import InterruptedTrainingError, Training, prepare_training, train

EACH_CALL = {"steps_per_execution": 1, "report_seconds": 1e-9}
Make = Callable[..., Training]


@pytest.fixture(scope="module")
def make(digits: tuple[np.ndarray, np.ndarray]) -> Make:
    """Prepares a training on 40 digits, with the FIDs that its evaluations are to find."""

    def build(fids: Sequence[float] | None = None, **changed: Any) -> Training:
        validation_set: Any = None if fids is None else ScriptedValidationSet(fids)
        settings = TrainSettings(**(TINY | changed))
        return prepare_training(settings, *forty(digits), validation_set=validation_set)

    return build


def counting(training: Training) -> Training:
    """In place of learning, each update adds 1 to the EMA; the loop around it is the same."""
    gan: Any = training.gan

    def update(gan: Any, data: Any, noise_std: tf.Tensor) -> tf.Tensor:
        for variable in gan.ema:
            variable.assign_add(tf.ones_like(variable))
        return tf.stack([noise_std, 2.0, 3.0, 4.0])

    for variable in gan.ema:
        variable.assign(tf.zeros_like(variable))
    data: Any = type("NoData", (), {"replicas": 1})
    training.device_loop = DeviceLoop(gan, data, tf.distribute.get_strategy(), update)
    return training


def exported(training: Training) -> float:
    """How many updates the generator to export has seen."""
    (value,) = {float(x) for w in weights(training.best.network) for x in w.flat}
    return value


def checkpoints_of(training: Training, root: Path) -> Checkpoints:
    return Checkpoints(str(root), "key", training.variables())


def test_every_call_is_reported_with_the_fraction_that_it_began_at(make, quick: None) -> None:
    training = counting(make(**EACH_CALL, max_steps=8, instance_noise=0.8))
    reports = list(train(training))
    assert [progress.step for progress in reports] == list(range(1, 9))
    assert [progress.fraction for progress in reports] == [i / 8 for i in range(1, 9)]
    assert all(progress.steps_per_second > 0 for progress in reports)
    noise_std = [progress.scalars["discriminator_loss"] for progress in reports]
    np.testing.assert_allclose(noise_std, [0.8 * (1 - i / 8) for i in range(8)], rtol=1e-6)
    assert (training.step, exported(training)) == (8, 8)
    assert list(train(training)) == []
    assert training.step == 8


def test_updates_in_one_call_or_in_many(digits, make) -> None:
    """A graph of three updates a call, of five that do not divide into threes, and no graph."""
    changed = SGD | {"max_steps": 5, "final_learning_rate_factor": 1.0, "penalty_interval": 2}
    training, update = make(**changed, steps_per_execution=3), make_update(digits, **changed)
    *_, report = train(training)
    assert (report.step, report.fraction, training.step) == (5, 1.0, 5)
    scalars = update.run(5)
    found = list(report.scalars.values())  # of the last call, of two updates
    np.testing.assert_allclose(found, np.mean(scalars[3:], axis=0), rtol=1e-3, atol=1e-5)
    trained = weights(training.gan.generator) + weights(training.gan.discriminator)
    assert_close(trained, update.weights(), rtol=5e-3, atol=5e-5)
    assert same(weights(training.best.network), [w.numpy() for w in training.gan.ema])


def test_a_budget_of_time_ends(make, quick: None) -> None:
    training = counting(make(max_seconds=0.3, max_steps=None, steps_per_execution=4))
    started = time.monotonic()
    reports = list(train(training))
    assert 0.3 <= reports[-1].seconds <= time.monotonic() - started
    assert reports[-1].fraction == 1.0
    assert reports[-1].step == training.step >= 1


def test_the_best_is_kept_and_not_the_last(make, quick: None) -> None:
    training = counting(make([5.0, 3.0, 4.0, 3.5], **EACH_CALL, max_steps=8, evaluations=4))
    fids = [progress.validation and progress.validation.fid for progress in train(training)]
    assert fids == [None, 5, 5, 3, 3, 4, 4, 3.5]
    assert training.early_stopping.fids == [5, 3, 4, 3.5]
    assert exported(training) == 4


def test_each_evaluation_is_reported_at_its_step(make, quick: None) -> None:
    recipe = {"max_steps": 8, "steps_per_execution": 1, "report_seconds": 3600, "evaluations": 4}
    training = counting(make([5.0, 3.0, 4.0, 3.5], **recipe))
    reported = [(progress.step, progress.validation.fid) for progress in train(training)]
    assert reported == [(2, 5), (4, 3), (6, 4), (8, 3.5)]


def test_the_best_has_the_batch_statistics_of_its_step(make, quick: None) -> None:
    training = make([1.0, 2.0], **EACH_CALL, max_steps=2, evaluations=2)
    list(train(training))
    best, last = training.best.network, training.averaged.network
    assert "gamma" in [variable.name for variable in best.trainable_variables]
    again = AveragedGenerator(training.settings)
    again.set_weights([tf.Variable(w) for w in weights(best)])
    assert_close(again.network.get_weights(), best.get_weights())
    assert not same(last.get_weights(), best.get_weights())


def test_images_come_from_the_ema_and_from_the_same_latents(make, quick: None) -> None:
    training, labels = make(), np.arange(20) % 10
    first = training.generate(labels)
    assert (first.shape, first.dtype) == ((20, 28, 28, 1), np.uint8)
    for variable in training.gan.generator.trainable_variables:
        variable.assign(0 * variable.value)
    np.testing.assert_array_equal(first, training.generate(labels))
    for variable in training.gan.ema:
        variable.assign(0.5 - variable)
    assert not np.array_equal(first, training.generate(labels))


def test_the_generator_to_export_computes_in_float32(make) -> None:
    training = make(precision="float16")
    assert {v.dtype for v in training.best.network.trainable_variables} == {"float32"}
    assert training.best.network.get_layer("up_14").compute_dtype == "float32"


@pytest.mark.parametrize(
    ("fids", "patience", "steps"),
    [
        ([5, 4, 4.5, 4.5, 1, 1, 1, 1], 2, 4),
        ([5, 6, 1, 1, 1, 1, 1, 1], 1, 2),
        ([8, 7, 6, 5, 4, 3, 2, 1], 1, 8),
        ([5, 6, 4, 6, 3, 6, 2, 6], 2, 8),
        ([1, 2, 2, 2, 2, 2, 2, 2], None, 8),
    ],
)
def test_early_stopping(
    make, quick: None, fids: list[float], patience: int | None, steps: int
) -> None:
    recipe = EACH_CALL | {"max_steps": 8, "evaluations": 8, "patience": patience}
    training = counting(make(fids, **recipe))
    reports = list(train(training))
    assert reports[-1].step == training.step == steps
    assert exported(training) == 1 + int(np.argmin(fids[:steps]))


def test_a_call_across_many_evaluations_makes_one(make, quick: None) -> None:
    training = counting(make([5.0, 4.0], max_steps=8, steps_per_execution=5, evaluations=8))
    list(train(training))
    assert training.early_stopping.fids == [5, 4]
    assert exported(training) == 8


def test_evaluations_without_a_validation_set_or_the_reverse(make, quick: None) -> None:
    for training in (make(max_steps=3), make([], max_steps=3, evaluations=0)):
        assert list(train(counting(training)))[-1].validation is None
        assert exported(training) == 3


def interrupt(training: Training, at: int, checkpoints: Checkpoints | None) -> str:
    reports = train(training, checkpoints)
    assert [next(reports).step for _ in range(at)] == list(range(1, at + 1))
    training.stop.requested = True
    with pytest.raises(InterruptedTrainingError) as caught:
        next(reports)
    return str(caught.value)


def test_an_interrupted_training_resumes(make, quick: None, tmp_path: Path) -> None:
    """Evaluations, early stopping and the best generator so far included."""
    recipe = EACH_CALL | {"max_steps": 10, "evaluations": 10, "patience": 3}
    training = counting(make([9, 8, 3, 5, 6], **recipe))
    message = interrupt(training, 4, checkpoints_of(training, tmp_path))
    assert message == "training stopped at step 5; run again to resume it"
    training = counting(make([4, 1], **recipe))
    reports = list(train(training, checkpoints_of(training, tmp_path)))
    # The third was the best, and the sixth the third since.
    assert [progress.step for progress in reports] == [6]
    assert reports[0].fraction == 0.6
    assert exported(training) == 3
    assert training.early_stopping.fids == [9, 8, 3, 5, 6, 4]


def test_a_training_that_is_stopped_without_checkpoints_says_so(make, quick: None) -> None:
    training = counting(make(**EACH_CALL, max_steps=10))
    assert interrupt(training, 1, None).endswith("step 2; no checkpoint was kept")


def test_a_stop_after_the_last_call_changes_nothing(make, quick: None) -> None:
    training = counting(make(max_steps=3, steps_per_execution=3))
    training.stop.requested = True
    assert [progress.step for progress in train(training)] == [3]
    assert exported(training) == 3


def test_seconds_continue_and_what_is_exported_was_trained(
    make, quick: None, tmp_path: Path
) -> None:
    """Interrupted after the budget of time but before its only evaluation."""
    recipe: dict[str, Any] = {"max_seconds": 50, "max_steps": None, "evaluations": 1}
    training = counting(make([], **recipe))
    training.device_loop.run(3, 0.0)
    extra = {"seconds": 50.1, "fids": [], "evaluations": 0, "lineage": {}}
    checkpoints_of(training, tmp_path).save(3, extra)
    again = counting(make([1.0], **recipe))
    list(train(again, checkpoints_of(again, tmp_path)))
    assert (again.step, exported(again)) == (3, 3)


def test_checkpoints_come_at_their_interval(make, quick: None, tmp_path: Path) -> None:
    for seconds, expected in ((1e-9, [2, 4, 6]), (3600, [])):
        recipe = {"max_steps": 8, "steps_per_execution": 2, "checkpoint_seconds": seconds}
        training = counting(make(**recipe))
        checkpoints, saved = checkpoints_of(training, tmp_path), []
        checkpoints.save = lambda step, extra, saved=saved: saved.append((step, json.dumps(extra)))
        list(train(training, checkpoints))
        assert [step for step, _ in saved] == expected
