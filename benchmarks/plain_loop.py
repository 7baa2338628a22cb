"""Our networks in the loops that most people would write: a `train_step`, `fit`, and `tf.data`.

Network, losses, R1 at its interval and the moving average are those of the settings, so that the
loop is all that differs. What the default preset does not use is not here; see `refuse`.
`PlainGan` updates both networks from one generated batch, as ours does. `AlternatingGan` generates
one for each, as Keras' own examples do (https://keras.io/examples/generative/dcgan_overriding_train_step).
"""

import keras
import numpy as np
import tensorflow as tf

from models.gan.augment import augment
from models.gan.devices import choose_precision, choose_xla
from models.gan.losses import LOSSES
from models.gan.networks import (
    add_log_intensity_channels,
    apply,
    build_discriminator,
    build_generator,
    scale_pixels,
)
from models.gan.penalties import zero_centered_gradient_penalty
from models.gan.settings import TrainSettings

_LEFT_OUT = {
    "optimizer": "adam",
    "latent": "normal",
    "discriminator_steps": 1,
    "instance_noise": 0.0,
    "label_smoothing": 0.0,
    "r2_weight": 0.0,
    "gradient_penalty_weight": 0.0,
}


def refuse(settings: TrainSettings) -> None:
    """Raises ValueError for settings that this loop does not follow."""
    for name, value in _LEFT_OUT.items():
        if getattr(settings, name) != value:
            raise ValueError(f"the plain loop has only train.{name}={value}")


class PlainGan(keras.Model):
    """What `fit` trains."""

    def __init__(self, settings: TrainSettings) -> None:
        super().__init__()
        refuse(settings)
        precision = choose_precision(settings.precision)
        self.settings = settings
        self.generator = build_generator(settings, precision)
        self.discriminator = build_discriminator(settings, self.generator, precision)
        self.average = build_generator(settings)
        self.average.set_weights(self.generator.get_weights())
        self.pair = LOSSES[settings.loss]
        betas = settings.beta_1, settings.beta_2
        self.generator_optimizer = keras.optimizers.Adam(settings.generator_learning_rate, *betas)
        self.discriminator_optimizer = keras.optimizers.Adam(
            settings.discriminator_learning_rate, *betas
        )
        self.updates = tf.Variable(0, trainable=False)
        # As ours is compiled; on a machine without GPU this is also Keras' own choice.
        self.compile(jit_compile=choose_xla(settings.xla, 1))

    def train_step(self, data):
        real, digits = data
        with tf.GradientTape(persistent=True) as tape:
            fake = self._generate(digits)
            real = self._view(real)
            real_logits, real_seen = self._look(real, digits)
            fake_logits, fake_seen = self._look(fake, digits)
            discriminator_loss = self.pair.discriminator(real_logits, fake_logits, 1.0) + real_seen
            generator_loss = self.pair.generator(real_logits, fake_logits) + fake_seen
        gradients = tape.gradient(generator_loss, self.generator.trainable_variables)
        self._update_discriminator(tape, discriminator_loss, real, digits)
        self.generator_optimizer.apply(gradients, self.generator.trainable_variables)
        self._update_average()
        self.updates.assign_add(1)
        return {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss}

    def _generate(self, digits):
        latent = tf.random.normal([tf.shape(digits)[0], self.settings.latent_dim])
        return self._view(apply(self.generator, latent, digits, training=True))

    def _look(self, images, digits):
        """Logits, and the weighted cross-entropy of the digit that is seen."""
        outputs = apply(self.discriminator, images, digits, training=True)
        if not isinstance(outputs, list):
            return outputs, 0.0
        logits, seen = outputs
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(digits, seen)
        return logits, self.settings.auxiliary_loss_weight * tf.reduce_mean(losses)

    def _view(self, images):
        if names := self.settings.augmentation:
            seed = tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
            images = augment(images, names, seed)
        return (
            add_log_intensity_channels(images) if self.settings.log_intensity_channels else images
        )

    def _update_discriminator(self, tape, loss, real, digits):
        settings, variables = self.settings, self.discriminator.trainable_variables
        gradients = tape.gradient(loss, variables)

        def penalized():
            with tf.GradientTape() as outer:
                penalty = zero_centered_gradient_penalty(
                    lambda images: self._look(images, digits)[0], real
                )
                penalty *= settings.r1_weight * settings.penalty_interval
            extra = outer.gradient(penalty, variables)
            return [
                tf.identity(g) if e is None else g + e
                for g, e in zip(gradients, extra, strict=True)
            ]

        if settings.r1_weight:
            due = self.updates % settings.penalty_interval == 0
            gradients = tf.cond(due, penalized, lambda: [tf.identity(g) for g in gradients])
        self.discriminator_optimizer.apply(gradients, variables)

    def _update_average(self):
        decay = self.settings.ema_decay
        for average, current in zip(
            self.average.trainable_variables, self.generator.trainable_variables, strict=True
        ):
            average.assign(decay * average + (1.0 - decay) * current)


class AlternatingGan(PlainGan):
    """First the discriminator learns, then the generator, each from generated digits of its own."""

    def train_step(self, data):
        real, digits = data
        fake, real = self._generate(digits), self._view(real)
        with tf.GradientTape() as tape:
            real_logits, real_seen = self._look(real, digits)
            fake_logits, _ = self._look(fake, digits)
            discriminator_loss = self.pair.discriminator(real_logits, fake_logits, 1.0) + real_seen
        self._update_discriminator(tape, discriminator_loss, real, digits)
        with tf.GradientTape() as tape:
            fake_logits, fake_seen = self._look(self._generate(digits), digits)
            generator_loss = self.pair.generator(real_logits, fake_logits) + fake_seen
        gradients = tape.gradient(generator_loss, self.generator.trainable_variables)
        self.generator_optimizer.apply(gradients, self.generator.trainable_variables)
        self._update_average()
        self.updates.assign_add(1)
        return {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss}


def plain_dataset(settings: TrainSettings, images: np.ndarray, labels: np.ndarray):
    """Batches without end of images uint8 [n, 28, 28, 1] and labels int [n]."""
    return (
        tf.data.Dataset.from_tensor_slices((images, labels.astype(np.int32)))
        .shuffle(len(images))
        .repeat()
        .batch(settings.batch_size)
        .map(lambda pixels, digits: (scale_pixels(pixels), digits))
        .prefetch(tf.data.AUTOTUNE)
    )
