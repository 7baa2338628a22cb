"""One update against a second one in plain TensorFlow, in every recipe and precision."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from gan_helpers import (
    SGD,
    TINY,
    WGAN_GP,
    Update,
    Weights,
    assert_close,
    make_update,
    same,
    weights,
)
from pydantic import ValidationError

from models.gan.losses import LOSSES
from models.gan.networks import PROJECTION, apply, build_discriminator, build_generator
from models.gan.settings import TrainSettings


def soft(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.math.log(1.0 + tf.exp(x)))


class Plain:
    """The update with SGD in plain TensorFlow; both networks' weights are its own variables.

    Nothing is shared: where the settings share a kernel, each network has a copy, and the two
    changes are added up after each update.
    """

    def __init__(self, update: Update, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.settings = update.gan.settings
        self.generator = build_generator(update.gan.settings)
        twin = build_generator(update.gan.settings)
        self.discriminator = build_discriminator(update.gan.settings, twin)
        self.generator.set_weights(update.gan.generator.get_weights())
        for own, variable in zip(
            self.discriminator.trainable_variables,
            update.gan.discriminator.trainable_variables,
            strict=True,
        ):
            own.assign(variable.numpy())
        self.images = pixels.astype(np.float32)[..., np.newaxis] / 127.5 - 1
        self.labels = labels.astype(np.int32)
        self.tied = (
            twin.get_layer(PROJECTION).kernel if update.gan.settings.tie_projection else None
        )

    def draw(self, number: int, noise_std: float) -> Any:
        """Stream 0 draws the rows, 1 the latents, 4 and 5 the noises, 6 the mixtures."""

        def seed(stream: int) -> tf.Tensor:
            return tf.constant([self.settings.seed, number * 8 + stream], tf.int64)

        def noise(stream: int) -> tf.Tensor:
            own = tf.random.experimental.stateless_fold_in(seed(stream), 0)
            return noise_std * tf.random.stateless_normal([4, 28, 28, 1], own)

        rows = tf.random.stateless_uniform([4], seed(0), 0, 40, tf.int32).numpy()
        latent = tf.random.stateless_normal([4, 8], seed(1))
        mixture = tf.random.experimental.stateless_fold_in(seed(6), 0)
        share = tf.random.stateless_uniform([4, 1, 1, 1], mixture)
        real, digits = tf.constant(self.images[rows]), tf.constant(self.labels[rows])
        return self.look(real + noise(4)), digits, latent, noise(5), share

    def look(self, images: tf.Tensor) -> tf.Tensor:
        """What the discriminator is shown."""
        if not self.settings.log_intensity_channels:
            return images
        levels = (images + 1) * 127.5
        ends = [tf.math.log(1 + tf.maximum(x, 0) / 4) for x in (levels, 256 - levels)]
        return tf.concat([images, *(x / (0.5 * np.log(65)) - 1 for x in ends)], -1)

    def logits_of(self, images: tf.Tensor, digits: tf.Tensor) -> tf.Tensor:
        outputs = apply(self.discriminator, images, digits, training=True)
        return outputs[0] if self.settings.auxiliary_loss_weight else outputs

    def surprise(self, images: tf.Tensor, digits: tf.Tensor) -> tf.Tensor | float:
        """At the digits, of what the discriminator sees; weighted."""
        if not self.settings.auxiliary_loss_weight:
            return 0.0
        _, seen = apply(self.discriminator, images, digits, training=True)
        log_likelihoods = tf.one_hot(digits, 10) * tf.math.log(tf.nn.softmax(seen))
        return -self.settings.auxiliary_loss_weight * tf.reduce_sum(log_likelihoods) / 4

    def slopes(self, images: tf.Tensor, digits: tf.Tensor) -> tf.Tensor:
        """Each row's own gradient, one at a time."""
        rows = []
        for row in range(4):
            with tf.GradientTape() as tape:
                image = images[row : row + 1]
                tape.watch(image)
                logit = self.logits_of(image, digits[row : row + 1])
            rows.append(tf.reduce_sum(tape.gradient(logit, image) ** 2))
        return tf.stack(rows)

    def step(self, step: int, noise_std: float) -> None:
        settings = self.settings
        rounds = settings.discriminator_steps
        for number in range(step * rounds, step * rounds + rounds):
            real, digits, latent, noise, share = self.draw(number, noise_std)
            with tf.GradientTape() as generating:
                fake = apply(self.generator, latent, digits, training=True) + noise
                fake = self.look(fake)
                fake_logits = self.logits_of(fake, digits)
                critic = settings.loss == "wasserstein"
                generator_loss = -tf.reduce_mean(fake_logits) if critic else soft(-fake_logits)
                generator_loss += self.surprise(fake, digits)
            with tf.GradientTape() as tape:
                on_real = self.logits_of(real, digits)
                on_fake = self.logits_of(tf.stop_gradient(fake), digits)
                if critic:
                    loss = tf.reduce_mean(on_fake) - tf.reduce_mean(on_real)
                else:
                    smooth = settings.label_smoothing
                    loss = (1 - smooth) * soft(-on_real) + smooth * soft(on_real) + soft(on_fake)
                loss += self.surprise(real, digits)
                if settings.gradient_penalty_weight:
                    mixed = share * real + (1 - share) * tf.stop_gradient(fake)
                    norms = tf.sqrt(self.slopes(mixed, digits))
                    loss += settings.gradient_penalty_weight * tf.reduce_mean((norms - 1) ** 2)
                if step % settings.penalty_interval == 0:
                    strength = 0.5 * settings.penalty_interval
                    r1 = tf.reduce_mean(self.slopes(real, digits)) if settings.r1_weight else 0.0
                    r2 = tf.reduce_mean(self.slopes(fake, digits)) if settings.r2_weight else 0.0
                    loss += strength * (settings.r1_weight * r1 + settings.r2_weight * r2)
            last = number == step * rounds + rounds - 1
            changes = []
            if last:
                changes.append((generating, generator_loss, self.generator, "generator"))
            changes.append((tape, loss, self.discriminator, "discriminator"))
            gradients = [
                (network, t.gradient(value, network.trainable_variables), name)
                for t, value, network, name in changes
            ]
            for network, slopes, name in gradients:
                rate = getattr(settings, f"{name}_learning_rate")
                for variable, slope in zip(network.trainable_variables, slopes, strict=True):
                    variable.assign_sub(rate * slope)
                    if self.tied is not None and tuple(variable.shape) == tuple(self.tied.shape):
                        own = self.generator.get_layer(PROJECTION).kernel
                        other = self.tied if variable is own else own
                        other.assign_sub(rate * slope)


