"""One update of both networks, on one replica, as graph operations."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from models.gan.augment import augment
from models.gan.devices import trains_on_cpu
from models.gan.fused_adam import FusedAdam
from models.gan.losses import LOSSES
from models.gan.networks import (
    IMAGE_SHAPE,
    add_log_intensity_channels,
    apply,
    build_discriminator,
    build_generator,
    scale_pixels,
)
from models.gan.penalties import interpolated_penalty, zero_centred_penalty
from models.gan.settings import TrainSettings

SCALARS = ("discriminator_loss", "generator_loss", "real_logit", "fake_logit")

# What a random draw of one update is for; each has its own stream of the stateless generator.
_BATCH, _LATENT, _VIEW_REAL, _VIEW_FAKE, _NOISE_REAL, _NOISE_FAKE, _MIXTURE = range(7)
_STREAMS = 8


def draw_latent(settings: TrainSettings, count: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws latents float32 [count, latent_dim] from the distribution in the settings."""
    shape = [count, settings.latent_dim]
    if settings.latent == "uniform":
        return tf.random.stateless_uniform(shape, seed, -1.0, 1.0)
    return tf.random.stateless_normal(shape, seed)


class _Draws:
    """The random draws of one batch; all follow from the seed and the batch's number.

    Rows and latents are drawn for the batch of all replicas, of which each takes its part, so
    that their number does not change what is computed; noise is each replica's own.
    """

    def __init__(self, seed: int, number: tf.Tensor, local_batch: int) -> None:
        self._seed = seed
        self._number = number
        self._local_batch = local_batch
        context = tf.distribute.get_replica_context()
        self._replica = context.replica_id_in_sync_group

    def for_all(self, purpose: int) -> tf.Tensor:
        return tf.stack([tf.cast(self._seed, tf.int64), self._number * _STREAMS + purpose])

    def for_one(self, purpose: int) -> tf.Tensor:
        return tf.random.experimental.stateless_fold_in(self.for_all(purpose), self._replica)

    def part(self, of_all: tf.Tensor) -> tf.Tensor:
        shares = tf.reshape(of_all, [-1, self._local_batch, *of_all.shape[1:]])
        return shares[self._replica]


class _Batch(NamedTuple):
    draws: _Draws
    real: tf.Tensor
    digits: tf.Tensor
    latent: tf.Tensor


class _Judged(NamedTuple):
    """What the discriminator makes of real and of generated digits.

    Attributes:
      loss: its own.
      real: its logits of the real digits, float32 [n].
      fake: of the generated ones.
      fake_seen: weighted cross-entropy of the digits that it sees in the generated ones.
    """

    loss: tf.Tensor
    real: tf.Tensor
    fake: tf.Tensor
    fake_seen: tf.Tensor


