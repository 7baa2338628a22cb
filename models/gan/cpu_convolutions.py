"""The generator's convolutions, with a faster gradient on CPUs.

TensorFlow's kernels for the gradient with respect to a filter copy every patch of every image into
a matrix and multiply it. Here that gradient is one convolution over all images, with the images of
the batch as channels and the gradient at the output as filter. With few images at 14x14 it takes
two thirds of the time; `benchmarks/step.py` measures the difference.
"""

from collections.abc import Callable

import tensorflow as tf
from keras import layers

Differentiate = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def _same_padding(size: int, kernel: int, stride: int) -> list[int]:
    """What TensorFlow's "SAME" puts before and after an axis of so many pixels."""
    needed = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return [needed // 2, needed - needed // 2]


def filter_gradient(images: tf.Tensor, gradient: tf.Tensor, kernel: int, stride: int) -> tf.Tensor:
    """The gradient with respect to the filter of a convolution with padding "SAME".

    Args:
      images: the convolution's input, float [n, h, h, c].
      gradient: at its output, float [n, ceil(h / stride), ceil(h / stride), d].
      kernel: the filter's height and width.
      stride: of the convolution.

    Returns:
      float [kernel, kernel, c, d].
    """
    padding = _same_padding(images.shape[1], kernel, stride)
    channels_first = tf.pad(tf.transpose(images, [3, 1, 2, 0]), [[0, 0], padding, padding, [0, 0]])
    found = tf.nn.conv2d(
        channels_first, tf.transpose(gradient, [1, 2, 0, 3]), 1, "VALID", dilations=stride
    )
    # Pixels that no stride reaches add rows and columns beyond the kernel's.
    return tf.transpose(found[:, :kernel, :kernel], [1, 2, 0, 3])


@tf.custom_gradient
def _convolve(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Differentiate]:
    size = kernel.shape[0]
    padding = [size - 1 - part for part in _same_padding(images.shape[1], size, 1)]

    def differentiate(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        turned = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
        by_images = tf.nn.conv2d(gradient, turned, 1, [[0, 0], padding, padding, [0, 0]])
        return by_images, filter_gradient(images, gradient, size, 1)

    return tf.nn.conv2d(images, kernel, 1, "SAME"), differentiate


class CpuConv2D(layers.Conv2D):
    """Keras' Conv2D of stride 1 and padding "same"."""

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Maps [n, h, h, c] to [n, h, h, filters]."""
        return _convolve(inputs, tf.convert_to_tensor(kernel))


class CpuConv2DTranspose(layers.Conv2DTranspose):
    """Keras' Conv2DTranspose with padding "same"."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps [n, h, h, c] to [n, h * stride, h * stride, filters]."""
        [size, _], [stride, _] = self.kernel_size, self.strides
        side = inputs.shape[1] * stride
        shape = [tf.shape(inputs)[0], side, side, self.filters]

        @tf.custom_gradient
        def convolve(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Differentiate]:
            def differentiate(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                by_images = tf.nn.conv2d(gradient, kernel, stride, "SAME")
                return by_images, filter_gradient(gradient, images, size, stride)

            return tf.nn.conv2d_transpose(images, kernel, shape, stride, "SAME"), differentiate

        return convolve(inputs, tf.convert_to_tensor(self.kernel)) + self.bias