@pytest.mark.parametrize(
    "changed",
    [
        {"r1_weight": 0},
        {"r1_weight": 0.5, "penalty_interval": 2, "label_smoothing": 0.2},
        {"r1_weight": 0.5, "r2_weight": 0.3, "penalty_interval": 1, "seed": 5},
        {"discriminator_steps": 3, "r1_weight": 0.1, "instance_noise": 0.5},
        WGAN_GP | {"generator_normalization": "none", "instance_noise": 0.2},
        {"tie_projection": True, "r1_weight": 0.2, "discriminator_steps": 2},
        {"auxiliary_loss_weight": 0.7, "r1_weight": 0.2, "generator_channels": (8, 4, 0)},
        {"log_intensity_channels": True, "r1_weight": 0.2, "r2_weight": 0.1, "instance_noise": 0.5},
    ],
    ids=str,
)
def test_updates_are_those_of_plain_tensorflow(
    digits, eagerly: None, changed: dict[str, Any]
) -> None:
    update = make_update(digits, **SGD, **changed)
    plain = Plain(update, digits[0][:40], digits[1][:40])
    noise_std = 0.7 * update.gan.settings.instance_noise
    before = update.weights()
    for step in range(2):
        update.run(1, noise_std)
        plain.step(step, noise_std)
        assert_close(weights(update.gan.generator), weights(plain.generator))
        assert_close(weights(update.gan.discriminator), weights(plain.discriminator))
    kernels = [(a, b) for a, b in zip(before, update.weights(), strict=True) if a.ndim > 1]
    assert not any(np.array_equal(a, b) for a, b in kernels)


# ----------------------------------------------------------------------------- recipes


