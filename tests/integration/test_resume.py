"""Whole trainings that are stopped, killed and damaged: each ends where none of that leads.

Every training is a process of its own, deterministic, with a validation that costs nothing; what is
compared is the bits of what is exported and of all that a checkpoint holds.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from resumable_training import train

from mnist.records import serialize_examples
from models.gan.checkpoints import read_state
from models.gan.warm_start import TrainingLineage, read_origin, write_final_state
from registry.layout import TRAINING_STATE

pytestmark = pytest.mark.slow

STEPS, PER_CALL = 120, 2
RECIPE: dict[str, Any] = {
    "max_seconds": None,
    "max_steps": STEPS,
    "steps_per_execution": PER_CALL,
    "deterministic": True,
    "batch_size": 8,
    "latent_dim": 8,
    "generator_channels": (4, 4, 2),
    "discriminator_channels": (2, 4, 4),
    "dropout": 0.2,  # whose random numbers are state
    "instance_noise": 0.2,
    "evaluations": 10,
    "validation_split": 0.2,
    "report_seconds": 1e-3,
    "checkpoint_seconds": 3600,
}
# Forks of a process that has TensorFlow imported but not started: a second each, not ten.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["models.gan.run_fn"])


@dataclass
class Training:
    """One process and its files."""

    folder: Path
    process: BaseProcess

    def lines(self) -> list[dict[str, Any]]:
        path = self.folder / "run" / "progress.jsonl"
        whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
        return [json.loads(line) for line in whole.splitlines()]

    def end(self) -> "Training":
        self.process.join(600)
        assert self.process.exitcode is not None
        return self

    def first_step(self) -> int:
        """Of those that it trained itself."""
        return self.lines()[0]["step"] - PER_CALL + 1

    def state(self) -> dict[str, bytes]:
        """All that a checkpoint holds, and what is exported, as bytes."""
        assert self.process.exitcode == 0
        with np.load(self.folder / "state.npz") as state:
            found = {name: state[name].tobytes() for name in state.files}
        reader = tf.train.load_checkpoint(str(self.folder / "model" / "variables" / "variables"))
        names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
        # An export numbers its variables in no fixed order.
        exported = sorted(np.asarray(reader.get_tensor(name)).tobytes() for name in names)
        found |= {f"exported {number}": value for number, value in enumerate(exported)}
        return found


def wait_until(is_so: Callable[[], Any], process: BaseProcess) -> None:
    end = time.monotonic() + 300
    while not is_so():
        assert process.is_alive(), f"the training ended with {process.exitcode}"
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, digits: tuple[np.ndarray, np.ndarray]) -> str:
    path = str(tmp_path_factory.mktemp("records") / "data_tfrecord-00000-of-00001.gz")
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for record in serialize_examples(digits[0][:100], digits[1][:100]):
            writer.write(record)
    return path


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, records: str) -> Any:
    """A function that starts a training, each in a folder of its own."""
    started = []

    def begin(checkpoints: Path, served: Path | None = None, **changed: Any) -> Training:
        folder = tmp_path_factory.mktemp("training")
        versions = str(served) if served else None
        args = (str(folder), records, str(checkpoints), versions, RECIPE | changed)
        process = PROCESSES.Process(target=train, args=args)
        process.start()
        started.append(process)
        return Training(folder, process)

    yield begin
    for process in started:
        process.kill()


@pytest.fixture(scope="module")
def undisturbed(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Training:
    return start(tmp_path_factory.mktemp("checkpoints")).end()


@pytest.fixture(scope="module")
def stopped(start: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, Path]:
    """A training that got SIGTERM under way, and its checkpoints."""
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    training = start(checkpoints, checkpoint_seconds=1e-3)
    wait_until(lambda: training.lines()[10:], training.process)
    os.kill(training.process.pid, signal.SIGTERM)
    return training.end(), checkpoints


def copy(checkpoints: Path, to: Path) -> tuple[Path, list[Path]]:
    """A copy to go on from, and its checkpoints, oldest first."""
    copied = to / "copy"
    shutil.copytree(checkpoints, copied)
    [key] = copied.iterdir()
    return copied, sorted(key.iterdir())


def test_two_runs_are_alike_and_a_training_that_ended_leaves_no_checkpoint(
    start: Any, undisturbed: Training, tmp_path: Path
) -> None:
    again = start(tmp_path, checkpoint_seconds=1e-3, report_seconds=3600).end()
    assert again.state() == undisturbed.state()
    assert list(tmp_path.iterdir()) == []
    steps = [line["step"] for line in undisturbed.lines()]
    assert (undisturbed.first_step(), steps[-1]) == (1, STEPS)
    fids = np.load(undisturbed.folder / "state.npz")["fids"]
    assert len(fids) == 10
    assert list((undisturbed.folder / "run" / "samples").iterdir())


def test_sigterm_leaves_a_checkpoint_from_which_the_next_run_goes_on(
    start: Any, undisturbed: Training, stopped: tuple[Training, Path], tmp_path: Path
) -> None:
    training, checkpoints = stopped
    assert training.process.exitcode == 1
    error = (training.folder / "error").read_text()
    assert error.startswith("InterruptedTrainingError: training stopped at step ")
    assert "run again" in error
    assert not (training.folder / "model").exists()
    copied, saved = copy(checkpoints, tmp_path)
    step = int(saved[-1].name.rpartition("-")[2])
    assert f"at step {step};" in error
    assert 20 <= training.lines()[-1]["step"] <= step < STEPS

    resumed = start(copied).end()
    assert resumed.first_step() == step + 1
    assert resumed.lines()[0]["seconds"] > training.lines()[-1]["seconds"]
    assert resumed.state() == undisturbed.state()
    assert list(copied.iterdir()) == []


def test_a_truncated_checkpoint_is_passed_over_for_the_one_before(
    start: Any, undisturbed: Training, stopped: tuple[Training, Path], tmp_path: Path
) -> None:
    copied, (before, newest) = copy(stopped[1], tmp_path)
    [data] = newest.glob("state.data*")
    data.write_bytes(data.read_bytes()[:-100])
    resumed = start(copied).end()
    assert resumed.first_step() == int(before.name.rpartition("-")[2]) + 1
    assert resumed.state() == undisturbed.state()


@pytest.mark.parametrize("changed", [{"seed": 1}, {"resume": False}], ids=["seed", "resume"])
def test_other_settings_and_a_wish_not_to_begin_afresh(
    start: Any,
    undisturbed: Training,
    stopped: tuple[Training, Path],
    tmp_path: Path,
    changed: dict[str, Any],
) -> None:
    copied, saved = copy(stopped[1], tmp_path)
    training = start(copied, **changed).end()
    assert training.first_step() == 1
    if "seed" in changed:
        assert training.state() != undisturbed.state()
        assert all(path.exists() for path in saved)
    else:
        assert training.state() == undisturbed.state()
        assert list(copied.iterdir()) == []


@pytest.mark.parametrize("number", range(3))
def test_a_killed_training_loses_an_interval_at_most(
    start: Any, undisturbed: Training, tmp_path: Path, number: int
) -> None:
    """Killed twice, at any moment; a checkpoint is due at each call."""
    done, delays = 0, random.Random(number)
    for _ in range(2):
        training = start(tmp_path, checkpoint_seconds=1e-3)
        wait_until(training.lines, training.process)
        time.sleep(delays.uniform(0, 0.5))
        training.process.kill()
        assert training.end().process.exitcode in (-signal.SIGKILL, 0)
        if training.process.exitcode == 0:
            break
        assert training.first_step() > done - PER_CALL
        done = training.lines()[-1]["step"]
    resumed = start(tmp_path).end()
    # Progress is saved before it is logged.
    assert resumed.first_step() >= done + 1 or training.process.exitcode == 0
    assert resumed.state() == undisturbed.state()
    assert list(tmp_path.iterdir()) == []


def test_divergence_ends_the_run_and_exports_nothing(start: Any, tmp_path: Path) -> None:
    training = start(
        tmp_path,
        optimizer="sgd",
        loss="least_squares",
        generator_learning_rate=1.0,
        discriminator_learning_rate=1.0,
        r1_weight=1000,
        penalty_interval=1,
    ).end()
    assert training.process.exitcode == 1
    error = (training.folder / "error").read_text()
    assert error.startswith("NonFiniteLossError: training diverged before step ")
    assert "lower train.generator_learning_rate" in error
    assert not (training.folder / "model").exists()
    assert all(np.isfinite(list(line["scalars"].values())).all() for line in training.lines())


@pytest.fixture(scope="module")
def serving_dir(tmp_path_factory: pytest.TempPathFactory, undisturbed: Training) -> Path:
    """What is served is the training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("serving")
    shutil.copytree(undisturbed.folder / "model", folder / "1")
    return folder


