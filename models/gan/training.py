"""The training loop: many updates per host call, on data that stays on the device."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from models.gan.losses import LOSSES, r1_penalty
from models.gan.networks import (
    CLASSES,
    apply,
    build_discriminator,
    build_generator,
    scale_pixels,
    to_pixels,
)
from models.gan.settings import TrainSettings

# What a random draw of one update is for; each has its own stream of the stateless generator.
_BATCH, _LATENT, _NOISE_REAL, _NOISE_FAKE = range(4)
_CALL_SECONDS = 2.0
_SCALARS = ("discriminator_loss", "generator_loss", "real_logit", "fake_logit")


class NonFiniteLossError(RuntimeError):
    """Training diverged: a loss is NaN or infinite."""


@dataclass(frozen=True)
class Progress:
    """Where the training stands.

    Attributes:
      step: updates done so far.
      seconds: since the first update, graph building included.
      fraction: of the budget used, 0..1.
      steps_per_second: over the last interval.
      scalars: means over the last host call: both losses and the mean logits.
    """

    step: int
    seconds: float
    fraction: float
    steps_per_second: float
    scalars: dict[str, float]


def draw_latent(settings: TrainSettings, count: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws latents float32 [count, latent_dim] from the distribution in the settings."""
    shape = [count, settings.latent_dim]
    if settings.latent == "uniform":
        return tf.random.stateless_uniform(shape, seed, -1.0, 1.0)
    return tf.random.stateless_normal(shape, seed)


