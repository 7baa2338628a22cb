"""Penalties on the gradient of the discriminator's logit with respect to its input.

Each penalty is a float32 scalar that can be differentiated again, with respect to the
discriminator's variables. The discriminator may compute in half precision; its input, its logits
and the gradients here are float32. With batch normalization every logit depends on every image of
the batch, and the penalties are those of the sum of the logits.
"""

from collections.abc import Callable

import tensorflow as tf

# Added to a squared norm before its root: the derivative of a root at 0 is infinite.
_EPSILON = 1e-12


def zero_centered_gradient_penalty(
    discriminate: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor
) -> tf.Tensor:
    """Half the mean squared gradient norm (Mescheder et al. 2018): R1 on real images, R2 on fake.

    Args:
      discriminate: float32 [n, 28, 28, c] -> logits float32 [n].
      images: float32 [n, 28, 28, c] in [-1, 1], c being 1, or 3 under `log_intensity_channels`.

    Returns:
      A float32 scalar of at least 0, 0.5 * E[|grad_x D(x)|^2].
    """
    return 0.5 * tf.reduce_mean(_squared_gradient_norms(discriminate, images))


def wasserstein_gradient_penalty(
    discriminate: Callable[[tf.Tensor], tf.Tensor],
    real: tf.Tensor,
    fake: tf.Tensor,
    share: tf.Tensor,
) -> tf.Tensor:
    """Gradient penalty of WGAN-GP (Gulrajani et al. 2017, equation 3): pulls the norm to 1.

    Args:
      discriminate: float32 [n, 28, 28, c] -> logits float32 [n].
      real: float32 [n, 28, 28, c] in [-1, 1], c being 1, or 3 under `log_intensity_channels`.
      fake: float32 [n, 28, 28, c] in [-1, 1].
      share: weight of the real image in each interpolation, float32 [n, 1, 1, 1] in [0, 1].

    Returns:
      A float32 scalar of at least 0, E[(|grad_x D(x)| - 1)^2] at x = share real + (1 - share) fake.
    """
    interpolated = share * real + (1.0 - share) * fake
    norms = tf.sqrt(_squared_gradient_norms(discriminate, interpolated) + _EPSILON)
    return tf.reduce_mean(tf.square(norms - 1.0))


def _squared_gradient_norms(
    discriminate: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor
) -> tf.Tensor:
    """|grad_x D(x)|^2 of each image, float32 [n]."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(discriminate(images))
    gradients = tape.gradient(total, images)
    return tf.reduce_sum(tf.square(gradients), axis=[1, 2, 3])
