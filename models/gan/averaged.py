"""The averaged generator, ready to draw: its batch statistics and its sampling."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from models.gan.networks import CLASSES, apply, build_generator, to_pixels
from models.gan.settings import TrainSettings
from models.gan.update import draw_latent

_ROWS = 500
_STATISTICS_BATCHES = 10
# Streams of random numbers, apart from those of the training, which count from 0.
_STATISTICS, _PICTURES = -1, -2


class AveragedGenerator:
    """A generator in float32 on one device, whose weights are given from outside."""

    def __init__(self, settings: TrainSettings) -> None:
        """Builds the network.

        Attributes:
          network: from `build_generator`.
        """
        self._settings = settings
        self.network = build_generator(settings)
        self._norms = [
            layer
            for layer in self.network.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        self._draw_rows = tf.function(self._draw_rows_eagerly)

    def set_weights(self, weights: Sequence[tf.Variable]) -> None:
        """Takes trainable weights, and recomputes the batch statistics that belong to them.

        The moving statistics of the training belong to the weights as they were then, not to
        their average (Izmailov et al. 2018, section 3.2).
        """
        for variable, weight in zip(self.network.trainable_variables, weights, strict=True):
            variable.assign(weight.numpy())
        momenta = [norm.momentum for norm in self._norms]
        for batch in range(_STATISTICS_BATCHES if self._norms else 0):
            for norm in self._norms:
                norm.momentum = batch / (batch + 1)
            digits = tf.range(_ROWS) % CLASSES
            apply(self.network, self._latent((_STATISTICS, batch)), digits, training=True)
        for norm, momentum in zip(self._norms, momenta, strict=True):
            norm.momentum = momentum

    def draw(self, digits: np.ndarray) -> np.ndarray:
        """Draws a picture for each of the digits int [n], uint8 [n, 28, 28, 1].

        The latents are the same on every call, `latent_scale` times as wide as in training.
        """
        count = len(digits)
        padded = np.resize(digits, -(-count // _ROWS) * _ROWS).astype(np.int32)
        pictures = [
            self._draw_rows(tf.constant(rows), tf.constant(number))
            for number, rows in enumerate(np.split(padded, len(padded) // _ROWS))
        ]
        return np.concatenate(pictures)[:count]

    def _draw_rows_eagerly(self, digits: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        latent = self._settings.latent_scale * self._latent((_PICTURES, number))
        return to_pixels(apply(self.network, latent, digits, training=False))

    def _latent(self, stream: tuple[int, int | tf.Tensor]) -> tf.Tensor:
        seed = tf.random.experimental.stateless_fold_in(
            tf.constant([self._settings.seed, stream[0]]), stream[1]
        )
        return draw_latent(self._settings, _ROWS, seed)