@pytest.mark.parametrize("evaluations", [10, 2], ids=["evaluated before", "evaluated after"])
def test_a_killed_warm_training_ends_as_one_that_nobody_killed(
    start: Any, undisturbed: Training, serving_dir: Path, tmp_path: Path, evaluations: int
) -> None:
    warm = {"served": serving_dir, "warm_start": "auto", "evaluations": evaluations}
    alone = start(tmp_path / "alone", **warm).end()
    assert alone.state() != undisturbed.state()
    checkpoints = tmp_path / "checkpoints"
    training = start(checkpoints, checkpoint_seconds=1e-3, **warm)
    wait_until(lambda: training.lines()[15:], training.process)
    training.process.kill()
    training.end()
    [key] = checkpoints.iterdir()
    done = training.lines()[-1]["step"]
    # A cold training of the same digits, and one that began elsewhere, have keys of their own.
    other = tmp_path / "serving"
    shutil.copytree(alone.folder / "model", other / "7")
    for served, wanted in ((serving_dir, "none"), (other, "auto")):
        apart = start(checkpoints, served, warm_start=wanted, evaluations=evaluations).end()
        assert apart.first_step() == 1
        assert list(checkpoints.iterdir()) == [key]
    resumed = start(checkpoints, **warm).end()
    assert resumed.first_step() > done
    assert resumed.state() == alone.state()
    assert list(checkpoints.iterdir()) == []
    starts = {line["start"] for line in [*training.lines(), *resumed.lines()]}
    assert "warm from version 1" in starts
    assert {line["start"] for line in alone.lines()} == starts


