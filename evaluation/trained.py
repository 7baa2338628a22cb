"""Figures of merit for which a network is trained: deterministic, but a minute rather than moments.

Both look at pixels and not at features, so they see what the Frechet distance of a classifier's
features does not: a background that is not quite black, wrong grey levels, fringed strokes.
"""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from metrics.images import require_pictures
from metrics.resampling import NORMAL_95, Interval
from models.digit_classifier.settings import ClassifierSettings
from models.digit_classifier.training import ClassifierTrainer, accuracy

_CHANNELS = (32, 64, 128)
_BATCH = 100
_RATE = 2e-3
_WARM_UP = 0.1
_FEWEST = 10
_ROWS = 1000


class TwoSample(NamedTuple):
    """How well a network tells generated digits from real ones it has not seen.

    Attributes:
      accuracy: share of the held-out digits it is right on, 0..1; 0.5 is what guessing gives.
      interval: 95 %, of the choice of held-out digits alone (Wilson 1927).
    """

    accuracy: float
    interval: Interval


def two_sample_accuracy(
    generated: np.ndarray,
    real: np.ndarray,
    *,
    seed: int,
    epochs: int = 8,
    train_share: float = 0.5,
) -> TwoSample:
    """The classifier two-sample test (Lopez-Paz and Oquab 2017).

    A convolutional network of its own learns to tell the two sets apart on a share of them, for a
    fixed number of epochs; nothing is chosen by the other share, on which it is then tested. There
    are as many of either kind on both sides: of the larger set a random part is used.

    Args:
      generated: uint8 [n, 28, 28, 1], 10 or more; 10,000 make it a sharp test.
      real: uint8 [m, 28, 28, 1], 10 or more.
      seed: of weights, shares and batches.
      epochs: passes over the share that is trained on.
      train_share: 0..1, of each set.

    Raises:
      ValueError: for another dtype or shape, too few pictures, or a share that leaves a side empty.
    """
    for name, images in (("generated", generated), ("real", real)):
        require_pictures(name, images, _FEWEST)
    count = min(len(generated), len(real))
    trained = round(count * train_share)
    if not 0 < trained < count or epochs < 1:
        raise ValueError(
            f"train_share={train_share} of {count} pictures for {epochs} epochs leaves nothing to "
            "train on or nothing to test on"
        )
    random = np.random.default_rng(seed)
    kinds = [random.permutation(kind)[:count] for kind in (generated, real)]
    judge = _Judge(np.concatenate([kind[:trained] for kind in kinds]), epochs, seed)
    right = sum(
        int((judge.is_real(kind[trained:]) == truth).sum())
        for kind, truth in zip(kinds, (False, True), strict=True)
    )
    tested = 2 * (count - trained)
    return TwoSample(right / tested, _wilson(right / tested, tested))


def classification_accuracy(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    seed: int,
    steps: int,
) -> float:
    """The classification accuracy score (Ravuri and Vinyals 2019).

    A classifier of the pipeline's kind is trained on generated digits, with the digits that were
    asked for as their labels, and tested on real ones. It is low when digits are not what was
    asked for, and when they vary less than real ones.

    Args:
      train_images: uint8 [n, 28, 28, 1], 10 or more.
      train_labels: int [n], 0..9.
      test_images: uint8 [m, 28, 28, 1], 10 or more.
      test_labels: int [m], 0..9.
      seed: of weights, batches and shifts.
      steps: updates of the classifier.

    Returns:
      The share of the test digits it is right on, 0..1.

    Raises:
      ValueError: for another dtype or shape, too few pictures, or labels that do not fit.
    """
    for name, images, labels in (
        ("train", train_images, train_labels),
        ("test", test_images, test_labels),
    ):
        require_pictures(f"{name}_images", images, _FEWEST)
        _require_labels(f"{name}_labels", labels, len(images))
    settings = ClassifierSettings(steps=steps, seed=seed)
    trainer = ClassifierTrainer(settings, train_images, train_labels)
    return accuracy(trainer.fit(lambda *progress: None), test_images, test_labels)


