"""Training of the classifier, on data that stay on the device."""

import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from models.digit_classifier.network import build_classifier

_BATCH_SIZE = 128
_LEARNING_RATE = 6e-3  # the highest
_SHIFT = 2
_SMOOTHING = 0.05
_STEPS_PER_EXECUTION = 50
_WARM_UP = 0.15


class ClassifierTrainer:
    """Trains a classifier; every random draw follows from the seed and the step."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, *, steps: int, seed: int = 0):
        """Puts the data on the device.

        Args:
          images: uint8 [n, 28, 28, 1].
          labels: int [n], 0..9.
          steps: updates of the classifier, 1 or more.
          seed: seed of weights, batches and shifts.
        """
        self._steps, self._seed = steps, seed
        self._images = tf.constant(images)
        self._labels = tf.constant(labels, tf.int32)
        self.model = build_classifier(seed)
        self._optimizer = keras.optimizers.Adam(_LEARNING_RATE, beta_2=0.99, epsilon=1e-5)
        self._optimizer.build(self.model.trainable_variables)
        self._step = tf.Variable(0, dtype=tf.int32, trainable=False)

    def fit(self, report: Callable[[int, float, float], None]) -> keras.Model:
        """Trains for all its steps.

        Args:
          report: called after each call to the device with the step, the mean loss of the call and
            the seconds so far.
        """
        started = time.monotonic()
        total = self._steps
        while (step := int(self._step)) < total:
            steps = min(_STEPS_PER_EXECUTION, total - step)
            loss = float(self._run_steps(tf.constant(steps)))
            report(step + steps, loss, time.monotonic() - started)
        return self.model

    @tf.function
    def _run_steps(self, steps: tf.Tensor) -> tf.Tensor:
        total = tf.constant(0.0)
        for _ in tf.range(steps):
            total += self._update()
        return total / tf.cast(steps, tf.float32)

    def _update(self) -> tf.Tensor:
        images, labels = self._batch()
        targets = tf.one_hot(labels, 10) * (1 - _SMOOTHING) + _SMOOTHING / 10
        self._optimizer.learning_rate.assign(self._learning_rate())
        with tf.GradientTape() as tape:
            _, logits = self.model(images, training=True)
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, self.model.trainable_variables)
        self._optimizer.apply(gradients)
        self._step.assign_add(1)
        return loss

    def _learning_rate(self) -> tf.Tensor:
        """Rises over 15 % of the steps, then falls to 0 (one cycle; Smith and Topin 2017)."""
        progress = tf.cast(self._step, tf.float32) / self._steps
        shape = tf.minimum(progress / _WARM_UP + 0.02, (1 - progress) / (1 - _WARM_UP))
        return _LEARNING_RATE * tf.minimum(shape, 1.0)

    def _batch(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws a random batch, each image shifted by up to two pixels each way."""
        seed = self._seed
        rows = tf.random.stateless_uniform(
            [_BATCH_SIZE], [seed, 2 * self._step], 0, self._images.shape[0], tf.int32
        )
        offsets = tf.random.stateless_uniform(
            [_BATCH_SIZE, 2], [seed, 2 * self._step + 1], -_SHIFT, _SHIFT + 1, tf.int32
        )
        return shift(tf.gather(self._images, rows), offsets), tf.gather(self._labels, rows)


def shift(images: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
    """Shifts images uint8 [n, 28, 28, 1] by offsets int32 [n, 2] in pixels, left and up."""
    left, up = tf.unstack(tf.cast(offsets, tf.float32), axis=1)
    one, zero = tf.ones_like(left), tf.zeros_like(left)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([one, zero, left, zero, one, up, zero, zero], axis=1),
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )


def accuracy(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> float:
    """Returns the accuracy, 0 to 1, on images uint8 [n, 28, 28, 1] with labels int [n]."""
    _, logits = model.predict(images, batch_size=1000, verbose=0)
    return float((logits.argmax(axis=1) == labels).mean())
