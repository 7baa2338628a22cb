"""Losses of discriminator and generator, as pairs of functions of logits, by name.

Each function takes logits float32 [n] (for the discriminator: of real and of generated digits)
and returns a scalar, the mean over the batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class LossPair(NamedTuple):
    """What each network minimises.

    Attributes:
      discriminator: (real logits, fake logits, real target) -> scalar. The target is 1, or less
        under one-sided label smoothing; only the cross-entropies heed it.
      generator: fake logits -> scalar.
    """

    discriminator: Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]
    generator: Callable[[tf.Tensor], tf.Tensor]


def _cross_entropy(logits: tf.Tensor, target: float) -> tf.Tensor:
    targets = tf.fill(tf.shape(logits), tf.cast(target, logits.dtype))
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits))


def _bce_discriminator(real: tf.Tensor, fake: tf.Tensor, real_target: float) -> tf.Tensor:
    return _cross_entropy(real, real_target) + _cross_entropy(fake, 0.0)


def _non_saturating_generator(fake: tf.Tensor) -> tf.Tensor:
    return _cross_entropy(fake, 1.0)


def _minimax_generator(fake: tf.Tensor) -> tf.Tensor:
    return -_cross_entropy(fake, 0.0)


def _least_squares_discriminator(real: tf.Tensor, fake: tf.Tensor, real_target: float) -> tf.Tensor:
    del real_target
    return 0.5 * (tf.reduce_mean(tf.square(real - 1.0)) + tf.reduce_mean(tf.square(fake)))


def _least_squares_generator(fake: tf.Tensor) -> tf.Tensor:
    return 0.5 * tf.reduce_mean(tf.square(fake - 1.0))


def _hinge_discriminator(real: tf.Tensor, fake: tf.Tensor, real_target: float) -> tf.Tensor:
    del real_target
    return tf.reduce_mean(tf.nn.relu(1.0 - real)) + tf.reduce_mean(tf.nn.relu(1.0 + fake))


def _hinge_generator(fake: tf.Tensor) -> tf.Tensor:
    return -tf.reduce_mean(fake)


LOSSES: dict[str, LossPair] = {
    # Goodfellow et al. 2014, section 3: the generator minimises -log D(G(z)).
    "non_saturating": LossPair(_bce_discriminator, _non_saturating_generator),
    # Goodfellow et al. 2014, equation 1: the generator minimises log(1 - D(G(z))).
    "minimax": LossPair(_bce_discriminator, _minimax_generator),
    # Mao et al. 2017, least squares GAN, with a=0, b=c=1.
    "least_squares": LossPair(_least_squares_discriminator, _least_squares_generator),
    # Lim and Ye 2017; Miyato et al. 2018.
    "hinge": LossPair(_hinge_discriminator, _hinge_generator),
}


def r1_penalty(discriminate: Callable[[tf.Tensor], tf.Tensor], real_images: tf.Tensor) -> tf.Tensor:
    """The R1 penalty of Mescheder et al. 2018: half the mean squared gradient norm on real data.

    Args:
      discriminate: float32 [n, 28, 28, 1] -> logits float32 [n].
      real_images: float32 [n, 28, 28, 1] in [-1, 1].

    Returns:
      A scalar, 0.5 * E[|grad_x D(x)|^2].
    """
    with tf.GradientTape() as tape:
        tape.watch(real_images)
        total = tf.reduce_sum(discriminate(real_images))
    gradients = tape.gradient(total, real_images)
    return 0.5 * tf.reduce_mean(tf.reduce_sum(tf.square(gradients), axis=[1, 2, 3]))
