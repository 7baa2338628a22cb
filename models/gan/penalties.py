"""Gradient penalties, which keep the discriminator's slope at its input small, or near 1.

Each is a float32 scalar and can be differentiated again, by the discriminator's variables. A
discriminator may compute in half precision inside; its input, its logits and so the gradients
here are float32. One that normalizes by the batch makes every logit depend on every picture: the
penalties are then those of the sum of the logits.
"""

from collections.abc import Callable

import tensorflow as tf

# Under the root of a squared norm: the slope of a root at 0 is infinite, and times 0 it is NaN.
_TINY = 1e-12


def zero_centred_penalty(
    discriminate: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor
) -> tf.Tensor:
    """Half the mean squared gradient norm, Mescheder et al. 2018.

    On real pictures it is their R1, on generated ones R2.

    Args:
      discriminate: float32 [n, 28, 28, c] -> logits float32 [n].
      images: float32 [n, 28, 28, c] in [-1, 1], c being 1, or 3 under `log_intensity_channels`.

    Returns:
      A float32 scalar of at least 0, 0.5 * E[|grad_x D(x)|^2].
    """
    return 0.5 * tf.reduce_mean(_squared_slopes(discriminate, images))


def interpolated_penalty(
    discriminate: Callable[[tf.Tensor], tf.Tensor],
    real: tf.Tensor,
    fake: tf.Tensor,
    share: tf.Tensor,
) -> tf.Tensor:
    """WGAN-GP's, Gulrajani et al. 2017, equation 3: draws the slope between the two sets to 1.

    Args:
      discriminate: float32 [n, 28, 28, c] -> logits float32 [n].
      real: float32 [n, 28, 28, c] in [-1, 1], c being 1, or 3 under `log_intensity_channels`.
      fake: like `real`.
      share: of the real picture in each mixture, float32 [n, 1, 1, 1] in [0, 1].

    Returns:
      A float32 scalar of at least 0, E[(|grad_x D(x)| - 1)^2] at x = share real + (1 - share) fake.
    """
    mixed = share * real + (1.0 - share) * fake
    norms = tf.sqrt(_squared_slopes(discriminate, mixed) + _TINY)
    return tf.reduce_mean(tf.square(norms - 1.0))


def _squared_slopes(discriminate: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> tf.Tensor:
    """|grad_x D(x)|^2 of each picture, float32 [n]."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(discriminate(images))
    gradients = tape.gradient(total, images)
    return tf.reduce_sum(tf.square(gradients), axis=[1, 2, 3])
