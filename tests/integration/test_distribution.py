"""Training on several devices and on several machines, which here are processes on loopback."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.gan.checkpoints import CheckpointError
from models.gan.devices import choose_strategy, is_chief
from models.gan.settings import TrainSettings
from models.gan.training import prepare_training, train

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("distributed_worker.py")
SECONDS = 600  # Processes that still wait for each other after that have lost each other.

TINY: dict[str, Any] = {
    "max_seconds": None,
    "max_steps": 6,
    "steps_per_execution": 2,
    "report_seconds": 1e-9,
    "evaluations": 0,
    "batch_size": 8,
    "latent_dim": 8,
    "generator_channels": (8, 4, 4),
    "discriminator_channels": (4, 4, 8),
}
# Without batch normalization, dropout and noise the replicas' parts add up to the whole batch. And
# without kinks no rounding turns into a difference, as it does where a ReLU or Adam sees a sign.
EXACT = TINY | {
    "generator_normalization": "none",
    "generator_activation": "elu",
    "discriminator_activation": "elu",
    "generator_output": "tanh",
    "r1_weight": 1.0,
    "penalty_interval": 2,
}
RATES = {"generator_learning_rate": 0.05, "discriminator_learning_rate": 0.05}
RECIPES: dict[str, dict[str, Any]] = {
    "adam": EXACT | {"discriminator_steps": 2},
    "sgd": EXACT
    | RATES
    | {"optimizer": "sgd", "loss": "relativistic", "r2_weight": 1.0, "tie_projection": True},
    # Batch normalization, dropout and all noise; and evaluations of which the workers see others.
    "noisy": TINY
    | {
        "steps_per_execution": 1,
        "evaluations": 6,
        "patience": 1,
        "dropout": 0.3,
        "instance_noise": 0.1,
        "augmentation": ("translation", "cutout", "brightness", "contrast"),
        "gradient_penalty_weight": 1.0,
        "penalty_interval": 2,
    },
}
# For which the evaluations take longer on one worker.
BUDGET = EXACT | {"max_steps": None, "max_seconds": 5.0, "evaluations": 3, "r1_weight": 0.0}
REFUSED = {"odd batch": TINY | {"batch_size": 9}, "xla": TINY | {"xla": "on"}}
TOGETHER = ("mirrored", "worker-0", "worker-1")


class Process:
    """A `distributed_worker.py`, with what it says in a file."""

    def __init__(self, log: Path, task: dict[str, Any], tf_config: str = "{}") -> None:
        self._log = log
        with log.open("w") as file:
            self.popen = subprocess.Popen(
                [sys.executable, str(WORKER), json.dumps(task)],
                cwd=ROOT,
                env=os.environ
                | {"PYTHONPATH": str(ROOT), "TF_CONFIG": tf_config, "CUDA_VISIBLE_DEVICES": "-1"},
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        try:
            assert self.popen.wait(SECONDS) == 0, self.printed()
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {SECONDS} s:\n{self.printed()}")

    def printed(self) -> str:
        return self._log.read_text()[-6000:]


@contextlib.contextmanager
def ended(processes: list[Process]) -> Iterator[list[Process]]:
    try:
        yield processes
    finally:
        for process in processes:
            process.popen.kill()
            process.popen.wait()


def tf_configs(count: int) -> list[str]:
    """The TF_CONFIG of each worker, on ports of this machine that are free."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory, digits: tuple[np.ndarray, np.ndarray]
) -> Path:
    """What every strategy left of every recipe."""
    folder = tmp_path_factory.mktemp("compared")
    images, labels = digits
    np.savez(folder / "data", images=images[:200, ..., np.newaxis], labels=labels[:200])
    task = {"data": str(folder / "data.npz"), "out": str(folder), "recipes": RECIPES}
    alone = task | {"logical_devices": 2, "refused": REFUSED}
    shared = task | {"logical_devices": 0, "refused": {}}
    shared |= {"recipes": RECIPES | {"budget": BUDGET}}
    processes = [Process(folder / "mirrored.log", alone)]
    for index, config in enumerate(tf_configs(2)):
        name = f"worker-{index}"
        processes.append(Process(folder / f"{name}.log", shared | {"name": name}, config))
    with ended(processes):
        for process in processes:
            process.wait()
    return folder