class GanUpdate:
    """Both networks, their optimizers and the generator's average, and how they are updated.

    Every random draw follows from `settings.seed` and the step, so the position in the data and
    in the random streams is the step alone.
    """

    def __init__(
        self,
        settings: TrainSettings,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        precision: str,
        replicas: int,
    ) -> None:
        """Builds the networks; to be called within the strategy's scope.

        Args:
          settings: the recipe.
          images: uint8 [n, 28, 28, 1].
          labels: int [n], 0..9.
          precision: a Keras dtype policy.
          replicas: how many share `settings.batch_size`, which is a multiple of it.
        """
        self.settings = settings
        # As int64, since workers cannot hand each other uint8; 8 divides 28 * 28.
        packed = np.ascontiguousarray(images, np.uint8).reshape(len(images), -1).view(np.int64)
        self._images = tf.Variable(packed, trainable=False)
        # Not int32, which TensorFlow keeps on the host.
        self._labels = tf.Variable(np.asarray(labels, np.int64), trainable=False)
        self._replicas = replicas
        self._local_batch = settings.batch_size // replicas
        self._loss = LOSSES[settings.loss]
        self.generator = build_generator(settings, precision, cpu_gradients=trains_on_cpu())
        self.discriminator = build_discriminator(settings, self.generator, precision)
        self.average = [
            tf.Variable(variable.numpy(), trainable=False)
            for variable in self.generator.trainable_variables
        ]
        half = precision == "mixed_float16"
        self.generator_optimizer = _optimizer(settings, settings.generator_learning_rate, half)
        self.generator_optimizer.build(self.generator.trainable_variables)
        rate = settings.discriminator_learning_rate
        self.discriminator_optimizer = _optimizer(settings, rate, half)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        # Updates since the weights were drawn: more than the step where another training began.
        self.age = tf.Variable(0, dtype=tf.int64, trainable=False, name="age")

    def set_rates(self, share: tf.Tensor) -> None:
        """Sets both learning rates to this share of those in the settings."""
        for optimizer, rate in (
            (self.generator_optimizer, self.settings.generator_learning_rate),
            (self.discriminator_optimizer, self.settings.discriminator_learning_rate),
        ):
            inner = getattr(optimizer, "inner_optimizer", optimizer)
            inner.learning_rate.assign(rate * share)

    def __call__(self, deviation: tf.Tensor) -> tf.Tensor:
        """Updates the generator once and the discriminator `discriminator_steps` times.

        The last of these and the generator's are simultaneous, on the same generated digits. The
        step and the age are the caller's to count.

        Args:
          deviation: standard deviation of the instance noise, a scalar.

        Returns:
          Means of `SCALARS` over this replica's last batch, float32 [4].
        """
        rounds = self.settings.discriminator_steps
        for extra in range(rounds - 1):
            batch = self._batch(self.step * rounds + extra, deviation)
            fake = self._generate(batch, deviation)
            with tf.GradientTape() as tape:
                loss = self._judge(batch, fake).loss / self._replicas
                scaled = self.discriminator_optimizer.scale_loss(loss)
            self._apply_to_discriminator(tape, scaled, batch, fake)
        batch = self._batch(self.step * rounds + rounds - 1, deviation)
        with tf.GradientTape() as generating:
            fake = self._generate(batch, deviation)
        # A tape of its own: weights that both networks share learn in each from its own loss.
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(fake)
            judged = self._judge(batch, fake)
            generator_loss = self._loss.generator(judged.real, judged.fake)
            generator_loss += judged.fake_seen
            loss = judged.loss
            scaled = self.discriminator_optimizer.scale_loss(loss / self._replicas)
            generator_scaled = self.generator_optimizer.scale_loss(generator_loss / self._replicas)
        gradients = generating.gradient(
            fake, self.generator.trainable_variables, tape.gradient(generator_scaled, fake)
        )
        self._apply_to_discriminator(tape, scaled, batch, fake)
        self.generator_optimizer.apply(gradients, self.generator.trainable_variables)
        self._update_average()
        means = [tf.reduce_mean(judged.real), tf.reduce_mean(judged.fake)]
        return tf.stack([loss, generator_loss, *means])

    def _batch(self, number: tf.Tensor, deviation: tf.Tensor) -> _Batch:
        settings = self.settings
        draws = _Draws(settings.seed, number, self._local_batch)
        size, count = settings.batch_size, self._images.shape[0]
        rows = tf.random.stateless_uniform([size], draws.for_all(_BATCH), 0, count, tf.int32)
        rows = draws.part(rows)
        pixels = tf.bitcast(tf.gather(self._images, rows), tf.uint8)
        real = scale_pixels(tf.reshape(pixels, [self._local_batch, *IMAGE_SHAPE]))
        return _Batch(
            draws,
            self._view(real, draws, deviation, _VIEW_REAL, _NOISE_REAL),
            tf.cast(tf.gather(self._labels, rows), tf.int32),
            draws.part(draw_latent(settings, size, draws.for_all(_LATENT))),
        )

    def _generate(self, batch: _Batch, deviation: tf.Tensor) -> tf.Tensor:
        images = apply(self.generator, batch.latent, batch.digits, training=True)
        return self._view(images, batch.draws, deviation, _VIEW_FAKE, _NOISE_FAKE)

    def _view(
        self, images: tf.Tensor, draws: _Draws, deviation: tf.Tensor, augmenting: int, noising: int
    ) -> tf.Tensor:
        """What the discriminator is shown of images: augmented, with noise, greys drawn apart.

        The gradient penalties hold for what it is shown. R1 of the pictures themselves would forbid
        it to judge by the few levels that drawing the greys apart lets it see.
        """
        if self.settings.augmentation:
            images = augment(images, self.settings.augmentation, draws.for_one(augmenting))
        if self.settings.instance_noise:
            noise = tf.random.stateless_normal(tf.shape(images), draws.for_one(noising))
            images += deviation * noise
        return (
            add_log_intensity_channels(images) if self.settings.log_intensity_channels else images
        )

    def _judge(self, batch: _Batch, fake: tf.Tensor) -> _Judged:
        real_logits, *real_seen = self._look(batch.real, batch.digits)
        fake_logits, *fake_seen = self._look(fake, batch.digits)
        target = 1.0 - self.settings.label_smoothing
        loss = self._loss.discriminator(real_logits, fake_logits, target)
        loss += self._seeing_loss(real_seen, batch.digits)
        if self.settings.gradient_penalty_weight:
            share = tf.random.stateless_uniform(
                [self._local_batch, 1, 1, 1], batch.draws.for_one(_MIXTURE)
            )
            penalty = interpolated_penalty(
                self._discriminate(batch), batch.real, tf.stop_gradient(fake), share
            )
            loss += self.settings.gradient_penalty_weight * penalty
        return _Judged(loss, real_logits, fake_logits, self._seeing_loss(fake_seen, batch.digits))

    def _look(self, images: tf.Tensor, digits: tf.Tensor) -> list[tf.Tensor]:
        outputs = apply(self.discriminator, images, digits, training=True)
        return outputs if isinstance(outputs, list) else [outputs]

    def _seeing_loss(self, seen: list[tf.Tensor], digits: tf.Tensor) -> tf.Tensor:
        """Weighted cross-entropy of the digits that the discriminator sees, if it does."""
        if not seen:
            return tf.constant(0.0)
        [logits] = seen
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(digits, logits)
        return self.settings.auxiliary_loss_weight * tf.reduce_mean(losses)

    def _discriminate(self, batch: _Batch) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda images: self._look(images, batch.digits)[0]

    def _apply_to_discriminator(
        self, tape: tf.GradientTape, loss: tf.Tensor, batch: _Batch, fake: tf.Tensor
    ) -> None:
        variables = self.discriminator.trainable_variables
        gradients = tape.gradient(loss, variables)
        if self.settings.r1_weight or self.settings.r2_weight:
            due = tf.equal(self.step % self.settings.penalty_interval, 0)
            gradients = tf.cond(
                due,
                lambda: self._penalised(gradients, batch, tf.stop_gradient(fake)),
                lambda: [tf.identity(gradient) for gradient in gradients],
            )
        self.discriminator_optimizer.apply(gradients, variables)

    def _penalised(
        self, gradients: list[tf.Tensor], batch: _Batch, fake: tf.Tensor
    ) -> list[tf.Tensor]:
        """Adds the gradients of R1 and R2, as much stronger as they are rarer.

        The lazy regularisation of Karras et al. 2020 (StyleGAN2), appendix B.
        """
        settings = self.settings
        with tf.GradientTape() as tape:
            penalty = tf.constant(0.0)
            if settings.r1_weight:
                real = zero_centred_penalty(self._discriminate(batch), batch.real)
                penalty += settings.r1_weight * real
            if settings.r2_weight:
                generated = zero_centred_penalty(self._discriminate(batch), fake)
                penalty += settings.r2_weight * generated
            penalty *= settings.penalty_interval / self._replicas
            scaled = self.discriminator_optimizer.scale_loss(penalty)
        extra = tape.gradient(scaled, self.discriminator.trainable_variables)
        # A bias that the gradient at the input does not depend on has none.
        return [
            tf.identity(g) if e is None else g + e for g, e in zip(gradients, extra, strict=True)
        ]

    def _update_average(self) -> None:
        age = tf.cast(self.age + 1, tf.float32)
        decay = tf.minimum(self.settings.ema_decay, (1.0 + age) / (10.0 + age))
        for average, current in zip(self.average, self.generator.trainable_variables, strict=True):
            average.assign(average + (1.0 - decay) * (current.value - average))


def _optimizer(settings: TrainSettings, rate: float, half: bool) -> keras.optimizers.Optimizer:
    makers: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
        "sgd": lambda: keras.optimizers.SGD(rate),
        "momentum": lambda: keras.optimizers.SGD(rate, momentum=settings.beta_1),
        "adam": lambda: FusedAdam(rate, settings.beta_1, settings.beta_2),
        "rmsprop": lambda: keras.optimizers.RMSprop(rate, rho=settings.beta_2),
    }
    optimizer = makers[settings.optimizer]()
    # Half precision's gradients would underflow unscaled.
    return keras.optimizers.LossScaleOptimizer(optimizer) if half else optimizer
