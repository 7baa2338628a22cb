"""The averaged generator: the network of the EMA weights, with batch statistics of its own."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from models.gan.batches import draw_latent
from models.gan.networks import CLASSES, apply, build_generator, to_pixels
from models.gan.settings import TrainSettings

BATCH_SIZE = 500
_STATISTICS_BATCHES = 10
# Random streams apart from those of the training batches, which are numbered from 0.
_STATISTICS, _SAMPLES = -1, -2


class AveragedGenerator:
    """A generator in float32 on one device that generates from given weights.

    Attributes:
      network: from `build_generator`.
    """

    def __init__(self, settings: TrainSettings) -> None:
        """Builds the network."""
        self._settings = settings
        self.network = build_generator(settings)
        self._norms = [
            layer
            for layer in self.network.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        self._generate_batch = tf.function(self._generate_batch_eagerly)

    def set_weights(self, weights: Sequence[tf.Variable]) -> None:
        """Sets the trainable weights and recomputes the batch statistics for them.

        The moving statistics of the training belong to the weights of each step, not to their
        average (Izmailov et al. 2018, section 3.2).
        """
        for variable, weight in zip(self.network.trainable_variables, weights, strict=True):
            variable.assign(weight.numpy())
        momenta = [norm.momentum for norm in self._norms]
        for batch in range(_STATISTICS_BATCHES if self._norms else 0):
            for norm in self._norms:
                norm.momentum = batch / (batch + 1)
            labels = tf.range(BATCH_SIZE) % CLASSES
            apply(self.network, self._latent((_STATISTICS, batch)), labels, training=True)
        for norm, momentum in zip(self._norms, momenta, strict=True):
            norm.momentum = momentum

    def generate(self, labels: np.ndarray) -> np.ndarray:
        """Generates an image per label int [n], uint8 [n, 28, 28, 1].

        The latents are the same on every call: those of training times `latent_scale`.
        """
        count = len(labels)
        padded = np.resize(labels, -(-count // BATCH_SIZE) * BATCH_SIZE).astype(np.int32)
        images = [
            self._generate_batch(tf.constant(batch), tf.constant(number))
            for number, batch in enumerate(np.split(padded, len(padded) // BATCH_SIZE))
        ]
        return np.concatenate(images)[:count]

    def _generate_batch_eagerly(self, labels: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        latent = self._settings.latent_scale * self._latent((_SAMPLES, number))
        return to_pixels(apply(self.network, latent, labels, training=False))

    def _latent(self, stream: tuple[int, int | tf.Tensor]) -> tf.Tensor:
        seed = tf.random.experimental.stateless_fold_in(
            tf.constant([self._settings.seed, stream[0]]), stream[1]
        )
        return draw_latent(self._settings, BATCH_SIZE, seed)
