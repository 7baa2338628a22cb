"""Trainings that begin where the served one ended: what they take over, when they give it up."""

import dataclasses
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from models.gan import averaged
from models.gan.held_out import Judgement
from models.gan.settings import TrainSettings
from models.gan.training import GanTrainer, NonFiniteLossError
from models.gan.warm_start import (
    STATE,
    Course,
    Start,
    WarmStartError,
    find_start,
    leave_state,
    read_origin,
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
Make = Callable[..., GanTrainer]


class Script:
    """Held-out digits that find what they are told to find."""

    def __init__(self, found: Sequence[float]) -> None:
        self.labels = np.arange(20) % 10
        self.found = list(found)

    def judge(self, images: np.ndarray, asked: np.ndarray) -> Judgement:
        fid = self.found.pop(0)
        return Judgement(fid, 1.0, (0.1,) * 10, 1.0, relative=fid / 100)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """The same code without the seconds that building a graph takes."""
    rows, averaged._ROWS = averaged._ROWS, 20
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
    averaged._ROWS = rows


@pytest.fixture(scope="module")
def make(digits: tuple[np.ndarray, np.ndarray]) -> Make:
    """Builds a training on 40 digits that is judged as told."""

    def build(found: Sequence[float] = (9, 8, 7, 6), **changed: Any) -> GanTrainer:
        images, labels = digits[0][:40, ..., np.newaxis], digits[1][:40]
        settings = TrainSettings(**(TINY | changed))
        return GanTrainer(settings, images, labels, held_out=Script(found))

    return build


def end(trainer: GanTrainer) -> GanTrainer:
    list(trainer.fit())
    return trainer


@pytest.fixture(scope="module")
def served(make: Make) -> GanTrainer:
    """A cold training that ended; nobody changes it."""
    return end(make())


@pytest.fixture
def serving_dir(served: GanTrainer, tmp_path: Path) -> Path:
    """The folder in which its state lies in version 5, beside an older one without a state."""
    folder = tmp_path / "serving"
    (folder / "4").mkdir(parents=True)
    leave(served, folder / "5")
    return folder


def leave(trainer: GanTrainer, folder: Path) -> None:
    leave_state(str(folder), trainer.lasting_variables(), trainer.step, trainer.course)


def values_of(trainer: GanTrainer) -> dict[str, bytes]:
    return {name: v.numpy().tobytes() for name, v in trainer.lasting_variables().items()}


def start_of(trainer: GanTrainer, **changed: Any) -> Start:
    values = {name: v.numpy() for name, v in trainer.lasting_variables().items()}
    start = Start("5", "a digest", values, trainer.course.cold)
    return dataclasses.replace(start, **changed)


# ------------------------------------------------------------------------------ what is taken over


def test_every_variable_is_taken_over_bit_for_bit(make, served, serving_dir) -> None:
    trainer = make(warm_start="served")
    variables = trainer.lasting_variables()
    groups = {name.rpartition("_")[0] for name in variables}
    assert groups == {
        "generator",
        "discriminator",
        "generator_optimizer",
        "discriminator_optimizer",
        "average",
        "age",
    }
    differing = [
        name for name, found in values_of(trainer).items() if found != values_of(served)[name]
    ]
    assert len(differing) > len(variables) / 2
    start = find_start("served", str(serving_dir), variables)
    trainer.begin_from(start)
    assert values_of(trainer) == values_of(served)
    assert (start.version, start.cold) == ("5", 0.09)
    assert trainer.course.start == "warm from version 5"
    # The budget is its own, and so is the choice of its best moment.
    assert trainer.step == 0
    best = [w.tobytes() for w in trainer.best.network.get_weights()]
    assert best != [w.tobytes() for w in served.best.network.get_weights()]


def test_a_state_that_was_written_twice_is_read_the_same(served, tmp_path) -> None:
    leave(served, tmp_path / "1")
    leave(served, tmp_path / "2")
    first, second = (read_origin(str(tmp_path), version) for version in "12")
    assert first == second
    assert len(first[0]) == 64
    assert first[1] is None


def test_the_average_goes_on_and_does_not_warm_up_anew(make, served) -> None:
    """Of the first update the average takes 1 - decay, where a cold one takes 9/11."""
    decay = 0.4
    trainer = make(
        warm_start="served", ema_decay=decay, max_steps=1, steps_per_execution=1, evaluations=0
    )
    trainer.begin_from(start_of(served))
    before = [variable.numpy() for variable in trainer.update.average]
    list(trainer.fit())
    current = trainer.update.generator.trainable_variables
    for old, new, weight in zip(before, trainer.update.average, current, strict=True):
        expected = decay * old + (1 - decay) * weight.numpy()
        np.testing.assert_allclose(new.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert int(trainer.update.age) == TINY["max_steps"] + 1


def test_a_warm_training_begins_at_its_share_of_both_rates(make, served) -> None:
    rates = []
    for is_warm in (False, True):
        trainer = make(
            warm_start="served",
            warm_learning_rate=0.25,
            generator_learning_rate=1e-2,
            final_learning_rate=0.1,
            evaluations=0,
        )
        if is_warm:
            trainer.begin_from(start_of(served))
        trainer.run_steps(1, 0.0)
        first = float(trainer.update.generator_optimizer.learning_rate.numpy())
        trainer.run_steps(1, 1.0)
        rates.append((first, float(trainer.update.generator_optimizer.learning_rate.numpy())))
    np.testing.assert_allclose(rates, [[1e-2, 1e-3], [2.5e-3, 2.5e-4]], rtol=1e-5)


# ------------------------------------------------------------------------------ what cannot be


def test_nothing_is_looked_for_unless_it_is_wanted(make, tmp_path, serving_dir) -> None:
    variables = make().lasting_variables()
    assert find_start("none", str(serving_dir), variables) is None
    for wanted in ("served", "auto"):
        for nowhere in (None, "", str(tmp_path / "nowhere")):
            assert find_start(wanted, nowhere, variables) is None


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


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (without_state, "it holds no state of a training"),
        (without_manifest, "it holds no state of a training"),
        (truncated, "bytes of"),
        (altered, "its SHA-256 differs"),
    ],
)
def test_a_damaged_state_is_an_error_or_a_cold_start(
    make, serving_dir, caplog, damage: Callable[[Path], None], reason: str
) -> None:
    damage(serving_dir / "5" / STATE)
    variables = make().lasting_variables()
    with pytest.raises(WarmStartError, match=r"version 5 .* cannot be gone on from") as raised:
        find_start("served", str(serving_dir), variables)
    assert reason in str(raised.value)
    assert "train.warm_start to auto" in str(raised.value)
    with caplog.at_level(logging.WARNING, "mnist_gan.progress"):
        assert find_start("auto", str(serving_dir), variables) is None
    assert reason in caplog.text


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
def test_other_networks_are_an_error_or_a_cold_start(
    make, serving_dir, caplog, changed: dict[str, Any]
) -> None:
    variables = make(**changed).lasting_variables()
    with pytest.raises(WarmStartError, match="its networks or optimizers are others") as raised:
        find_start("served", str(serving_dir), variables)
    assert re.search("it holds .* for the variable .*, where this training has", str(raised.value))
    with caplog.at_level(logging.WARNING, "mnist_gan.progress"):
        assert find_start("auto", str(serving_dir), variables) is None
    assert "its networks or optimizers are others" in caplog.text


