"""One process of a distributed training, for `test_distribution.py`; takes its task as JSON."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from errors import UserError
from models.gan.devices import choose_strategy, is_chief
from models.gan.settings import TrainSettings
from models.gan.training import prepare_training
from models.gan.training import train as train_gan
from models.gan.validation import ValidationSet

_SLOW_JUDGE_SECONDS = 0.3

Data = tuple[np.ndarray, np.ndarray]


def train(
    settings: TrainSettings, data: Data, strategy: tf.distribute.Strategy, worker: int
) -> dict[str, np.ndarray]:
    """The weights after a training, and what it reported on the way."""
    training = prepare_training(settings, *data, validation_set=contrary(worker), strategy=strategy)
    reports = list(train_gan(training))
    groups = {
        "generator": training.gan.generator.trainable_variables,
        "discriminator": training.gan.discriminator.trainable_variables,
        "average": training.gan.ema,
    }
    found = {
        f"{group} {index}": variable.numpy()
        for group, variables in groups.items()
        for index, variable in enumerate(variables)
    }
    return found | {
        "scalars": np.array([list(report.scalars.values()) for report in reports]),
        "steps": np.array([report.step for report in reports]),
        "fids": np.array([report.validation.fid for report in reports if report.validation]),
    }


def contrary(worker: int) -> ValidationSet:
    """Finds each generator worse than the one before on worker 0, and better, slowly, on 1."""
    distances = iter([0, 1, 2, 3, 4, 5, 6] if worker == 0 else [0, 20, 18, 16, 14, 12, 10])

    def extract(images: np.ndarray) -> Data:
        features = np.random.default_rng(0).normal(size=(len(images), 2)) + next(distances)
        time.sleep(_SLOW_JUDGE_SECONDS * worker)
        return features.astype(np.float32), np.eye(10, dtype=np.float32)

    return ValidationSet(np.zeros((10, 28, 28, 1), np.uint8), np.arange(10), extract)


def refusal(recipe: dict[str, Any], data: Data, strategy: tf.distribute.Strategy) -> str:
    try:
        prepare_training(TrainSettings(**recipe), *data, strategy=strategy)
    except UserError as error:
        return str(error)
    return "none"


def strategies(task: dict[str, Any]) -> dict[str, tf.distribute.Strategy]:
    if not task["logical_devices"]:
        return {task["name"]: choose_strategy()}
    device = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [device] * task["logical_devices"]
    )
    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    return {"one": tf.distribute.get_strategy(), "mirrored": tf.distribute.MirroredStrategy(names)}


def compare(task: dict[str, Any]) -> None:
    """Trains every recipe with every strategy; writes `<strategy>-<recipe>.npz` and `.json`."""
    stored = np.load(task["data"])
    data = stored["images"], stored["labels"]
    for name, strategy in strategies(task).items():
        out = f"{task['out']}/{name}"
        worker = strategy.cluster_resolver.task_id if strategy.cluster_resolver else 0
        for recipe, settings in task["recipes"].items():
            np.savez(f"{out}-{recipe}", **train(TrainSettings(**settings), data, strategy, worker))
        found = {
            "strategy": type(strategy).__name__,
            "replicas": strategy.num_replicas_in_sync,
            "is_chief": is_chief(strategy),
        }
        for fault, settings in task["refused"].items():
            found[fault] = refusal(settings, data, strategy)
        Path(f"{out}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    compare(json.loads(sys.argv[1]))
