"""Milliseconds per update of the default recipe under each way to compute it on this machine.

Run with: .venv/bin/python benchmarks/step.py

The ways take turns, so that a noisy neighbour slows them alike; the ratio is to float32 without
XLA, which is what `auto` takes without a GPU. No data is needed: time does not depend on it.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parents[1]))

from models.gan.training import GanTrainer
from pipeline.config import resolve

WAYS = {
    "float32": {"precision": "float32", "xla": "off"},
    "float32, XLA": {"precision": "float32", "xla": "on"},
    "bfloat16": {"precision": "bfloat16", "xla": "off"},
    "float16": {"precision": "float16", "xla": "off"},
    "float32, Keras' Adam": {"precision": "float32", "xla": "off"},
}


def make_trainer(name: str, preset: str) -> GanTrainer:
    settings = resolve(preset, environ={}).settings.train
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (1000, 28, 28, 1), dtype=np.uint8)
    return GanTrainer(settings.model_copy(update=WAYS[name]), images, np.arange(1000) % 10)


def milliseconds(trainer: GanTrainer, steps: int) -> float:
    started = time.perf_counter()
    trainer.run_steps(steps, 0.0)
    return (time.perf_counter() - started) * 1e3 / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16, help="updates per round, a multiple of 16")
    arguments = parser.parse_args()
    trainers = {name: make_trainer(name, arguments.preset) for name in WAYS if "Keras" not in name}
    with mock.patch("models.gan.update.FusedAdam", keras.optimizers.Adam):
        trainers |= {name: make_trainer(name, arguments.preset) for name in WAYS if "Keras" in name}
    for trainer in trainers.values():
        trainer.run_steps(1, 0.0)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(arguments.rounds):
        for name, trainer in trainers.items():
            times[name].append(milliseconds(trainer, arguments.steps))
    devices = [device.name for device in tf.config.list_logical_devices()]
    print(f"devices {', '.join(devices)}; preset {arguments.preset}")
    for name, values in times.items():
        ratios = [value / base for value, base in zip(values, times["float32"], strict=True)]
        print(
            f"{name:20} {statistics.median(values):8.1f} ms per update, "
            f"{statistics.median(ratios):6.2f} times float32"
        )


if __name__ == "__main__":
    main()
