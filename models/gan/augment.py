"""Differentiable augmentation of the discriminator's input, Zhao et al. 2020.

Every function takes images float32 [n, 28, 28, 1] in [-1, 1] and a seed int32 [2], draws random
numbers for each image, and returns the same shape and dtype. All are graph operations that are
differentiable with respect to the images. Two differences from the paper's code: lost pixels become
the background, -1, and not 0; and the longest shift, an eighth of 28, is rounded down.
"""

from collections.abc import Callable

import tensorflow as tf

_SIZE = 28
_BACKGROUND = -1.0
_LONGEST_SHIFT = _SIZE // 8
_HOLE = _SIZE // 2


def augment(images: tf.Tensor, policy: tuple[str, ...], seed: tf.Tensor) -> tf.Tensor:
    """Applies a policy's augmentations, one after the other.

    Args:
      images: float32 [n, 28, 28, 1] in [-1, 1].
      policy: names from `POLICIES`, in the order of application; may be empty.
      seed: int32 [2]; the same seed, policy and n give the same augmentation.

    Returns:
      float32 [n, 28, 28, 1]. Brightness adds up to 0.5 either way and contrast stretches by up to
      1.5, so values may leave [-1, 1]: as in the paper, they are not clipped.
    """
    for position, name in enumerate(policy):
        images = POLICIES[name](images, tf.random.fold_in(seed, position))
    return images


def _translation(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Shifts by -3..3 whole pixels down and, independently, to the right.

    Implemented as a gather: a product with shift matrices would be rounded to TF32 on a GPU.
    """
    count, border, padded = tf.shape(images)[0], _LONGEST_SHIFT, _SIZE + 2 * _LONGEST_SHIFT
    starts = tf.random.stateless_uniform([2, count], seed, 0, 2 * border + 1, tf.int32)
    rows, columns = tf.unstack(starts[:, :, None] + tf.range(_SIZE))
    indices = tf.reshape(rows[:, :, None] * padded + columns[:, None, :], [count, _SIZE * _SIZE])
    margins = [[0, 0], [border, border], [border, border], [0, 0]]
    pixels = tf.reshape(
        tf.pad(images, margins, constant_values=_BACKGROUND), [count, padded * padded]
    )
    return tf.reshape(tf.gather(pixels, indices, batch_dims=1), tf.shape(images))


def _cutout(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Blanks the part inside the image of a 14x14 square, with its center anywhere from 0 to 28."""
    centers = tf.random.stateless_uniform([2, tf.shape(images)[0], 1], seed, 0, _SIZE + 1, tf.int32)
    offsets = tf.range(_SIZE) - centers
    rows, columns = tf.unstack((offsets >= -_HOLE // 2) & (offsets < _HOLE // 2))
    hole = rows[:, :, None] & columns[:, None, :]
    return tf.where(hole[..., None], _BACKGROUND, images)


def _brightness(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Adds U(-0.5, 0.5)."""
    return images + tf.random.stateless_uniform(_one_per_image(images), seed, -0.5, 0.5)


def _contrast(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Scales the distances from the image's mean by U(0.5, 1.5)."""
    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    scale = tf.random.stateless_uniform(_one_per_image(images), seed, 0.5, 1.5)
    return mean + scale * (images - mean)


def _one_per_image(images: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.shape(images)[0], 1, 1, 1])


POLICIES: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "translation": _translation,
    "cutout": _cutout,
    "brightness": _brightness,
    "contrast": _contrast,
}