def load(folder: Path, strategy: str, recipe: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"{strategy}-{recipe}.npz") as stored:
        return dict(stored)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["adam", "sgd"])
@pytest.mark.parametrize("strategy", TOGETHER)
def test_the_updates_are_those_of_one_device(compared: Path, strategy: str, recipe: str) -> None:
    """Weights, averages and reported scalars, penalties included."""
    alone, together = load(compared, "one", recipe), load(compared, strategy, recipe)
    assert alone.keys() == together.keys()
    assert together["steps"].tolist() == [2, 4, 6]
    for name, expected in alone.items():
        np.testing.assert_allclose(together[name], expected, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["one", *TOGETHER])
def test_the_noisy_recipe_runs(compared: Path, strategy: str) -> None:
    for name, values in load(compared, strategy, "noisy").items():
        assert np.isfinite(values).all(), name


@pytest.mark.slow
def test_replicas_hold_the_same_weights(compared: Path) -> None:
    for recipe in RECIPES:
        one, other = (load(compared, f"worker-{index}", recipe) for index in range(2))
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.slow
def test_workers_agree_on_an_early_stop(compared: Path) -> None:
    """One of them, asked alone, finds that nothing gets better and stops."""
    assert load(compared, "one", "noisy")["steps"].tolist() == [1, 2]
    found = [load(compared, f"worker-{index}", "noisy") for index in range(2)]
    assert found[0]["steps"].tolist() == list(range(1, 7))
    np.testing.assert_array_equal(found[0]["fids"], found[1]["fids"])


@pytest.mark.slow
def test_workers_agree_on_the_end_of_the_time(compared: Path) -> None:
    steps, others = (load(compared, f"worker-{index}", "budget")["steps"] for index in range(2))
    assert steps[-1] == others[-1] > 0


@pytest.mark.slow
def test_what_replicas_cannot_do_is_refused(compared: Path) -> None:
    printed = json.loads((compared / "mirrored.json").read_text())
    assert printed["odd batch"].startswith("train.batch_size = 9: ")
    assert printed["xla"].startswith("train.xla = on: ")


@pytest.mark.slow
def test_one_process_is_the_chief(compared: Path) -> None:
    printed = [json.loads((compared / f"{name}.json").read_text()) for name in TOGETHER]
    assert [one["replicas"] for one in printed] == [2, 2, 2]
    assert [one["strategy"] for one in printed] == [
        "MirroredStrategy",
        *["CollectiveAllReduceStrategy"] * 2,  # What MultiWorkerMirroredStrategy calls itself
    ]
    assert [one["is_chief"] for one in printed] == [True, True, False]


def test_workers_resume_one_training(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Where each has a folder of its own, only the chief finds what the chief has saved."""
    images, labels = digits
    training = prepare_training(TrainSettings(**TINY), images[:20, ..., np.newaxis], labels[:20])
    training.workers = SimpleNamespace(agree=lambda step: [step + 3.0])
    elsewhere = SimpleNamespace(restore=lambda: None, directory="mine")
    with pytest.raises(CheckpointError) as caught:
        next(train(training, elsewhere))
    assert caught.value.where == "mine"


A, B = "127.0.0.1:1", "127.0.0.1:2"


@pytest.mark.parametrize(
    ("cluster", "several"), [({"worker": [A]}, False), ({"worker": [A, B]}, True)]
)
def test_tf_config_chooses_the_strategy(
    monkeypatch: pytest.MonkeyPatch, cluster: dict[str, list[str]], several: bool
) -> None:
    content = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}})
    monkeypatch.setenv("TF_CONFIG", content)
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: "several")
    assert (choose_strategy() == "several") is several


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "leads"),
    [
        ({"worker": [A, B]}, "worker", 0, True),
        ({"worker": [A, B]}, "worker", 1, False),
        ({"chief": [A], "worker": [B]}, "chief", 0, True),
        ({"chief": [A], "worker": [B]}, "worker", 0, False),
    ],
)
def test_one_of_a_cluster_writes(
    monkeypatch: pytest.MonkeyPatch,
    cluster: dict[str, list[str]],
    kind: str,
    index: int,
    leads: bool,
) -> None:
    task = {"cluster": cluster, "task": {"type": kind, "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    assert is_chief(SimpleNamespace(cluster_resolver=resolver)) is leads
