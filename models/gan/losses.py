"""Losses of discriminator and generator, as pairs of functions of logits, by name.

Each function takes logits float32 [n], of real and of generated digits, and returns a float32
scalar, the mean over the batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class LossPair(NamedTuple):
    """What each network minimises.

    Attributes:
      discriminator: (real logits, fake logits, real target) -> scalar. The target is 1, or less
        under one-sided label smoothing.
      generator: (real logits, fake logits) -> scalar.
      heeds_target: whether the real target makes a difference, which it does to cross-entropy.
    """

    discriminator: Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]
    generator: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    heeds_target: bool = False


def _cross_entropy(logits: tf.Tensor, target: float) -> tf.Tensor:
    targets = tf.fill(tf.shape(logits), tf.cast(target, logits.dtype))
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits))


def _bce_discriminator(real: tf.Tensor, fake: tf.Tensor, real_target: float) -> tf.Tensor:
    return _cross_entropy(real, real_target) + _cross_entropy(fake, 0.0)


def _non_saturating_generator(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    del real
    return _cross_entropy(fake, 1.0)


def _minimax_generator(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    del real
    return -_cross_entropy(fake, 0.0)


def _least_squares_discriminator(real: tf.Tensor, fake: tf.Tensor, real_target: float) -> tf.Tensor:
    del real_target
    return 0.5 * (tf.reduce_mean(tf.square(real - 1.0)) + tf.reduce_mean(tf.square(fake)))


def _least_squares_generator(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    del real
    return 0.5 * tf.reduce_mean(tf.square(fake - 1.0))


def _hinge_discriminator(real: tf.Tensor, fake: tf.Tensor, real_target: float) -> tf.Tensor:
    del real_target
    return tf.reduce_mean(tf.nn.relu(1.0 - real)) + tf.reduce_mean(tf.nn.relu(1.0 + fake))


def _wasserstein_discriminator(real: tf.Tensor, fake: tf.Tensor, real_target: float) -> tf.Tensor:
    del real_target
    return tf.reduce_mean(fake) - tf.reduce_mean(real)


def _raise_fake_generator(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    del real
    return -tf.reduce_mean(fake)


def _relativistic_discriminator(real: tf.Tensor, fake: tf.Tensor, real_target: float) -> tf.Tensor:
    del real_target
    return tf.reduce_mean(tf.nn.softplus(fake - real))


def _relativistic_generator(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.softplus(real - fake))


LOSSES: dict[str, LossPair] = {
    # Goodfellow et al. 2014, section 3: the generator minimises -log D(G(z)).
    "non_saturating": LossPair(_bce_discriminator, _non_saturating_generator, heeds_target=True),
    # Goodfellow et al. 2014, equation 1: the generator minimises log(1 - D(G(z))).
    "minimax": LossPair(_bce_discriminator, _minimax_generator, heeds_target=True),
    # Mao et al. 2017, least squares GAN, with a=0, b=c=1.
    "least_squares": LossPair(_least_squares_discriminator, _least_squares_generator),
    # Lim and Ye 2017; Miyato et al. 2018.
    "hinge": LossPair(_hinge_discriminator, _raise_fake_generator),
    # Arjovsky et al. 2017, Wasserstein GAN; something else must keep its critic Lipschitz.
    "wasserstein": LossPair(_wasserstein_discriminator, _raise_fake_generator),
    # Jolicoeur-Martineau 2018, relativistic standard GAN; Huang et al. 2024, R3GAN. Pairs the i-th
    # real digit with the i-th generated one, so there must be as many of either.
    "relativistic": LossPair(_relativistic_discriminator, _relativistic_generator),
}
