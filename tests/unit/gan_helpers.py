"""Small GANs on few digits, and what several tests of models/gan do with them."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.gan.batches import TrainingData
from models.gan.settings import TrainSettings
from models.gan.state import GanState
from models.gan.update import update_networks
from models.gan.validation import ValidationMetrics

TINY: dict[str, Any] = {
    "max_seconds": None,
    "max_steps": 2,
    "batch_size": 4,
    "latent_dim": 8,
    "auxiliary_loss_weight": 0,
    "generator_channels": (8, 4, 4),
    "discriminator_channels": (4, 4, 8),
}
WGAN_GP: dict[str, Any] = {"loss": "wasserstein", "gradient_penalty_weight": 10, "r1_weight": 0}
# With a smooth output: rounding to whole gray levels turns a difference in the last bit into one of
# a level.
SGD: dict[str, Any] = {
    "optimizer": "sgd",
    "generator_learning_rate": 0.3,
    "discriminator_learning_rate": 0.2,
    "generator_output": "tanh",
}
Weights = list[np.ndarray]
Digits = tuple[np.ndarray, np.ndarray]


def forty(digits: Digits) -> Digits:
    """Images uint8 [40, 28, 28, 1] and their labels."""
    return digits[0][:40, ..., np.newaxis], digits[1][:40]


@dataclass
class Update:
    """A GAN and its data, without a loop around them."""

    gan: GanState
    data: TrainingData

    def run(self, steps: int, noise_std: float = 0.0) -> list[np.ndarray]:
        """Updates the networks eagerly; returns each update's scalars."""
        scalars = []
        for _ in range(steps):
            scalars.append(update_networks(self.gan, self.data, tf.constant(noise_std)).numpy())
            self.gan.step.assign_add(1)
            self.gan.total_steps.assign_add(1)
        return scalars

    def weights(self) -> Weights:
        return weights(self.gan.generator) + weights(self.gan.discriminator)


def make_update(digits: Digits, precision: str = "float32", **changed: Any) -> Update:
    settings = TrainSettings(**(TINY | changed))
    return Update(GanState(settings, precision), TrainingData(settings, *forty(digits)))


def weights(network: keras.Model) -> Weights:
    return [variable.numpy() for variable in network.trainable_variables]


def same(a: Weights, b: Weights) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def assert_close(a: Weights, b: Weights, rtol: float = 2e-4, atol: float = 2e-6) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


class ScriptedValidationSet:
    """Finds the FIDs that it is given, one after the other."""

    def __init__(self, fids: Any) -> None:
        self.labels = np.arange(20) % 10
        self.fids = list(fids)

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> ValidationMetrics:
        assert images.shape == (20, 28, 28, 1)
        np.testing.assert_array_equal(labels, self.labels)
        fid = self.fids.pop(0)
        return ValidationMetrics(fid, 1.0, (0.1,) * 10, 1.0, relative_fid=fid / 100)