def test_a_start_of_noise_is_given_up_at_the_first_evaluation(start: Any, tmp_path: Path) -> None:
    """The state is whole and fits; only that nobody learnt its weights."""
    # Judged half-way: a cold training has learnt something by then.
    cold = start(tmp_path / "checkpoints", evaluations=2).end()
    content, values = read_state(str(cold.folder / "model" / TRAINING_STATE))
    random = np.random.default_rng(0)
    noise = {
        name: tf.Variable(
            random.normal(0, 1, value.shape).astype(value.dtype)
            if name.startswith(("generator_0", "discriminator_0", "ema_"))
            and value.dtype.kind == "f"
            else value
        )
        for name, value in values.items()
    }
    served = tmp_path / "serving"
    lineage = TrainingLineage(**content["extra"]["lineage"])
    write_final_state(str(served / "3" / TRAINING_STATE), noise, STEPS, lineage)
    training = start(tmp_path / "checkpoints", served, warm_start="auto", evaluations=2).end()
    starts = list(dict.fromkeys(line["start"] for line in training.lines()))
    assert starts[0] == "warm from version 3"
    assert starts[1].startswith(f"cold at step {STEPS // 2}, because warm from version 3 led to ")
    assert len(starts) == 2
    assert (training.folder / "model" / "saved_model.pb").exists()
    # What it leaves is a state of its own, and says which it was offered.
    digest, origin = read_origin(str(served / "3" / TRAINING_STATE))
    shutil.copytree(training.folder / "model", served / "4")
    assert read_origin(str(served / "4" / TRAINING_STATE))[1] == digest
    assert origin is None
