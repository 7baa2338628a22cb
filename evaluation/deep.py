"""Metrics for which a network is trained: deterministic, but a minute rather than a moment.

Both look at pixels and not at features, so they see what the Frechet distance of a classifier's
features does not: a background that is not quite black, wrong gray levels, fringed strokes.
"""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
import scipy
import tensorflow as tf
from keras import layers

from evaluation.image_statistics import RealDigits
from evaluation.sampling import Samples
from metrics.images import require_images
from metrics.resampling import Estimate, Interval
from models.digit_classifier.settings import ClassifierSettings
from models.digit_classifier.training import ClassifierTrainer, accuracy

_CHANNELS = (32, 64, 128)
_BATCH_SIZE = 100
_LEARNING_RATE = 2e-3
_WARM_UP = 0.1
_FEWEST_IMAGES = 10
_INFERENCE_ROWS = 1000


class TwoSample(NamedTuple):
    """How well a network tells generated from real images.

    Attributes:
      accuracy: on images that the network was not trained on, 0 to 1; 0.5 is chance.
      interval: 95 % interval of the choice of test images alone (Wilson 1927).
    """

    accuracy: float
    interval: Interval


def measure_deep(samples: Samples, real: RealDigits, seed: int) -> dict[str, Estimate]:
    """Computes the metrics of the table that require `deep`.

    Returns:
      `two_sample_accuracy`; and, if the samples have labels, `classification_accuracy_score`
      without an interval.
    """
    found = two_sample_accuracy(samples.images, real.eval, seed=seed)
    estimates = {"two_sample_accuracy": Estimate(found.accuracy, found.interval)}
    if samples.labels is not None:
        score = classification_accuracy_score(
            samples.images,
            samples.labels,
            real.eval,
            real.eval_labels,
            seed=seed,
            steps=ClassifierSettings().steps,
        )
        estimates["classification_accuracy_score"] = Estimate(score, None)
    return estimates


def two_sample_accuracy(
    generated: np.ndarray,
    real: np.ndarray,
    *,
    seed: int,
    epochs: int = 8,
    train_share: float = 0.5,
) -> TwoSample:
    """Performs the classifier two-sample test (Lopez-Paz and Oquab 2017).

    A convolutional network learns to tell the two sets apart on a share of each, for a fixed number
    of epochs, and is tested on the rest, by which nothing is selected. The larger set is reduced at
    random to the size of the smaller one.

    Args:
      generated: uint8 [n, 28, 28, 1], n of 10 or more; 10,000 make a sharp test.
      real: uint8 [m, 28, 28, 1], m of 10 or more.
      seed: seed of weights, split and batches.
      epochs: epochs of training, 1 or more.
      train_share: share of each set to train on, between 0 and 1.

    Raises:
      ValueError: If images have another dtype or shape or are too few, or nothing is left to train
        or to test on.
    """
    for name, images in (("generated", generated), ("real", real)):
        require_images(name, images, _FEWEST_IMAGES)
    count = min(len(generated), len(real))
    trained = round(count * train_share)
    if not 0 < trained < count or epochs < 1:
        raise ValueError(
            f"train_share={train_share} of {count} images for {epochs} epochs leaves nothing to "
            "train on or nothing to test on"
        )
    random = np.random.default_rng(seed)
    fake, true = (random.permutation(images)[:count] for images in (generated, real))
    network = _Discriminator(np.concatenate([fake[:trained], true[:trained]]), epochs, seed)
    correct = int((~network.predict_real(fake[trained:])).sum())
    correct += int(network.predict_real(true[trained:]).sum())
    result = scipy.stats.binomtest(correct, 2 * (count - trained))
    low, high = result.proportion_ci(0.95, method="wilson")
    return TwoSample(result.statistic, Interval(float(low), float(high)))


def classification_accuracy_score(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    seed: int,
    steps: int,
) -> float:
    """Returns the classification accuracy score (Ravuri and Vinyals 2019).

    A digit classifier is trained on generated images and their labels, and tested on real images.
    The score is low if images do not show their label, or are less diverse than real ones.

    Args:
      train_images: uint8 [n, 28, 28, 1], n of 10 or more, generated.
      train_labels: int [n], 0 to 9.
      test_images: uint8 [m, 28, 28, 1], m of 10 or more, real.
      test_labels: int [m], 0 to 9.
      seed: seed of weights, batches and shifts.
      steps: updates of the classifier.

    Returns:
      The accuracy on the test images, 0 to 1.

    Raises:
      ValueError: If images or labels have another dtype, shape or range, or images are too few.
    """
    for name, images, labels in (
        ("train", train_images, train_labels),
        ("test", test_images, test_labels),
    ):
        require_images(f"{name}_images", images, _FEWEST_IMAGES)
        _require_labels(f"{name}_labels", labels, len(images))
    trainer = ClassifierTrainer(train_images, train_labels, steps=steps, seed=seed)
    return accuracy(trainer.fit(lambda *progress: None), test_images, test_labels)


