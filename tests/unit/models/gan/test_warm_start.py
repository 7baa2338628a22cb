"""Warm starts: what a training takes over, and when it falls back to a cold start."""

import dataclasses
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from gan_helpers import ScriptedValidationSet, forty
from pydantic import ValidationError

from models.gan import averaged
from models.gan.device_loop import NonFiniteLossError
from models.gan.settings import TrainSettings
from models.gan.training import Training, prepare_training, train
from models.gan.warm_start import (
    TrainingLineage,
    WarmStartError,
    WarmStartState,
    find_warm_start_state,
    read_origin,
    write_final_state,
)

TINY: dict[str, Any] = {
    "max_seconds": None,
    "max_steps": 4,
    "steps_per_execution": 1,
    "batch_size": 4,
    "latent_dim": 4,
    "generator_channels": (4, 4, 2),
    "discriminator_channels": (2, 4, 4),
    "dropout": 0.2,  # whose random numbers are state
    "evaluations": 4,
    "report_seconds": 1e-9,
}
Make = Callable[..., Training]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """The same code without the seconds that building a graph takes."""
    size, averaged.BATCH_SIZE = averaged.BATCH_SIZE, 20
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
    averaged.BATCH_SIZE = size


@pytest.fixture(scope="module")
def make(digits: tuple[np.ndarray, np.ndarray]) -> Make:
    """Prepares a training on 40 digits, with the FIDs that its evaluations are to find."""

    def build(fids: Sequence[float] = (9, 8, 7, 6), **changed: Any) -> Training:
        validation_set: Any = ScriptedValidationSet(fids)
        settings = TrainSettings(**(TINY | changed))
        return prepare_training(settings, *forty(digits), validation_set=validation_set)

    return build


def end(training: Training) -> Training:
    list(train(training))
    return training


@pytest.fixture(scope="module")
def served(make: Make) -> Training:
    """A cold training that ended; nobody changes it."""
    return end(make())


@pytest.fixture
def state(served: Training, tmp_path: Path) -> tuple[int, str]:
    """Version 5, and the folder of its state."""
    write(served, tmp_path / "5")
    return 5, str(tmp_path / "5")


def write(training: Training, folder: Path) -> None:
    write_final_state(
        str(folder), training.gan.warm_start_variables(), training.step, training.warm_start.lineage
    )


def values_of(training: Training) -> dict[str, bytes]:
    return {name: v.numpy().tobytes() for name, v in training.gan.warm_start_variables().items()}


def state_of(training: Training) -> WarmStartState:
    values = {name: v.numpy() for name, v in training.gan.warm_start_variables().items()}
    return WarmStartState(5, "a digest", values, training.warm_start.lineage.cold_start_fid)


# ------------------------------------------------------------------------------ what is taken over


def test_every_variable_is_taken_over_bit_for_bit(make, served, state) -> None:
    training = make(warm_start="served")
    variables = training.gan.warm_start_variables()
    groups = {name.rpartition("_")[0] for name in variables}
    assert groups == {
        "generator",
        "discriminator",
        "generator_optimizer",
        "discriminator_optimizer",
        "ema",
        "total_steps",
    }
    differing = [
        name for name, found in values_of(training).items() if found != values_of(served)[name]
    ]
    assert len(differing) > len(variables) / 2
    start = find_warm_start_state("served", state, variables)
    training.warm_start.begin_from(start)
    assert values_of(training) == values_of(served)
    assert (start.version, start.cold_start_fid) == (5, 0.09)
    assert training.warm_start.lineage.start == "warm from version 5"
    # The budget is its own, and so is the choice of its best moment.
    assert training.step == 0
    best = [w.tobytes() for w in training.best.network.get_weights()]
    assert best != [w.tobytes() for w in served.best.network.get_weights()]


def test_a_state_that_was_written_twice_is_read_the_same(served, tmp_path) -> None:
    write(served, tmp_path / "1")
    write(served, tmp_path / "2")
    first, second = (read_origin(str(tmp_path / version)) for version in "12")
    assert first == second
    assert len(first[0]) == 64
    assert first[1] is None


def test_the_ema_continues_without_its_warm_up(make, served) -> None:
    """Of the first update the average takes 1 - decay, where a cold one takes 9/11."""
    decay = 0.4
    training = make(
        warm_start="served", ema_decay=decay, max_steps=1, steps_per_execution=1, evaluations=0
    )
    training.warm_start.begin_from(state_of(served))
    before = [variable.numpy() for variable in training.gan.ema]
    list(train(training))
    current = training.gan.generator.trainable_variables
    for old, new, weight in zip(before, training.gan.ema, current, strict=True):
        expected = decay * old + (1 - decay) * weight.numpy()
        np.testing.assert_allclose(new.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert int(training.gan.total_steps) == TINY["max_steps"] + 1


# ------------------------------------------------------------------------------ what cannot be


def test_nothing_is_looked_for_unless_it_is_wanted(make, state) -> None:
    variables = make().gan.warm_start_variables()
    assert find_warm_start_state("none", state, variables) is None
    for wanted in ("served", "auto"):
        assert find_warm_start_state(wanted, None, variables) is None


def without_state(state: Path) -> None:
    shutil.rmtree(state)


def without_manifest(state: Path) -> None:
    (state / "manifest.json").unlink()


def truncated(state: Path) -> None:
    [data] = state.glob("state.data*")
    data.write_bytes(data.read_bytes()[:-8])


def altered(state: Path) -> None:
    [data] = state.glob("state.data*")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)


