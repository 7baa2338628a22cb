"""Loss functions of the discriminator and the generator, one row of `LOSSES` per pair.

Each function takes logits float32 [n] of real and of fake images and returns a float32 scalar, the
mean over the batch. TensorFlow is imported where a loss is computed and not here, so that the
settings can name the losses without waiting for it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import tensorflow as tf


class GanLoss(NamedTuple):
    """What each network minimizes.

    Attributes:
      discriminator: (real logits, fake logits, real target) -> scalar. The target is 1, or less
        under one-sided label smoothing.
      generator: (real logits, fake logits) -> scalar.
      smooths_labels: whether the discriminator's loss depends on the real target, as cross-entropy
        does.
      saturated_below: value of the discriminator's loss below which its gradient at the fake images
        all but vanishes; None for a loss without such a bound.
    """

    discriminator: "Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]"
    generator: "Callable[[tf.Tensor, tf.Tensor], tf.Tensor]"
    smooths_labels: bool = False
    saturated_below: float | None = None


def _mean(values: "tf.Tensor") -> "tf.Tensor":
    import tensorflow as tf

    return tf.reduce_mean(values)


def _mean_square(values: "tf.Tensor") -> "tf.Tensor":
    import tensorflow as tf

    return tf.reduce_mean(tf.square(values))


def _relu(logits: "tf.Tensor") -> "tf.Tensor":
    import tensorflow as tf

    return tf.nn.relu(logits)


def _softplus(logits: "tf.Tensor") -> "tf.Tensor":
    import tensorflow as tf

    return tf.nn.softplus(logits)


def _cross_entropy(logits: "tf.Tensor", target: float) -> "tf.Tensor":
    """Mean binary cross-entropy between sigmoid(logits) and one target for all."""
    import tensorflow as tf

    targets = tf.fill(tf.shape(logits), tf.cast(target, logits.dtype))
    return _mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits))


LOSSES: dict[str, GanLoss] = {
    # Goodfellow et al. 2014, section 3: the generator minimizes -log D(G(z)).
    "non_saturating": GanLoss(
        lambda real, fake, target: _cross_entropy(real, target) + _cross_entropy(fake, 0.0),
        lambda real, fake: _cross_entropy(fake, 1.0),
        smooths_labels=True,
        saturated_below=0.02,
    ),
    # Goodfellow et al. 2014, equation 1: the generator minimizes log(1 - D(G(z))).
    "minimax": GanLoss(
        lambda real, fake, target: _cross_entropy(real, target) + _cross_entropy(fake, 0.0),
        lambda real, fake: -_cross_entropy(fake, 0.0),
        smooths_labels=True,
        saturated_below=0.02,
    ),
    # Mao et al. 2017, least squares GAN, with a=0, b=c=1.
    "least_squares": GanLoss(
        lambda real, fake, target: 0.5 * (_mean_square(real - 1.0) + _mean_square(fake)),
        lambda real, fake: 0.5 * _mean_square(fake - 1.0),
        saturated_below=0.005,
    ),
    # Lim and Ye 2017; Miyato et al. 2018.
    "hinge": GanLoss(
        lambda real, fake, target: _mean(_relu(1.0 - real)) + _mean(_relu(1.0 + fake)),
        lambda real, fake: -_mean(fake),
        saturated_below=0.005,
    ),
    # Arjovsky et al. 2017, Wasserstein GAN; needs a gradient penalty or spectral normalization,
    # which keep the critic Lipschitz.
    "wasserstein": GanLoss(
        lambda real, fake, target: _mean(fake) - _mean(real),
        lambda real, fake: -_mean(fake),
    ),
    # Jolicoeur-Martineau 2018, relativistic standard GAN; Huang et al. 2024, R3GAN. Pairs the i-th
    # real image with the i-th fake one, so there must be as many of either.
    "relativistic": GanLoss(
        lambda real, fake, target: _mean(_softplus(fake - real)),
        lambda real, fake: _mean(_softplus(real - fake)),
        saturated_below=0.01,
    ),
}
