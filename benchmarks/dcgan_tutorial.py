"""TensorFlow's DCGAN tutorial: its networks, its losses, its loop, each as published.

https://www.tensorflow.org/tutorials/generative/dcgan

What it shows between epochs, images and checkpoints, is left out, and no time is counted for it.
"""

import time
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from keras import layers

BUFFER, BATCH, NOISE = 60_000, 256, 100
_LOOK_SECONDS = 0.5


def build_generator() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((NOISE,)),
            layers.Dense(7 * 7 * 256, use_bias=False),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.Reshape((7, 7, 256)),
            layers.Conv2DTranspose(128, 5, 1, "same", use_bias=False),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.Conv2DTranspose(64, 5, 2, "same", use_bias=False),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.Conv2DTranspose(1, 5, 2, "same", use_bias=False, activation="tanh"),
        ]
    )


def build_discriminator() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(64, 5, 2, "same"),
            layers.LeakyReLU(),
            layers.Dropout(0.3),
            layers.Conv2D(128, 5, 2, "same"),
            layers.LeakyReLU(),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )


class DcganTutorial:
    """A training of the tutorial's networks."""

    def __init__(self, images: np.ndarray, seed: int) -> None:
        """Takes images uint8 [n, 28, 28, 1]."""
        keras.utils.set_random_seed(seed)
        scaled = (images.astype(np.float32) - 127.5) / 127.5
        dataset = tf.data.Dataset.from_tensor_slices(scaled)
        self._dataset = dataset.shuffle(BUFFER).batch(BATCH)
        self.generator = build_generator()
        self.discriminator = build_discriminator()
        self._cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)
        self._generator_optimizer = keras.optimizers.Adam(1e-4)
        self._discriminator_optimizer = keras.optimizers.Adam(1e-4)

    def fit(self, seconds: float) -> Iterator[tuple[float, int]]:
        """Trains; yields (seconds, real images seen) twice a second; the clock stands meanwhile."""
        spent, seen, since = 0.0, 0, time.monotonic()
        while spent < seconds:
            for batch in self._dataset:
                self._train_step(batch)
                seen += len(batch)
                if time.monotonic() - since < _LOOK_SECONDS and spent + _LOOK_SECONDS < seconds:
                    continue
                self.generator.trainable_variables[-1].numpy()  # A GPU may be some steps behind.
                spent += time.monotonic() - since
                yield spent, seen
                since = time.monotonic()
                if spent >= seconds:
                    return

    def sample(self, count: int) -> np.ndarray:
        """Draws uint8 [count, 28, 28, 1], the same latents on every call; batches of 500."""
        drawn = []
        for start in range(0, count, 500):
            noise = tf.random.stateless_normal([min(500, count - start), NOISE], [1, start])
            images = self.generator(noise, training=False).numpy() * 127.5 + 127.5
            drawn.append(np.clip(np.round(images), 0, 255).astype(np.uint8))
        return np.concatenate(drawn)

    @tf.function
    def _train_step(self, images: tf.Tensor) -> None:
        noise = tf.random.normal([BATCH, NOISE])
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            generated = self.generator(noise, training=True)
            real_output = self.discriminator(images, training=True)
            fake_output = self.discriminator(generated, training=True)
            generator_loss = self._cross_entropy(tf.ones_like(fake_output), fake_output)
            discriminator_loss = self._cross_entropy(
                tf.ones_like(real_output), real_output
            ) + self._cross_entropy(tf.zeros_like(fake_output), fake_output)
        for tape, loss, network, optimizer in (
            (generator_tape, generator_loss, self.generator, self._generator_optimizer),
            (
                discriminator_tape,
                discriminator_loss,
                self.discriminator,
                self._discriminator_optimizer,
            ),
        ):
            variables = network.trainable_variables
            gradients = tape.gradient(loss, variables)
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