@pytest.mark.parametrize("damage", [without_state, without_manifest, truncated, altered])
def test_a_damaged_state_is_an_error_or_a_cold_start(
    make, state, damage: Callable[[Path], None]
) -> None:
    damage(Path(state[1]))
    require_no_warm_start(state, make().gan.warm_start_variables())


@pytest.mark.parametrize(
    "changed",
    [
        {"latent_dim": 5},
        {"generator_channels": (8, 4, 2)},
        {"conditional": False},
        {"optimizer": "sgd"},
        {"precision": "float16"},
    ],
)
def test_other_networks_are_an_error_or_a_cold_start(make, state, changed: dict[str, Any]) -> None:
    require_no_warm_start(state, make(**changed).gan.warm_start_variables())


def require_no_warm_start(state: tuple[int, str], variables: dict[str, tf.Variable]) -> None:
    with pytest.raises(WarmStartError) as caught:
        find_warm_start_state("served", state, variables)
    assert "version 5" in str(caught.value)
    assert "train.warm_start" in str(caught.value)
    assert find_warm_start_state("auto", state, variables) is None


def test_auto_needs_a_training_with_evaluations(make, tmp_path) -> None:
    unevaluated = end(make(evaluations=0))
    write(unevaluated, tmp_path / "1")
    state = (1, str(tmp_path / "1"))
    variables = unevaluated.gan.warm_start_variables()
    assert find_warm_start_state("auto", state, variables) is None
    assert find_warm_start_state("served", state, variables).cold_start_fid is None


@pytest.mark.parametrize("evaluations", [0, 1])
def test_auto_needs_an_evaluation_with_time_left_after_it(evaluations: int) -> None:
    with pytest.raises(ValidationError):
        TrainSettings(warm_start="auto", evaluations=evaluations)


# ------------------------------------------------------------------------------ fallback


def test_a_warm_start_that_is_no_worse_is_kept(make, served) -> None:
    training = make([9, 9, 9, 9], warm_start="auto")
    training.warm_start.begin_from(state_of(served))
    end(training)
    assert training.warm_start.lineage == TrainingLineage(
        "warm from version 5", "a digest", True, 0.09
    )
    assert int(training.gan.total_steps) == 2 * TINY["max_steps"]


def test_a_worse_warm_start_falls_back_to_a_cold_one(make, served, caplog) -> None:
    """What goes on is a training that was never warm, at the same place of its budget."""
    training = make([9.5, 8, 7, 6], warm_start="auto")
    cold = values_of(training)
    training.warm_start.begin_from(state_of(served))
    reports = train(training)
    with caplog.at_level(logging.WARNING, "mnist_gan.progress"):
        first = next(reports)
    assert first.step == 1
    assert values_of(training) == cold
    assert first.start == (
        "cold at step 1, because warm from version 5 led to a relative FID of 0.095 at the first "
        "evaluation, where a cold start had 0.09"
    )
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    rest = list(reports)
    assert [progress.step for progress in rest] == [2, 3, 4]
    assert int(training.gan.total_steps) == 3
    # Its own first evaluation is what it records for later warm starts.
    assert training.early_stopping.fids == [8, 7, 6]
    assert training.warm_start.lineage.cold_start_fid == 0.08
    assert training.warm_start.lineage.origin == "a digest"

    other = make(warm_start="auto", evaluations=2)
    other.gan.step.assign(1)
    for fraction in (0.25, 0.5, 0.75):
        other.device_loop.run(1, fraction)
    assert values_of(other) == values_of(training)


def test_under_served_there_is_no_fallback(make, served) -> None:
    training = make([99, 98, 97, 96], warm_start="served")
    training.warm_start.begin_from(state_of(served))
    assert end(training).warm_start.lineage.is_warm


def test_a_warm_start_that_diverges_before_its_evaluation_falls_back(make, served, caplog) -> None:
    broken = {
        name: variable.numpy() * np.float32(np.nan)
        for name, variable in served.gan.warm_start_variables().items()
        if name.startswith("discriminator_0") and variable.dtype == tf.float32
    }
    start = state_of(served)
    start = dataclasses.replace(start, values=dict(start.values) | broken)
    training = make(warm_start="auto")
    training.warm_start.begin_from(start)
    end(training)
    assert training.warm_start.lineage.start.startswith(
        "cold at step 1, because warm from version 5 led to training"
    )
    insisting = make(warm_start="served")
    insisting.warm_start.begin_from(start)
    with pytest.raises(NonFiniteLossError):
        end(insisting)