RECIPES: list[dict[str, Any]] = [
    {"loss": "minimax"},
    {"loss": "least_squares"},
    {"loss": "hinge"},
    {"loss": "relativistic"},
    WGAN_GP,
    {"loss": "wasserstein", "discriminator_normalization": "spectral"},
    {"label_smoothing": 0.1},
    {"generator_activation": "leaky_relu"},
    {"generator_activation": "elu"},
    {"generator_output": "tanh"},
    {"log_intensity_channels": True},
    {"discriminator_activation": "relu"},
    {"discriminator_activation": "elu"},
    {"initializer": "normal"},
    {"initializer": "he"},
    {"generator_normalization": "none"},
    {"discriminator_normalization": "batch", "r1_weight": 0},
    {"discriminator_normalization": "spectral"},
    {"dropout": 0.3},
    {"instance_noise": 0.5},
    {"augmentation": ("translation", "cutout", "brightness", "contrast")},
    {"augmentation": ("cutout",)},
    {"r1_weight": 0.25},
    {"r2_weight": 1.0},
    {"optimizer": "sgd"},
    {"optimizer": "momentum"},
    {"optimizer": "rmsprop"},
    {"discriminator_steps": 3},
    {"latent": "uniform"},
    {"conditional": False},
    {"tie_projection": True},
    {"auxiliary_loss_weight": 0.5},
    {"generator_channels": (8, 4, 0)},
    {"seed": 2**31 - 1},
]


@pytest.fixture(scope="module")
def plain_result(digits) -> Weights:
    update = make_update(digits, r1_weight=0)
    update.run(2, 0.3)
    return weights(update.gan.discriminator)


def assert_trains(update: Update) -> None:
    before = update.weights()
    scalars = update.run(2, 0.3)
    assert np.isfinite(scalars).all()
    after = update.weights()
    assert all(np.isfinite(w).all() for w in after)
    pairs = zip(before, after, strict=True)
    # All kernels; a bias before a batch normalization has no say.
    assert all(not np.array_equal(a, b) for a, b in pairs if a.ndim > 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed", RECIPES, ids=lambda c: "-".join(f"{key}={value}" for key, value in c.items())
)
def test_each_setting_trains_and_has_an_effect(
    digits, eagerly: None, plain_result: Weights, changed: dict[str, Any]
) -> None:
    update = make_update(digits, **({"r1_weight": 0} | changed))
    assert_trains(update)
    found = weights(update.gan.discriminator)
    shapes = [w.shape for w in found], [w.shape for w in plain_result]
    assert shapes[0] != shapes[1] or not same(found, plain_result)


CHOICES: dict[str, Sequence[Any]] = {
    "conditional": (True, False),
    "latent": ("normal", "uniform"),
    "latent_dim": (1, 8),
    "generator_channels": ((8, 4, 4), (1, 1, 1), (4, 2, 0)),
    "auxiliary_loss_weight": (0, 0.5),
    "discriminator_channels": ((4, 4, 8), (1, 2, 3)),
    "generator_activation": ("relu", "leaky_relu", "elu"),
    "generator_output": ("levels", "tanh"),
    "log_intensity_channels": (False, True),
    "discriminator_activation": ("leaky_relu", "elu"),
    "initializer": ("keras", "normal", "he"),
    "generator_normalization": ("batch", "none"),
    "discriminator_normalization": ("none", "batch", "spectral"),
    "tie_projection": (False, True),
    "dropout": (0.0, 0.4),
    "loss": tuple(LOSSES),
    "label_smoothing": (0.0, 0.1),
    "instance_noise": (0.0, 0.3),
    "augmentation": ((), ("translation",), ("contrast", "cutout"), ("brightness", "translation")),
    "r1_weight": (0, 0.25),
    "r2_weight": (0, 0.5),
    "penalty_interval": (1, 16),
    "gradient_penalty_weight": (0, 10),
    "discriminator_steps": (1, 2),
    "optimizer": ("sgd", "momentum", "adam", "rmsprop"),
    "batch_size": (2, 5),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
}


