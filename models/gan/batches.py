"""Training batches, drawn on the device from images that stay there.

Every random number follows from the seed, the number of the batch and a stream, so the step alone
is the position in the data and in all random streams.
"""

import enum
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from models.gan.networks import IMAGE_SHAPE, scale_pixels
from models.gan.settings import TrainSettings

_STREAMS_PER_BATCH = 8


class Stream(enum.IntEnum):
    """What a random draw of one batch is for; each purpose has a seed of its own."""

    ROWS = 0
    LATENT = 1
    AUGMENT_REAL = 2
    AUGMENT_FAKE = 3
    NOISE_REAL = 4
    NOISE_FAKE = 5
    INTERPOLATION = 6


class BatchSeeds:
    """Seeds of one batch's random draws, for TensorFlow's stateless random functions."""

    def __init__(self, seed: int, number: tf.Tensor, replica: tf.Tensor) -> None:
        """Keeps what the seeds follow from.

        Args:
          seed: of the training.
          number: int64 scalar, number of the batch.
          replica: int32 scalar, number of this replica.
        """
        self._seed = seed
        self._number = number
        self._replica = replica

    def shared(self, stream: Stream) -> tf.Tensor:
        """A seed int64 [2] that all replicas share."""
        position = self._number * _STREAMS_PER_BATCH + stream
        return tf.stack([tf.cast(self._seed, tf.int64), position])

    def per_replica(self, stream: Stream) -> tf.Tensor:
        """A seed int64 [2] of this replica's own."""
        return tf.random.experimental.stateless_fold_in(self.shared(stream), self._replica)


class Batch(NamedTuple):
    """One replica's part of a batch, n being the batch size per replica.

    Attributes:
      images: float32 [n, 28, 28, 1] in [-1, 1].
      labels: int32 [n], 0..9.
      latent: float32 [n, latent_dim], for as many fake images with the same labels.
      seeds: of all further random draws.
    """

    images: tf.Tensor
    labels: tf.Tensor
    latent: tf.Tensor
    seeds: BatchSeeds


class TrainingData:
    """Images and labels on the device.

    Attributes:
      replicas: how many replicas share `settings.batch_size`.
    """

    def __init__(
        self, settings: TrainSettings, images: np.ndarray, labels: np.ndarray, replicas: int = 1
    ) -> None:
        """Copies the data to the device; has to be called within the strategy's scope.

        Args:
          settings: the recipe.
          images: uint8 [n, 28, 28, 1].
          labels: int [n], 0..9.
          replicas: how many share `settings.batch_size`, which is a multiple of it.
        """
        self._settings = settings
        self.replicas = replicas
        # As int64, since workers cannot send each other uint8; 8 divides 28 * 28.
        packed = np.ascontiguousarray(images, np.uint8).reshape(len(images), -1).view(np.int64)
        self._images = tf.Variable(packed, trainable=False)
        # Not int32, which TensorFlow keeps on the host.
        self._labels = tf.Variable(np.asarray(labels, np.int64), trainable=False)

    def draw_batch(self, number: tf.Tensor) -> Batch:
        """Draws this replica's part of a batch, with replacement.

        Rows and latents are drawn for all replicas together and then shared out, so that the number
        of replicas does not change the batch.

        Args:
          number: int64 scalar; the same number draws the same batch.
        """
        size, count = self._settings.batch_size, self._images.shape[0]
        local_size = size // self.replicas
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seeds = BatchSeeds(self._settings.seed, number, replica)

        def part(values: tf.Tensor) -> tf.Tensor:
            return tf.reshape(values, [-1, local_size, *values.shape[1:]])[replica]

        rows = tf.random.stateless_uniform([size], seeds.shared(Stream.ROWS), 0, count, tf.int32)
        rows = part(rows)
        pixels = tf.bitcast(tf.gather(self._images, rows), tf.uint8)
        return Batch(
            images=scale_pixels(tf.reshape(pixels, [local_size, *IMAGE_SHAPE])),
            labels=tf.cast(tf.gather(self._labels, rows), tf.int32),
            latent=part(draw_latent(self._settings, size, seeds.shared(Stream.LATENT))),
            seeds=seeds,
        )


def draw_latent(settings: TrainSettings, count: int, seed: tf.Tensor) -> tf.Tensor:
    """Draws latents float32 [count, latent_dim] from the distribution in the settings."""
    shape = [count, settings.latent_dim]
    if settings.latent == "uniform":
        return tf.random.stateless_uniform(shape, seed, -1.0, 1.0)
    return tf.random.stateless_normal(shape, seed)
