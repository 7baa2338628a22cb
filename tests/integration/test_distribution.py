"""Training on several devices and on several machines, which here are processes on loopback."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.gan.checkpoints import CheckpointError
from models.gan.devices import choose_strategy, is_chief
from models.gan.export import ANY_DIGIT
from models.gan.settings import TrainSettings
from models.gan.training import prepare_training, train

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("distributed_worker.py")
INTERRUPTED = 3
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

    def __init__(self, log: Path, action: str, task: dict[str, Any], tf_config: str = "{}") -> None:
        self._log = log
        with log.open("w") as file:
            self.popen = subprocess.Popen(
                [sys.executable, str(WORKER), action, json.dumps(task)],
                cwd=ROOT,
                env=os.environ
                | {"PYTHONPATH": str(ROOT), "TF_CONFIG": tf_config, "CUDA_VISIBLE_DEVICES": "-1"},
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def wait(self, expected: int = 0) -> None:
        try:
            assert self.popen.wait(SECONDS) == expected, self.said()
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {SECONDS} s:\n{self.said()}")

    def said(self) -> str:
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
    processes = [Process(folder / "mirrored.log", "compare", alone)]
    for index, config in enumerate(tf_configs(2)):
        name = f"worker-{index}"
        processes.append(
            Process(folder / f"{name}.log", "compare", shared | {"name": name}, config)
        )
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
    said = json.loads((compared / "mirrored.json").read_text())
    assert said["odd batch"] == (
        "train.batch_size = 9 cannot be shared by 2 replicas: choose a multiple of 2"
    )
    assert said["xla"] == "train.xla=on needs a single replica, and there are 2"


@pytest.mark.slow
def test_one_process_is_the_chief(compared: Path) -> None:
    said = [json.loads((compared / f"{name}.json").read_text()) for name in TOGETHER]
    assert [one["replicas"] for one in said] == [2, 2, 2]
    assert [one["strategy"] for one in said] == [
        "MirroredStrategy",
        *["CollectiveAllReduceStrategy"] * 2,  # What MultiWorkerMirroredStrategy calls itself
    ]
    assert [one["is_chief"] for one in said] == [True, True, False]


def write_examples(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for image, label in zip(images, labels, strict=True):
            feature = {
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(label)])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


@pytest.mark.slow
def test_a_training_on_two_machines_is_cut_off_and_goes_on(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    """One of the two is told to stop: both do, and the chief alone leaves files."""
    write_examples(tmp_path / "data.gz", digits[0][:100], digits[1][:100])
    recipe = EXACT | {"r1_weight": 0.0, "max_steps": 400, "steps_per_execution": 4}
    checkpoints = tmp_path / "checkpoints"

    def start(attempt: str) -> list[Process]:
        (tmp_path / attempt).mkdir()
        return [
            Process(
                tmp_path / attempt / f"{index}.log",
                "run",
                {
                    "data": str(tmp_path / "data.gz"),
                    "train": recipe,
                    "checkpoints": str(checkpoints),
                    "out": str(tmp_path / attempt / f"out-{index}"),
                },
                config,
            )
            for index, config in enumerate(tf_configs(2))
        ]

    def progress(attempt: str) -> list[int]:
        path = tmp_path / attempt / "out-0" / "run" / "progress.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line)["step"] for line in lines if line.endswith("\n")]

    with ended(start("first")) as processes:
        until = time.monotonic() + SECONDS
        while not progress("first"):
            assert time.monotonic() < until, processes[0].said()
            assert processes[0].popen.poll() is None, processes[0].said()
            time.sleep(0.05)
        processes[1].popen.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(INTERRUPTED)
    [saved] = checkpoints.glob("*/*")
    stopped_at = int(saved.name.rpartition("-")[2])
    assert progress("first")[-1] <= stopped_at < recipe["max_steps"]
    assert f"training stopped at step {stopped_at};" in processes[1].said()
    assert not list((tmp_path / "first").glob("*/model"))

    with ended(start("second")) as processes:
        for process in processes:
            process.wait()
    assert progress("second")[0] == stopped_at + recipe["steps_per_execution"]
    assert progress("second")[-1] == recipe["max_steps"]
    assert not list(checkpoints.iterdir())
    for attempt in ("first", "second"):
        assert [path.name for path in (tmp_path / attempt).glob("out-*")] == ["out-0"]
    served = tf.saved_model.load(str(tmp_path / "second" / "out-0" / "model"))
    drawn = served.signatures["generate_pixels"](
        seed=tf.range(3, dtype=tf.int64), digit=tf.fill([3], tf.constant(ANY_DIGIT, tf.int64))
    )
    assert drawn["image"].shape == (3, 28, 28, 1)


def test_workers_resume_one_training(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Where each has a folder of its own, only the chief finds what the chief has saved."""
    images, labels = digits
    training = prepare_training(TrainSettings(**TINY), images[:20, ..., np.newaxis], labels[:20])
    training.workers = SimpleNamespace(agree=lambda step: [step + 3.0])
    elsewhere = SimpleNamespace(restore=lambda: None, directory="mine")
    with pytest.raises(CheckpointError, match=r"at step 0, and others") as caught:
        next(train(training, elsewhere))
    assert caught.value.where == "mine"


A, B = "127.0.0.1:1", "127.0.0.1:2"


@pytest.mark.parametrize(
    ("cluster", "several"),
    [
        (None, False),
        ({}, False),
        ({"worker": [A]}, False),
        ({"chief": [A]}, False),
        ({"worker": [A], "evaluator": [B]}, False),
        ({"worker": [A, B]}, True),
        ({"chief": [A], "worker": [B]}, True),
    ],
)
def test_tf_config_chooses_the_strategy(
    monkeypatch: pytest.MonkeyPatch, cluster: dict[str, list[str]] | None, several: bool
) -> None:
    content = "" if cluster is None else json.dumps({"cluster": cluster})
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
