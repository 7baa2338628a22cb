"""The two networks, built from the settings."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from models.gan.settings import TrainSettings

IMAGE_SHAPE = (28, 28, 1)
CLASSES = 10

_INITIALISERS: dict[str, Callable[[int], Any]] = {
    "keras": keras.initializers.GlorotUniform,
    "normal": lambda seed: keras.initializers.RandomNormal(0.0, 0.02, seed),
    "he": keras.initializers.HeNormal,
}


class _Builder:
    """Makes the layers of one network; every random choice follows from the seed."""

    def __init__(
        self, settings: TrainSettings, *, activation: str, normalisation: str, seed: int
    ) -> None:
        self._settings = settings
        self._activation = activation
        self._normalisation = normalisation
        self._seed = seed

    def initialiser(self) -> Any:
        self._seed += 1
        return _INITIALISERS[self._settings.initialisation](self._seed)

    def dense(self, units: int, name: str) -> layers.Layer:
        return layers.Dense(units, kernel_initializer=self.initialiser(), name=name)

    def convolution(self, channels: int, size: int, stride: int, name: str) -> layers.Layer:
        return layers.Conv2D(
            channels, size, stride, "same", kernel_initializer=self.initialiser(), name=name
        )

    def upsampling(self, channels: int, name: str) -> layers.Layer:
        return layers.Conv2DTranspose(
            channels, 4, 2, "same", kernel_initializer=self.initialiser(), name=name
        )

    def activate(self, x: Any, *, normalise: bool = True) -> Any:
        """Normalises as the settings say, then applies the activation."""
        if normalise and self._normalisation == "batch":
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        if self._activation == "leaky_relu":
            return layers.LeakyReLU(negative_slope=self._settings.leaky_slope)(x)
        return layers.Activation(self._activation)(x)

    def dropout(self, x: Any) -> Any:
        self._seed += 1
        return layers.Dropout(self._settings.dropout, seed=self._seed)(x)


def _one_hot(digit: Any) -> Any:
    return keras.ops.one_hot(digit, CLASSES)


def build_generator(settings: TrainSettings) -> keras.Model:
    """Builds the generator.

    Returns:
      A model to call through `apply`: latent float32 [n, latent_dim] and digit int32 [n] to
      images float32 [n, 28, 28, 1] in [-1, 1].
    """
    build = _Builder(
        settings,
        activation=settings.generator_activation,
        normalisation=settings.generator_normalisation,
        seed=settings.seed * 1000,
    )
    deep, middle, shallow = settings.generator_channels
    latent = keras.Input((settings.latent_dim,), name="latent")
    digit = keras.Input((), dtype="int32", name="digit")
    x: Any = latent
    if settings.conditional:
        x = layers.Concatenate()([x, _one_hot(digit)])
    x = build.activate(layers.Reshape((7, 7, deep))(build.dense(7 * 7 * deep, "project")(x)))
    x = build.activate(build.upsampling(middle, "up_14")(x))
    x = build.activate(build.upsampling(shallow, "up_28")(x))
    image = layers.Activation("tanh", dtype="float32")(build.convolution(1, 3, 1, "to_image")(x))
    return keras.Model([latent, digit] if settings.conditional else [latent], image)


def build_discriminator(settings: TrainSettings) -> keras.Model:
    """Builds the discriminator.

    The digit enters by projection (Miyato and Koyama 2018): its embedding's inner product with
    the last features is added to the logit.

    Returns:
      A model to call through `apply`: image float32 [n, 28, 28, 1] in [-1, 1] and digit int32 [n]
      to logits float32 [n].
    """
    build = _Builder(
        settings,
        activation=settings.discriminator_activation,
        normalisation=settings.discriminator_normalisation,
        seed=settings.seed * 1000 + 500,
    )
    shallow, middle, deep = settings.discriminator_channels
    image = keras.Input(IMAGE_SHAPE, name="image")
    digit = keras.Input((), dtype="int32", name="digit")
    # The first layer is not normalised: that would hide the pictures' brightness (DCGAN, 2016).
    x = build.activate(build.convolution(shallow, 4, 2, "down_14")(image), normalise=False)
    x = build.dropout(x)
    x = build.dropout(build.activate(build.convolution(middle, 4, 2, "down_7")(x)))
    x = build.dropout(build.activate(build.convolution(deep, 3, 2, "down_4")(x)))
    features = build.activate(build.dense(128, "features")(layers.Flatten()(x)), normalise=False)
    logit = build.dense(1, "logit")(features)
    if settings.conditional:
        embedding = build.dense(128, "embed_digit")(_one_hot(digit))
        logit = layers.Add()([logit, layers.Dot(axes=1)([features, embedding])])
    logit = layers.Reshape((), dtype="float32")(logit)
    return keras.Model([image, digit] if settings.conditional else [image], logit)


def apply(network: keras.Model, x: tf.Tensor, digit: tf.Tensor, *, training: bool) -> tf.Tensor:
    """Calls a network, which ignores the digit when it is not conditional."""
    return network([x, digit][: len(network.inputs)], training=training)


def scale_pixels(pixels: tf.Tensor) -> tf.Tensor:
    """Maps uint8 pixels 0..255 to float32 in [-1, 1]."""
    return tf.cast(pixels, tf.float32) / 127.5 - 1.0


def to_pixels(images: tf.Tensor) -> tf.Tensor:
    """Maps images in [-1, 1] to the nearest uint8 pixels 0..255."""
    return tf.cast(tf.round((tf.clip_by_value(images, -1.0, 1.0) + 1.0) * 127.5), tf.uint8)
