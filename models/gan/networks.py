"""The two networks, built from the settings."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from models.gan.cpu_convolutions import CpuConv2D, CpuConv2DTranspose
from models.gan.custom_layers import GrayLevels, SpectralScaling, TransposedDense
from models.gan.settings import TrainSettings

IMAGE_SHAPE = (28, 28, 1)
CLASSES = 10
PROJECTION = "project"
FEATURES = 128
_LEAKY_SLOPE = 0.2  # Radford et al. 2016

_INITIALIZERS: dict[str, Callable[[int], Any]] = {
    "keras": keras.initializers.GlorotUniform,
    "normal": lambda seed: keras.initializers.RandomNormal(0.0, 0.02, seed),
    "he": keras.initializers.HeNormal,
}


class _Builder:
    """Creates the layers of one network; the seed determines every initial weight."""

    def __init__(
        self,
        settings: TrainSettings,
        *,
        activation: str,
        normalization: str,
        precision: str,
        seed: int,
        cpu_gradients: bool = False,
    ) -> None:
        self._settings = settings
        self._activation = activation
        self._normalization = normalization
        self._dtype = keras.DTypePolicy(precision)
        self._seed = seed
        self._cpu_gradients = cpu_gradients

    def initializer(self) -> Any:
        self._seed += 1
        return _INITIALIZERS[self._settings.initializer](self._seed)

    def _finished(self, layer: layers.Layer) -> layers.Layer:
        return SpectralScaling(layer) if self._normalization == "spectral" else layer

    def dense(self, units: int, name: str) -> layers.Layer:
        return self._finished(
            layers.Dense(units, kernel_initializer=self.initializer(), name=name, dtype=self._dtype)
        )

    def tied(self, kernel: keras.Variable, name: str) -> layers.Layer:
        return TransposedDense(kernel, dtype=self._dtype, name=name)

    def convolution(self, channels: int, size: int, stride: int, name: str) -> layers.Layer:
        layer_class = CpuConv2D if self._cpu_gradients else layers.Conv2D
        return self._finished(
            layer_class(
                channels,
                size,
                stride,
                "same",
                kernel_initializer=self.initializer(),
                name=name,
                dtype=self._dtype,
            )
        )

    def upsampling(self, channels: int, size: int, name: str) -> layers.Layer:
        layer_class = CpuConv2DTranspose if self._cpu_gradients else layers.Conv2DTranspose
        return layer_class(
            channels,
            size,
            2,
            "same",
            kernel_initializer=self.initializer(),
            name=name,
            dtype=self._dtype,
        )

    def activate(self, x: Any, *, normalize: bool = True) -> Any:
        """Normalizes as the settings say, then applies the activation."""
        if normalize and self._normalization == "batch":
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=self._dtype)(x)
        if self._activation == "leaky_relu":
            return layers.LeakyReLU(_LEAKY_SLOPE, dtype=self._dtype)(x)
        return layers.Activation(self._activation, dtype=self._dtype)(x)

    def dropout(self, x: Any) -> Any:
        if not self._settings.dropout:
            return x
        self._seed += 1
        return layers.Dropout(self._settings.dropout, seed=self._seed, dtype=self._dtype)(x)


def _one_hot(label: Any) -> Any:
    return keras.ops.one_hot(label, CLASSES)


def add_log_intensity_channels(images: tf.Tensor) -> tf.Tensor:
    """Appends the logarithms of each pixel's distances from black and from white as channels.

    The unit of both distances is 4 gray levels. Among the darkest and the brightest levels, which
    nearly all of MNIST's pixels have, a few levels then differ as much as a hundred in the middle.
    The distance from white is taken from 256: at 255 its gradient would vanish, and a generator
    could not leave that level.

    Args:
      images: float32 [n, 28, 28, 1] in [-1, 1].

    Returns:
      float32 [n, 28, 28, 3] in [-1, 1], the image itself first.
    """
    level = (images + 1.0) * 127.5
    channels = [
        2.0 * tf.math.log1p(tf.nn.relu(distance) / 4.0) / np.log1p(256 / 4) - 1.0
        for distance in (level, 256.0 - level)
    ]
    return tf.concat([images, *channels], axis=-1)


def _fold(image: Any) -> Any:
    """Moves blocks of 2x2 pixels into channels, [n, 28, 28, c] to [n, 14, 14, 4 c].

    A 2x2 convolution of the result equals a 4x4 convolution with stride 2, and is faster on CPUs.
    """
    channels = image.shape[-1]
    x = keras.ops.reshape(image, (-1, 14, 2, 14, 2, channels))
    return keras.ops.reshape(keras.ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 14, 14, 4 * channels))


def build_generator(
    settings: TrainSettings, precision: str = "float32", *, cpu_gradients: bool = False
) -> keras.Model:
    """Builds the generator.

    Args:
      settings: the recipe.
      precision: a Keras dtype policy, such as "mixed_bfloat16"; variables are always float32.
      cpu_gradients: whether gradients are computed as in `cpu_convolutions.py`; same values.

    Returns:
      A model to call through `apply`: latent float32 [n, latent_dim] and label int32 [n], 0..9, to
      images float32 [n, 28, 28, 1] in [-1, 1].
    """
    build = _Builder(
        settings,
        activation=settings.generator_activation,
        normalization=settings.generator_normalization,
        precision=precision,
        seed=settings.seed * 1000,
        cpu_gradients=cpu_gradients,
    )
    deep, middle, shallow = settings.generator_channels
    latent = keras.Input((settings.latent_dim,), name="latent")
    label = keras.Input((), dtype="int32", name="label")
    x: Any = latent
    if settings.conditional:
        x = layers.Concatenate()([x, _one_hot(label)])
    x = build.activate(layers.Reshape((7, 7, deep))(build.dense(7 * 7 * deep, PROJECTION)(x)))
    x = build.activate(build.upsampling(middle, 4, "up_14")(x))
    if shallow:
        # Four pixels together, as in the discriminator's first layer: the few channels at 28x28
        # would leave a CPU's vector units half empty.
        x = build.activate(build.convolution(4 * shallow, 3, 1, "up_28")(x))
    x = build.upsampling(1, 4 if shallow else 6, "to_image")(x)
    if settings.generator_output == "levels":
        image = GrayLevels()(x, latent)
    else:
        image = layers.Activation("tanh", dtype="float32")(x)
    return keras.Model([latent, label] if settings.conditional else [latent], image)


def build_discriminator(
    settings: TrainSettings, generator: keras.Model, precision: str = "float32"
) -> keras.Model:
    """Builds the discriminator.

    The label enters by projection (Miyato and Koyama 2018): the inner product of its embedding and
    the last features is added to the logit.

    Args:
      settings: the recipe.
      generator: from `build_generator`; under `tie_projection` the discriminator's last hidden
        layer has the transposed kernel of its first linear layer.
      precision: a Keras dtype policy, such as "mixed_bfloat16"; variables are always float32.

    Returns:
      A model to call through `apply`: image float32 [n, 28, 28, c] in [-1, 1] and label int32 [n],
      0..9, to logits float32 [n], c being 3 under `log_intensity_channels` and 1 without. Under
      `auxiliary_loss_weight` the output is a list of the logits and of class logits float32
      [n, 10].
    """
    build = _Builder(
        settings,
        activation=settings.discriminator_activation,
        normalization=settings.discriminator_normalization,
        precision=precision,
        seed=settings.seed * 1000 + 500,
    )
    shallow, middle, deep = settings.discriminator_channels
    image = keras.Input(
        (*IMAGE_SHAPE[:2], 3 if settings.log_intensity_channels else 1), name="image"
    )
    label = keras.Input((), dtype="int32", name="label")
    # The first layer has no normalization, which would hide the image's brightness (DCGAN, 2016).
    x = build.activate(build.convolution(shallow, 2, 1, "down_14")(_fold(image)), normalize=False)
    x = build.dropout(x)
    x = build.dropout(build.activate(build.convolution(middle, 3, 2, "down_7")(x)))
    if settings.tie_projection:
        deep, stride = settings.generator_channels[0], 1
        head: layers.Layer = build.tied(generator.get_layer(PROJECTION).kernel, "tied")
    else:
        stride, head = 2, build.dense(FEATURES, "features")
    x = build.dropout(build.activate(build.convolution(deep, 3, stride, "down_4")(x)))
    features = build.activate(head(layers.Flatten()(x)), normalize=False)
    logit = build.dense(1, "logit")(features)
    if settings.conditional:
        embedding = build.dense(features.shape[-1], "label_embedding")(_one_hot(label))
        logit = layers.Add()([logit, layers.Dot(axes=1)([features, embedding])])
    outputs = layers.Reshape((), dtype="float32")(logit)
    if settings.conditional and settings.auxiliary_loss_weight:
        class_logits = build.dense(CLASSES, "predicted_label")(features)
        outputs = [outputs, layers.Activation("linear", dtype="float32")(class_logits)]
    return keras.Model([image, label] if settings.conditional else [image], outputs)


def apply(network: keras.Model, x: tf.Tensor, label: tf.Tensor, *, training: bool) -> tf.Tensor:
    """Calls a network with latents or images and, if it is conditional, with labels int32 [n]."""
    return network([x, label][: len(network.inputs)], training=training)


def scale_pixels(pixels: tf.Tensor) -> tf.Tensor:
    """Maps uint8 pixels 0..255 to float32 in [-1, 1]."""
    return tf.cast(pixels, tf.float32) / 127.5 - 1.0


def to_pixels(images: tf.Tensor) -> tf.Tensor:
    """Maps images in [-1, 1] to the nearest uint8 pixels 0..255."""
    return tf.cast(tf.round((tf.clip_by_value(images, -1.0, 1.0) + 1.0) * 127.5), tf.uint8)
