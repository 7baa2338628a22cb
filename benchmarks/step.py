"""Milliseconds per update of the default recipe under each way to compute it on this machine.

Run with: .venv/bin/python benchmarks/step.py

The ways take turns, so that a noisy neighbor slows them alike; the ratio is to float32 without
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

from models.gan.training import Training, prepare_training
from pipeline.settings.resolution import resolve

WAYS = {
    "float32": {"precision": "float32", "xla": "off"},
    "float32, XLA": {"precision": "float32", "xla": "on"},
    "bfloat16": {"precision": "bfloat16", "xla": "off"},
    "float16": {"precision": "float16", "xla": "off"},
}
# The same arithmetic, computed otherwise.
PATCHES = {
    "float32, Keras' Adam": ("FusedAdam", keras.optimizers.Adam),
    "float32, Keras' convolutions": ("trains_on_cpu", lambda: False),
}


def make_training(name: str, preset: str) -> Training:
    settings = resolve(preset, environ={}).settings.train
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (1000, 28, 28, 1), dtype=np.uint8)
    settings = settings.model_copy(update=WAYS[name])
    training = prepare_training(settings, images, np.arange(1000) % 10)
    training.device_loop.run(1, 0.0)
    return training


def make_patched(name: str, preset: str) -> Training:
    attribute, other = PATCHES[name]
    with mock.patch(f"models.gan.state.{attribute}", other):
        return make_training("float32", preset)


def milliseconds(training: Training, steps: int) -> float:
    started = time.perf_counter()
    training.device_loop.run(steps, 0.0)
    return (time.perf_counter() - started) * 1e3 / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16, help="updates per round, a multiple of 16")
    arguments = parser.parse_args()
    trainings = {name: make_training(name, arguments.preset) for name in WAYS}
    trainings |= {name: make_patched(name, arguments.preset) for name in PATCHES}
    times: dict[str, list[float]] = {name: [] for name in trainings}
    for _ in range(arguments.rounds):
        for name, training in trainings.items():
            times[name].append(milliseconds(training, arguments.steps))
    devices = [device.name for device in tf.config.list_logical_devices()]
    print(f"devices {', '.join(devices)}; preset {arguments.preset}")
    for name, values in times.items():
        ratios = [value / base for value, base in zip(values, times["float32"], strict=True)]
        print(
            f"{name:30} {statistics.median(values):8.1f} ms per update, "
            f"{statistics.median(ratios):6.2f} times float32"
        )


if __name__ == "__main__":
    main()