class _Discriminator:
    """A network that learns to tell real from generated images; its data stay on the device."""

    def __init__(self, images: np.ndarray, epochs: int, seed: int) -> None:
        """Trains the network.

        Args:
          images: uint8 [2 n, 28, 28, 1], n generated images, then n real ones.
          epochs: epochs of training.
          seed: seed of weights and batches.
        """
        self._images = tf.constant(images)
        self._seed = seed
        self._batch_size = min(_BATCH_SIZE, len(images))
        self._steps = len(images) // self._batch_size
        self._total_steps = epochs * self._steps
        self._model = _build_discriminator(seed)
        self._optimizer = keras.optimizers.Adam(_LEARNING_RATE, beta_2=0.99)
        self._optimizer.build(self._model.trainable_variables)
        for epoch in range(epochs):
            self._run_epoch(tf.constant(epoch))

    def predict_real(self, images: np.ndarray) -> np.ndarray:
        """Returns which of the images uint8 [n, 28, 28, 1] it takes for real, bool [n]."""
        logits = [
            self._model(images[start : start + _INFERENCE_ROWS], training=False)
            for start in range(0, len(images), _INFERENCE_ROWS)
        ]
        return np.concatenate(logits)[:, 0] > 0

    @tf.function
    def _run_epoch(self, epoch: tf.Tensor) -> None:
        count = self._images.shape[0]
        order = tf.random.experimental.stateless_shuffle(
            tf.range(count), tf.stack([self._seed, epoch])
        )
        for step in tf.range(self._steps):
            rows = order[step * self._batch_size : (step + 1) * self._batch_size]
            learning_rate = self._learning_rate(epoch * self._steps + step)
            self._optimizer.learning_rate.assign(learning_rate)
            self._update(tf.gather(self._images, rows), rows >= count // 2)

    def _update(self, images: tf.Tensor, is_real: tf.Tensor) -> None:
        targets = tf.cast(is_real, tf.float32)[:, tf.newaxis]
        with tf.GradientTape() as tape:
            logits = self._model(images, training=True)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
            loss = tf.reduce_mean(losses)
        self._optimizer.apply(tape.gradient(loss, self._model.trainable_variables))

    def _learning_rate(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the rate of a linear warm-up over the first tenth, then of a cosine decay."""
        progress = tf.cast(step, tf.float32) / self._total_steps
        decay = 0.5 * (1.0 + tf.cos(math.pi * progress))
        return _LEARNING_RATE * tf.minimum(progress / _WARM_UP + 0.02, decay)


class _LogIntensityChannels(layers.Layer):
    """Adds two channels in which black and white are stretched by a logarithm.

    A single gray level next to black or white is more than a tenth in these channels, and would be
    lost in the first one.
    """

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Maps uint8 [n, 28, 28, 1] to float32 [n, 28, 28, 3] in [0, 1]."""
        pixels = tf.cast(images, tf.float32)
        near_black = tf.math.log1p(pixels) / math.log(256.0)
        near_white = tf.math.log1p(255.0 - pixels) / math.log(256.0)
        return tf.concat([pixels / 255.0, near_black, near_white], axis=-1)


def _build_discriminator(seed: int) -> keras.Model:
    """Maps uint8 [n, 28, 28, 1] to logits float32 [n, 1], above 0 for real images."""
    image = keras.Input((28, 28, 1), dtype="uint8")
    x: Any = _LogIntensityChannels()(image)
    for index, channels in enumerate(_CHANNELS):
        initializer = keras.initializers.HeNormal(seed + index)
        x = layers.Conv2D(channels, 3, 2, "same", kernel_initializer=initializer)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.LeakyReLU(0.1)(x)
    initializer = keras.initializers.HeNormal(seed + len(_CHANNELS))
    x = layers.Dense(128, kernel_initializer=initializer)(layers.Flatten()(x))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    last = keras.initializers.GlorotUniform(seed + len(_CHANNELS) + 1)
    return keras.Model(image, layers.Dense(1, kernel_initializer=last)(x))


def _require_labels(name: str, labels: np.ndarray, count: int) -> None:
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (count,):
        raise ValueError(f"{name}: expected int [{count}], got {labels.dtype} {list(labels.shape)}")
    if labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"{name}: expected 0..9, got {labels.min()}..{labels.max()}")