def test_a_training_that_was_never_judged_is_nothing_for_auto(make, tmp_path, caplog) -> None:
    unjudged = end(make(evaluations=0))
    leave(unjudged, tmp_path / "1")
    variables = unjudged.lasting_variables()
    with caplog.at_level(logging.WARNING, "mnist_gan.progress"):
        assert find_start("auto", str(tmp_path), variables) is None
    assert "without evaluations" in caplog.text
    assert find_start("served", str(tmp_path), variables).cold is None


@pytest.mark.parametrize("evaluations", [0, 1])
def test_auto_needs_an_evaluation_with_time_left_after_it(evaluations: int) -> None:
    with pytest.raises(ValidationError, match="must be 2 or more"):
        TrainSettings(warm_start="auto", evaluations=evaluations)


# ------------------------------------------------------------------------------ giving it up


def test_a_warm_start_that_is_no_worse_is_kept(make, served) -> None:
    trainer = make([9, 9, 9, 9], warm_start="auto")
    trainer.begin_from(start_of(served))
    end(trainer)
    assert trainer.course == Course("warm from version 5", "a digest", True, 0.09)
    assert int(trainer.update.age) == 2 * TINY["max_steps"]


def test_a_worse_one_is_given_up_for_what_a_cold_start_makes_of_the_rest(
    make, served, caplog
) -> None:
    """What goes on is a training that was never warm, at the same place of its budget."""
    trainer = make([9.5, 8, 7, 6], warm_start="auto")
    cold = values_of(trainer)
    trainer.begin_from(start_of(served))
    training = trainer.fit()
    with caplog.at_level(logging.WARNING, "mnist_gan.progress"):
        first = next(training)
    assert first.step == 1
    assert values_of(trainer) == cold
    assert first.start == (
        "cold at step 1, since warm from version 5 gave 0.095 of the variance at the first "
        "evaluation, where a cold start had 0.09"
    )
    assert "the rest of the budget goes to a cold start" in caplog.text
    rest = list(training)
    assert [progress.step for progress in rest] == [2, 3, 4]
    assert int(trainer.update.age) == 3
    # It is judged anew, and what it had at its own first evaluation is what it leaves behind.
    assert trainer._patience.fids == [8, 7, 6]
    assert trainer.course.cold == 0.08
    assert trainer.course.origin == "a digest"

    other = make(warm_start="auto", evaluations=2)
    other.update.step.assign(1)
    for fraction in (0.25, 0.5, 0.75):
        other.run_steps(1, fraction)
    assert values_of(other) == values_of(trainer)


def test_under_served_it_is_kept_however_bad(make, served) -> None:
    trainer = make([99, 98, 97, 96], warm_start="served")
    trainer.begin_from(start_of(served))
    assert end(trainer).course.is_warm


def test_one_that_diverges_before_it_is_judged_is_given_up(make, served, caplog) -> None:
    broken = {
        name: variable.numpy() * np.float32(np.nan)
        for name, variable in served.lasting_variables().items()
        if name.startswith("discriminator_0") and variable.dtype == tf.float32
    }
    start = start_of(served)
    start = dataclasses.replace(start, values=dict(start.values) | broken)
    trainer = make(warm_start="auto")
    trainer.begin_from(start)
    end(trainer)
    assert trainer.course.start.startswith(
        "cold at step 1, since warm from version 5 gave training"
    )
    insisting = make(warm_start="served")
    insisting.begin_from(start)
    with pytest.raises(NonFiniteLossError):
        end(insisting)


def test_which_of_two_starts_was_taken_is_in_the_progress(make, served) -> None:
    trainer = make(warm_start="served")
    trainer.begin_from(start_of(served))
    told = {json.loads(json.dumps(dataclasses.asdict(p)))["start"] for p in trainer.fit()}
    assert told == {"warm from version 5"}