class GanTrainer:
    """Both networks with their optimisers and the generator's moving average.

    Every random draw follows from `settings.seed` and the step, so the position in the data and
    in the random streams is the step alone.
    """

    def __init__(self, settings: TrainSettings, images: np.ndarray, labels: np.ndarray) -> None:
        """Puts the data on the device and builds the networks.

        Args:
          settings: the recipe.
          images: uint8 [n, 28, 28, 1].
          labels: int [n], 0..9.
        """
        self.settings = settings
        self._images = tf.constant(images)
        self._labels = tf.constant(labels, tf.int32)
        self.generator = build_generator(settings)
        self.discriminator = build_discriminator(settings)
        self.average = build_generator(settings)
        self.average.set_weights(self.generator.get_weights())
        self._generator_optimiser = _optimiser(settings, settings.generator_learning_rate)
        self._generator_optimiser.build(self.generator.trainable_variables)
        self._discriminator_optimiser = _optimiser(settings, settings.discriminator_learning_rate)
        self._discriminator_optimiser.build(self.discriminator.trainable_variables)
        self.step = tf.Variable(0, dtype=tf.int32, trainable=False, name="step")
        self._loss = LOSSES[settings.loss]

    def fit(self) -> Iterator[Progress]:
        """Trains until the budget is used up, yielding after every interval and at the end.

        Raises:
          NonFiniteLossError: when a loss is no longer finite.
        """
        settings, started = self.settings, time.monotonic()
        now, last_step, last_report = started, int(self.step), started
        fraction = self._fraction(0.0)
        steps = 1 if settings.max_seconds else settings.steps_per_call
        while fraction < 1.0:
            called_at = now
            scalars = self._run(steps, fraction)
            now = time.monotonic()
            fraction = self._fraction(now - started)
            steps = self._next_steps(steps, now - called_at)
            if fraction >= 1.0 or now - last_report >= settings.report_seconds:
                step = int(self.step)
                rate = (step - last_step) / (now - last_report)
                last_step, last_report = step, now
                yield Progress(step, now - started, fraction, rate, scalars)

    def refresh_average(self, batches: int = 20, batch_size: int = 250) -> None:
        """Recomputes the averaged generator's batch statistics over its own activations.

        The moving statistics belong to the weights as they were while training, not to their
        average (Izmailov et al. 2018, section 3.2).
        """
        norms = [x for x in self.average.layers if isinstance(x, keras.layers.BatchNormalization)]
        momenta = [norm.momentum for norm in norms]
        for batch in range(batches if norms else 0):
            for norm in norms:
                norm.momentum = batch / (batch + 1)
            seed = tf.constant([self.settings.seed, batch])
            digits = tf.range(batch_size) % CLASSES
            apply(
                self.average,
                draw_latent(self.settings, batch_size, seed),
                digits,
                training=True,
            )
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def sample(self, rows: int) -> np.ndarray:
        """Draws `rows` rows of the digits 0..9 from the average, uint8 [10 * rows, 28, 28, 1].

        The latents are the same on every call.
        """
        latent = draw_latent(self.settings, rows * CLASSES, tf.constant([self.settings.seed, -1]))
        digits = tf.range(rows * CLASSES) % CLASSES
        return to_pixels(apply(self.average, latent, digits, training=False)).numpy()

    def _fraction(self, seconds: float) -> float:
        by_time = seconds / self.settings.max_seconds if self.settings.max_seconds else 0.0
        by_step = int(self.step) / self.settings.max_steps if self.settings.max_steps else 0.0
        return min(max(by_time, by_step), 1.0)

    def _next_steps(self, steps: int, seconds: float) -> int:
        """Updates for the next call: `steps_per_call`, or what fits into `_CALL_SECONDS`.

        Short calls keep a busy or slow machine from overrunning the budget; the count does not
        change what is computed, but for where in a call the learning rate is set.
        """
        if self.settings.max_seconds is None:
            return self.settings.steps_per_call
        fitting = int(steps * _CALL_SECONDS / max(seconds, 1e-6))
        return min(max(fitting, 1), 4 * steps, self.settings.steps_per_call)

    def _run(self, steps: int, fraction: float) -> dict[str, float]:
        if self.settings.max_steps:
            steps = min(steps, self.settings.max_steps - int(self.step))
        means = self._steps(tf.constant(steps), tf.constant(fraction, tf.float32)).numpy()
        scalars = dict(zip(_SCALARS, means.tolist(), strict=True))
        if not np.isfinite(means).all():
            found = ", ".join(f"{name} {value:g}" for name, value in scalars.items())
            raise NonFiniteLossError(
                f"training diverged before step {int(self.step)}: {found}. Lower "
                "train.generator_learning_rate and train.discriminator_learning_rate, raise "
                "train.r1_weight, or choose another train.loss."
            )
        return scalars

    @tf.function
    def _steps(self, steps: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
        """Runs `steps` updates; returns the means of `_SCALARS`, float32 [4]."""
        share = self.settings.final_learning_rate
        decay = 1.0 - (1.0 - share) * tf.clip_by_value(2.0 * fraction - 1.0, 0.0, 1.0)
        self._generator_optimiser.learning_rate.assign(
            self.settings.generator_learning_rate * decay
        )
        self._discriminator_optimiser.learning_rate.assign(
            self.settings.discriminator_learning_rate * decay
        )
        noise = self.settings.instance_noise * (1.0 - fraction)
        total = tf.zeros([len(_SCALARS)])
        for _ in tf.range(steps):
            total += self._update(noise)
        return total / tf.cast(steps, tf.float32)

    def _seed(self, purpose: int) -> tf.Tensor:
        return tf.stack([self.settings.seed, self.step * 8 + purpose])

    def _real_batch(self) -> tuple[tf.Tensor, tf.Tensor]:
        size = self.settings.batch_size
        rows = tf.random.stateless_uniform(
            [size], self._seed(_BATCH), 0, self._images.shape[0], tf.int32
        )
        return scale_pixels(tf.gather(self._images, rows)), tf.gather(self._labels, rows)

    def _noisy(self, images: tf.Tensor, deviation: tf.Tensor, purpose: int) -> tf.Tensor:
        if not self.settings.instance_noise:
            return images
        shape = tf.shape(images)
        return images + deviation * tf.random.stateless_normal(shape, self._seed(purpose))

    def _update(self, noise: tf.Tensor) -> tf.Tensor:
        """One simultaneous update of both networks, on one real and one generated batch."""
        real, digits = self._real_batch()
        real = self._noisy(real, noise, _NOISE_REAL)
        latent = draw_latent(self.settings, self.settings.batch_size, self._seed(_LATENT))
        with tf.GradientTape(persistent=True) as tape:
            fake = self._noisy(
                apply(self.generator, latent, digits, training=True), noise, _NOISE_FAKE
            )
            real_logits = apply(self.discriminator, real, digits, training=True)
            fake_logits = apply(self.discriminator, fake, digits, training=True)
            discriminator_loss = self._loss.discriminator(
                real_logits, fake_logits, 1.0 - self.settings.label_smoothing
            )
            generator_loss = self._loss.generator(fake_logits)
        discriminator_gradients = tape.gradient(
            discriminator_loss, self.discriminator.trainable_variables
        )
        generator_gradients = tape.gradient(generator_loss, self.generator.trainable_variables)
        self._discriminator_optimiser.apply(
            self._with_penalty(discriminator_gradients, real, digits)
        )
        self._generator_optimiser.apply(generator_gradients)
        self.step.assign_add(1)
        self._update_average()
        return tf.stack(
            [
                discriminator_loss,
                generator_loss,
                tf.reduce_mean(real_logits),
                tf.reduce_mean(fake_logits),
            ]
        )

    def _with_penalty(
        self, gradients: list[tf.Tensor], real: tf.Tensor, digits: tf.Tensor
    ) -> list[tf.Tensor]:
        """Adds R1's gradients on every `r1_interval`-th update, that many times as strong.

        The lazy regularisation of Karras et al. 2020 (StyleGAN2), appendix B.
        """
        settings = self.settings
        if not settings.r1_weight:
            return gradients
        variables = self.discriminator.trainable_variables

        def penalised() -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                penalty = r1_penalty(
                    lambda images: apply(self.discriminator, images, digits, training=True), real
                )
            scale = settings.r1_weight * settings.r1_interval
            # A bias that the gradient at the input does not depend on has none.
            extra = tape.gradient(penalty, variables)
            return [
                tf.identity(g) if e is None else g + scale * e
                for g, e in zip(gradients, extra, strict=True)
            ]

        due = tf.equal(self.step % settings.r1_interval, 0)
        return tf.cond(due, penalised, lambda: [tf.identity(g) for g in gradients])

    def _update_average(self) -> None:
        step = tf.cast(self.step, tf.float32)
        decay = tf.minimum(self.settings.ema_decay, (1.0 + step) / (10.0 + step))
        for average, current in zip(
            self.average.trainable_variables, self.generator.trainable_variables, strict=True
        ):
            average.assign(average + (1.0 - decay) * (current - average))


def _optimiser(settings: TrainSettings, rate: float) -> keras.optimizers.Optimizer:
    makers: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
        "sgd": lambda: keras.optimizers.SGD(rate),
        "momentum": lambda: keras.optimizers.SGD(rate, momentum=settings.beta_1),
        "adam": lambda: keras.optimizers.Adam(rate, settings.beta_1, settings.beta_2),
        "rmsprop": lambda: keras.optimizers.RMSprop(rate, rho=settings.beta_2),
    }
    return makers[settings.optimiser]()