def combinations() -> list[dict[str, Any]]:
    """Settings drawn from all of the above, each with a choice that those before it lack."""
    generator, found = np.random.default_rng(1), list[dict[str, Any]]()
    unseen = {(name, str(choice)) for name, of in CHOICES.items() for choice in of}
    while unseen:
        drawn = {name: of[generator.integers(len(of))] for name, of in CHOICES.items()}
        new = unseen & {(name, str(choice)) for name, choice in drawn.items()}
        without = {name: choice for name, choice in drawn.items() if name != "precision"}
        try:
            TrainSettings(**(TINY | without))
        except ValidationError:
            continue
        if new:
            found.append(drawn)
            unseen -= new
    return found


@pytest.mark.parametrize("changed", combinations(), ids=lambda changed: changed["loss"])
def test_combinations_train(digits, eagerly: None, changed: dict[str, Any]) -> None:
    """With rates so small that none diverges."""
    rates = {"generator_learning_rate": 1e-5, "discriminator_learning_rate": 1e-5}
    update = make_update(digits, **changed, **rates)
    before, half = update.weights(), len(update.gan.generator.trainable_variables)
    parts = slice(half), slice(half, None)
    # In float16 an update that overflows is left out and the loss scale halved, from 2^15 on.
    for _ in range(16 if changed["precision"] == "mixed_float16" else 2):
        assert np.isfinite(update.run(1, 0.3)).all()
        after = update.weights()
        if not any(same(before[part], after[part]) for part in parts):
            break
    else:
        pytest.fail("One network's weights stayed as they were")
    assert all(np.isfinite(w).all() for w in after)


@pytest.fixture(scope="module")
def in_float32(digits) -> tuple[Weights, Weights]:
    update = make_update(digits, **SGD, r1_weight=0.5, penalty_interval=1)
    before = update.weights()
    update.run(1)
    return before, update.weights()


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_changes_weights_about_as_float32_does(
    digits, eagerly: None, in_float32: tuple[Weights, Weights], precision: str
) -> None:
    """A scale of the loss that were not taken out again would show here, 2^15 times."""
    update = make_update(digits, precision, **SGD, r1_weight=0.5, penalty_interval=1)
    before, expected = in_float32
    assert same(update.weights(), before)
    scalars = update.run(1)
    assert np.isfinite(scalars).all()
    for old, new, full in zip(before, update.weights(), expected, strict=True):
        assert new.dtype == np.float32
        # Rounding is all that moves a bias before a batch normalization.
        least = 1e-4 if new.ndim > 1 else 1e-2
        assert np.linalg.norm(new - full) <= 0.3 * np.linalg.norm(full - old) + least
    assert {average.dtype for average in update.gan.ema} == {tf.float32}
    scaled = isinstance(update.gan.generator_optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "mixed_float16")


def test_an_overflow_skips_the_update_and_lowers_the_scale(digits, eagerly: None) -> None:
    update = make_update(digits, "mixed_float16")
    for optimizer in (update.gan.generator_optimizer, update.gan.discriminator_optimizer):
        optimizer.dynamic_scale.assign(1e38)
    before = update.weights()
    update.run(1)
    assert same(update.weights(), before)
    assert float(update.gan.discriminator_optimizer.dynamic_scale) == pytest.approx(5e37)
    for optimizer in (update.gan.generator_optimizer, update.gan.discriminator_optimizer):
        optimizer.dynamic_scale.assign(2.0**10)
    update.run(1)
    assert not same(update.weights(), before)


def test_the_average_follows_its_recurrence(digits, eagerly: None) -> None:
    """Decay min(0.4, (1 + t) / (10 + t)): the early weights are soon forgotten."""
    update = make_update(digits, ema_decay=0.4, generator_learning_rate=1e-2)
    average = [w.astype(np.float64) for w in weights(update.gan.generator)]
    assert same([w.numpy() for w in update.gan.ema], weights(update.gan.generator))
    decays = [min(0.4, (1 + step) / (10 + step)) for step in range(1, 8)]
    assert decays[0] == 2 / 11 < decays[4] == 0.4 == decays[-1]
    for decay in decays:
        update.run(1)
        current = weights(update.gan.generator)
        average = [decay * a + (1 - decay) * w for a, w in zip(average, current, strict=True)]
        assert_close([w.numpy() for w in update.gan.ema], average, rtol=1e-4, atol=1e-6)
    assert not same([w.numpy() for w in update.gan.ema], current)
