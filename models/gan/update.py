"""One update of both networks, on one replica, as graph operations."""

import keras
import tensorflow as tf

from models.gan.augment import augment
from models.gan.batches import Batch, BatchSeeds, Stream, TrainingData
from models.gan.losses import LOSSES
from models.gan.networks import add_log_intensity_channels, apply
from models.gan.penalties import wasserstein_gradient_penalty, zero_centered_gradient_penalty
from models.gan.state import GanState

SCALARS = ("discriminator_loss", "generator_loss", "real_logit", "fake_logit")
_REAL = Stream.AUGMENT_REAL, Stream.NOISE_REAL
_FAKE = Stream.AUGMENT_FAKE, Stream.NOISE_FAKE


def update_networks(gan: GanState, data: TrainingData, noise_std: tf.Tensor) -> tf.Tensor:
    """Updates the discriminator `discriminator_steps` times and the generator with the last.

    Both networks learn from the same fake images. The caller increments the step counters.

    Args:
      gan: its networks, optimizers and EMA are updated in place.
      data: the training images.
      noise_std: float32 scalar, standard deviation of the instance noise.

    Returns:
      float32 [4], the values of `SCALARS` for this replica's last batch.
    """
    settings, loss = gan.settings, LOSSES[gan.settings.loss]
    generator_variables = gan.generator.trainable_variables
    discriminator_variables = gan.discriminator.trainable_variables
    for iteration in range(settings.discriminator_steps):
        # Real images and fake images.
        batch = data.draw_batch(gan.step * settings.discriminator_steps + iteration)
        real = _augment(gan, batch.images, noise_std, batch.seeds, _REAL)
        with tf.GradientTape() as generator_tape:
            fake = apply(gan.generator, batch.latent, batch.labels, training=True)
            fake = _augment(gan, fake, noise_std, batch.seeds, _FAKE)

        # Real logits, fake logits and losses. This tape does not see the generator, so that a tied
        # kernel gets a gradient from each network's own loss.
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(fake)
            real_logits, real_class_logits = _discriminate(gan, real, batch.labels)
            fake_logits, fake_class_logits = _discriminate(gan, fake, batch.labels)
            real_target = 1.0 - settings.label_smoothing
            discriminator_loss = loss.discriminator(real_logits, fake_logits, real_target)
            discriminator_loss += _auxiliary_loss(gan, real_class_logits, batch.labels)
            if settings.gradient_penalty_weight:
                discriminator_loss += _gradient_penalty(gan, real, fake, batch)
            generator_loss = _auxiliary_loss(gan, fake_class_logits, batch.labels)
            generator_loss += loss.generator(real_logits, fake_logits)
            discriminator_share = _share(gan.discriminator_optimizer, discriminator_loss, data)
            generator_share = _share(gan.generator_optimizer, generator_loss, data)

        # Gradients of both networks; R1 and R2.
        fake_gradient = tape.gradient(generator_share, fake)
        generator_gradients = generator_tape.gradient(fake, generator_variables, fake_gradient)
        discriminator_gradients = tape.gradient(discriminator_share, discriminator_variables)
        if settings.r1_weight or settings.r2_weight:
            discriminator_gradients = _add_r1_and_r2(
                gan, discriminator_gradients, real, fake, batch.labels, data.replicas
            )

        # Optimizer step.
        gan.discriminator_optimizer.apply(discriminator_gradients, discriminator_variables)
    gan.generator_optimizer.apply(generator_gradients, generator_variables)

    # Update EMA.
    total_steps = tf.cast(gan.total_steps + 1, tf.float32)
    decay = tf.minimum(settings.ema_decay, (1.0 + total_steps) / (10.0 + total_steps))
    for average, variable in zip(gan.ema, generator_variables, strict=True):
        average.assign(average + (1.0 - decay) * (variable.value - average))
    means = [tf.reduce_mean(real_logits), tf.reduce_mean(fake_logits)]
    return tf.stack([discriminator_loss, generator_loss, *means])


