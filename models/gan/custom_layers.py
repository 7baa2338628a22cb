"""Layers that Keras lacks or implements differently."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

_WHITE_MEAN = 253.12  # gray levels
_WHITE_STD = 0.83
_CLIPPED_SHARE = 0.1
# Factors that stretch the tanh beyond its bounds, above and below middle gray.
_WHITE_STRETCH = 1.8
_BLACK_STRETCH = 1.3


class TransposedDense(layers.Layer):
    """A linear layer with another layer's kernel, transposed, and a bias of its own."""

    def __init__(self, kernel: keras.Variable, *, dtype: Any, name: str) -> None:
        super().__init__(dtype=dtype, name=name)
        self.kernel = kernel

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Creates the bias, one per input of the tied layer."""
        del input_shape
        self.bias = self.add_weight((self.kernel.shape[0],), "zeros", name="bias")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps [n, outputs of the tied layer] to [n, inputs of the tied layer]."""
        kernel = tf.cast(self.kernel.value, inputs.dtype)
        return tf.matmul(inputs, kernel, transpose_b=True) + tf.cast(self.bias.value, inputs.dtype)


class GrayLevels(layers.Layer):
    """Rounds a stretched tanh to whole gray levels, from black, 0, to each image's own white.

    Four fifths of MNIST's pixels are 0 and hardly any are 1 to 4. An image's strokes saturate at
    one level: 252 in 23 % of the images, 253 in 43 %, 254 in 28 %, 255 in 5 %. A plain tanh only
    approaches both ends, so every pixel of background and stroke would identify a fake image.
    White is a function of the first latent: a normal latent, scaled and rounded, gives 23, 45, 28
    and 5 %. White cannot be learned, because R1 keeps the discriminator from using a single level.

    The tanh is stretched beyond both bounds and clipped there, further beyond white: the inside of
    a real stroke is all at its white, and the edges of strokes have every gray.

    The gradient passes through the rounding (straight-through estimator, Bengio et al. 2013).
    A clipped pixel passes a tenth of its gradient: with all of it the background does not become
    quite black, and with none of it a generator of black images would never learn again.
    """

    def __init__(self) -> None:
        super().__init__(dtype="float32")

    def call(self, logits: tf.Tensor, latent: tf.Tensor) -> tf.Tensor:
        """Maps logits [n, 28, 28, 1] and latents [n, m] to images [n, 28, 28, 1] in [-1, 1]."""
        ops, stop = keras.ops, keras.ops.stop_gradient
        white = ops.clip(_WHITE_MEAN + _WHITE_STD * latent[:, 0], 0.0, 255.0)
        most = (white / 127.5 - 1.0)[:, None, None, None]
        bright = ops.tanh(logits)
        # No scalars in `where`: TensorFlow's layout optimizer fails on them on GPUs.
        free = ops.where(logits > 0.0, _WHITE_STRETCH * bright, _BLACK_STRETCH * bright)
        bounded = ops.clip(free, -1.0, most)
        image = ops.round((bounded + 1.0) * 127.5) / 127.5 - 1.0
        whole = ops.ones_like(free)
        share = ops.where(ops.equal(bounded, free), whole, _CLIPPED_SHARE * whole)
        return stop(image) + stop(share) * (free - stop(free))


class SpectralScaling(layers.Layer):
    """Divides a layer's kernel by its largest singular value (Miyato et al. 2018).

    That value is estimated by one power iteration per training call, and the gradient passes
    through the division, as in the paper; Keras' own SpectralNormalization overwrites the kernel.
    """

    def __init__(self, layer: layers.Layer) -> None:
        # The estimate is in float32, whatever the layer's arithmetic.
        super().__init__(name=f"{layer.name}_spectral", dtype="float32")
        self.layer = layer

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Makes the estimate of the left singular vector."""
        self.layer.build(input_shape)
        rows = int(np.prod(self.layer.kernel.shape[:-1]))
        self.left = self.add_weight(
            shape=(rows, 1),
            initializer=keras.initializers.RandomNormal(seed=1),
            trainable=False,
            name="left",
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Applies the layer with the scaled kernel."""
        kernel = self.layer.kernel.value
        matrix = tf.reshape(kernel, [-1, kernel.shape[-1]])
        left = self.left.value
        right = tf.math.l2_normalize(tf.matmul(tf.stop_gradient(matrix), left, transpose_a=True))
        left = tf.math.l2_normalize(tf.matmul(tf.stop_gradient(matrix), right))
        if training:
            self.left.assign(left)
        norm = tf.matmul(left, tf.matmul(matrix, right), transpose_a=True)
        scaled, bias, inputs = (
            tf.cast(tensor, self.layer.compute_dtype)
            for tensor in (kernel / (tf.squeeze(norm) + 1e-12), self.layer.bias.value, inputs)
        )
        if isinstance(self.layer, layers.Dense):
            return tf.matmul(inputs, scaled) + bias
        return tf.nn.conv2d(inputs, scaled, self.layer.strides, "SAME") + bias