class _Judge:
    """A network that learns which digits are real; its data stays on the device."""

    def __init__(self, images: np.ndarray, epochs: int, seed: int) -> None:
        """Trains.

        Args:
          images: uint8 [2 n, 28, 28, 1], generated ones first, then as many real ones.
          epochs: passes over them.
          seed: of weights and batches.
        """
        self._images = tf.constant(images)
        self._seed = seed
        self._batch = min(_BATCH, len(images))
        self._steps = len(images) // self._batch
        self._total = epochs * self._steps
        self._model = _build_judge(seed)
        self._optimiser = keras.optimizers.Adam(_RATE, beta_2=0.99)
        self._optimiser.build(self._model.trainable_variables)
        for epoch in range(epochs):
            self._run_epoch(tf.constant(epoch))

    def is_real(self, images: np.ndarray) -> np.ndarray:
        """What it takes each of the images uint8 [n, 28, 28, 1] for, bool [n]."""
        logits = [
            self._model(images[start : start + _ROWS], training=False)
            for start in range(0, len(images), _ROWS)
        ]
        return np.concatenate(logits)[:, 0] > 0

    @tf.function
    def _run_epoch(self, epoch: tf.Tensor) -> None:
        count = self._images.shape[0]
        order = tf.random.experimental.stateless_shuffle(
            tf.range(count), tf.stack([self._seed, epoch])
        )
        for step in tf.range(self._steps):
            rows = order[step * self._batch : (step + 1) * self._batch]
            self._optimiser.learning_rate.assign(self._rate(epoch * self._steps + step))
            self._update(tf.gather(self._images, rows), rows >= count // 2)

    def _update(self, images: tf.Tensor, is_real: tf.Tensor) -> None:
        targets = tf.cast(is_real, tf.float32)[:, tf.newaxis]
        with tf.GradientTape() as tape:
            logits = self._model(images, training=True)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
            loss = tf.reduce_mean(losses)
        self._optimiser.apply(tape.gradient(loss, self._model.trainable_variables))

    def _rate(self, step: tf.Tensor) -> tf.Tensor:
        """Up over the first tenth, then down to nothing along a cosine."""
        progress = tf.cast(step, tf.float32) / self._total
        falling = 0.5 * (1.0 + tf.cos(math.pi * progress))
        return _RATE * tf.minimum(progress / _WARM_UP + 0.02, falling)


class _Views(layers.Layer):
    """Each picture three times: as it is, and with black and with white drawn apart.

    One grey level in 255 next to black or white is more than a tenth there, else it would be lost.
    """

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Maps uint8 [n, 28, 28, 1] to float32 [n, 28, 28, 3], 0..1."""
        pixels = tf.cast(images, tf.float32)
        near_black = tf.math.log1p(pixels) / math.log(256.0)
        near_white = tf.math.log1p(255.0 - pixels) / math.log(256.0)
        return tf.concat([pixels / 255.0, near_black, near_white], axis=-1)


def _build_judge(seed: int) -> keras.Model:
    """uint8 [n, 28, 28, 1] to logits float32 [n, 1], above 0 for real ones."""
    image = keras.Input((28, 28, 1), dtype="uint8")
    x: Any = _Views()(image)
    for index, channels in enumerate(_CHANNELS):
        initialiser = keras.initializers.HeNormal(seed + index)
        x = layers.Conv2D(channels, 3, 2, "same", kernel_initializer=initialiser)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.LeakyReLU(0.1)(x)
    initialiser = keras.initializers.HeNormal(seed + len(_CHANNELS))
    x = layers.Dense(128, kernel_initializer=initialiser)(layers.Flatten()(x))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    last = keras.initializers.GlorotUniform(seed + len(_CHANNELS) + 1)
    return keras.Model(image, layers.Dense(1, kernel_initializer=last)(x))


def _wilson(share: float, count: int) -> Interval:
    square = NORMAL_95**2 / count
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return Interval(max(centre - half, 0.0), min(centre + half, 1.0))


def _require_labels(name: str, labels: np.ndarray, count: int) -> None:
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (count,):
        raise ValueError(f"{name}: expected int [{count}], got {labels.dtype} {list(labels.shape)}")
    if labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"{name}: expected 0..9, got {labels.min()}..{labels.max()}")