def _augment(
    gan: GanState,
    images: tf.Tensor,
    noise_std: tf.Tensor,
    seeds: BatchSeeds,
    streams: tuple[Stream, Stream],
) -> tf.Tensor:
    """Maps images float32 [n, 28, 28, 1] to the discriminator's input, float32 [n, 28, 28, c].

    The gradient penalties are of this input. R1 of the images themselves would keep the
    discriminator from using the few gray levels that the log intensity channels resolve.
    """
    settings = gan.settings
    augmentation_seed, noise_seed = (seeds.per_replica(stream) for stream in streams)
    if settings.augmentation:
        images = augment(images, settings.augmentation, augmentation_seed)
    if settings.instance_noise:
        images += noise_std * tf.random.stateless_normal(tf.shape(images), noise_seed)
    return add_log_intensity_channels(images) if settings.log_intensity_channels else images


def _discriminate(
    gan: GanState, images: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Logits float32 [n] of images and, under `auxiliary_loss_weight`, class logits [n, 10]."""
    outputs = apply(gan.discriminator, images, labels, training=True)
    return tuple(outputs) if isinstance(outputs, list) else (outputs, None)


def _auxiliary_loss(gan: GanState, class_logits: tf.Tensor | None, labels: tf.Tensor) -> tf.Tensor:
    """The weighted classification loss of AC-GAN (Odena et al. 2017), a float32 scalar."""
    if class_logits is None:
        return tf.constant(0.0)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, class_logits)
    return gan.settings.auxiliary_loss_weight * tf.reduce_mean(losses)


def _share(optimizer: keras.optimizers.Optimizer, loss: tf.Tensor, data: TrainingData) -> tf.Tensor:
    """This replica's share of a loss: the optimizer adds up the gradients of all replicas."""
    return optimizer.scale_loss(loss / data.replicas)


def _gradient_penalty(gan: GanState, real: tf.Tensor, fake: tf.Tensor, batch: Batch) -> tf.Tensor:
    """The weighted gradient penalty of WGAN-GP, a float32 scalar."""
    seed = batch.seeds.per_replica(Stream.INTERPOLATION)
    penalty = wasserstein_gradient_penalty(
        lambda images: _discriminate(gan, images, batch.labels)[0],
        real,
        tf.stop_gradient(fake),
        tf.random.stateless_uniform([real.shape[0], 1, 1, 1], seed),
    )
    return gan.settings.gradient_penalty_weight * penalty


def _add_r1_and_r2(
    gan: GanState,
    gradients: list[tf.Tensor],
    real: tf.Tensor,
    fake: tf.Tensor,
    labels: tf.Tensor,
    replicas: int,
) -> list[tf.Tensor]:
    """Adds the gradients of R1 and R2 in every `penalty_interval`-th step, scaled by the interval.

    This is the lazy regularization of Karras et al. 2020 (StyleGAN2), appendix B.
    """
    settings, variables = gan.settings, gan.discriminator.trainable_variables

    def regularize() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            penalty = tf.constant(0.0)
            for weight, images in (
                (settings.r1_weight, real),
                (settings.r2_weight, tf.stop_gradient(fake)),
            ):
                if weight:
                    penalty += weight * zero_centered_gradient_penalty(
                        lambda x: _discriminate(gan, x, labels)[0], images
                    )
            penalty *= settings.penalty_interval / replicas
            scaled_penalty = gan.discriminator_optimizer.scale_loss(penalty)
        penalty_gradients = tape.gradient(scaled_penalty, variables)
        # The gradient is None for a bias that the gradient at the input does not depend on.
        return [
            tf.identity(gradient) if added is None else gradient + added
            for gradient, added in zip(gradients, penalty_gradients, strict=True)
        ]

    return tf.cond(
        tf.equal(gan.step % settings.penalty_interval, 0),
        regularize,
        lambda: [tf.identity(gradient) for gradient in gradients],
    )
