"""The generator's convolutions for CPUs against Keras' own: outputs and gradients."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from models.gan.cpu_convolutions import CpuConv2D, CpuConv2DTranspose
from models.gan.networks import apply, build_generator
from models.gan.settings import TrainSettings


def gradients(layer: layers.Layer, images: tf.Tensor, at_output: tf.Tensor) -> list[np.ndarray]:
    """The output, and the gradients by the images, the kernel and the bias."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        output = layer(images)
    sources = [images, *layer.trainable_variables]
    found = tape.gradient(output, sources, at_output)
    return [output.numpy(), *(gradient.numpy() for gradient in found)]


@pytest.mark.parametrize("side", [1, 4, 7, 14])
@pytest.mark.parametrize(
    ("own", "other", "kernel", "stride"),
    [
        (CpuConv2D, layers.Conv2D, 1, 1),
        (CpuConv2D, layers.Conv2D, 2, 1),
        (CpuConv2D, layers.Conv2D, 3, 1),
        (CpuConv2D, layers.Conv2D, 4, 1),
        (CpuConv2DTranspose, layers.Conv2DTranspose, 2, 2),
        (CpuConv2DTranspose, layers.Conv2DTranspose, 4, 2),
        (CpuConv2DTranspose, layers.Conv2DTranspose, 6, 2),
        (CpuConv2DTranspose, layers.Conv2DTranspose, 3, 1),
    ],
)
def test_a_layer_is_keras_own_with_its_gradients(
    own: Any, other: Any, kernel: int, stride: int, side: int
) -> None:
    images = tf.random.stateless_normal([3, side, side, 5], [1, 2])
    made = [kind(4, kernel, stride, "same") for kind in (own, other)]
    for layer in made:
        layer.build(images.shape)
    weights = [tf.random.stateless_normal(w.shape, [3, 4]) for w in made[0].weights]
    at_output = tf.random.stateless_normal([3, *made[1](images).shape[1:]], [5, 6])
    ours, theirs = [], []
    for layer, seen in zip(made, (ours, theirs), strict=True):
        layer.set_weights(weights)
        seen.extend(gradients(layer, images, at_output))
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [(8, 4, 2), (8, 4, 0)])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_generator_learns_as_exactly_as_with_keras_own(
    channels: tuple[int, int, int], precision: str
) -> None:
    recipe = TrainSettings(latent_dim=6, generator_channels=channels, generator_output="tanh")
    exact = kernel_gradients(build_generator(recipe))
    keras_own = kernel_gradients(build_generator(recipe, precision))
    ours = kernel_gradients(build_generator(recipe, precision, cpu_gradients=True))
    for expected, plain, found in zip(exact, keras_own, ours, strict=True):
        rounding = np.linalg.norm(plain - expected) + 1e-5 * np.linalg.norm(expected)
        assert np.linalg.norm(found - expected) <= 2 * rounding


def kernel_gradients(network: keras.Model) -> list[np.ndarray]:
    """By kernels: before batch normalization a bias has no gradient but rounding."""
    digits, latent = tf.range(5), tf.random.stateless_normal([5, 6], [7, 8])
    at_output = tf.random.stateless_normal([5, 28, 28, 1], [9, 10])
    with tf.GradientTape() as tape:
        picture = apply(network, latent, digits, training=True)
    kernels = [weight for weight in network.trainable_variables if len(weight.shape) > 1]
    return [found.numpy() for found in tape.gradient(picture, kernels, at_output)]
