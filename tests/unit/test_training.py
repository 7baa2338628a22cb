"""One update against a second one in plain TensorFlow, every recipe, and the loop around them."""

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from models.gan import averaged
from models.gan.averaged import AveragedGenerator
from models.gan.checkpoints import Checkpoints
from models.gan.held_out import Judgement
from models.gan.networks import PROJECTION, apply, build_discriminator, build_generator
from models.gan.settings import _CONFLICTS, TrainSettings
from models.gan.training import (
    GanTrainer,
    InterruptedTrainingError,
    NonFiniteLossError,
    Progress,
)
from models.gan.update import GanUpdate, draw_latent

TINY: dict[str, Any] = {
    "max_seconds": None,
    "max_steps": 2,
    "batch_size": 4,
    "latent_dim": 8,
    "auxiliary_loss_weight": 0,
    "generator_channels": (8, 4, 4),
    "discriminator_channels": (4, 4, 8),
}
WGAN_GP = {"loss": "wasserstein", "gradient_penalty_weight": 10, "r1_weight": 0}
Weights = list[np.ndarray]


@pytest.fixture
def eagerly() -> Iterator[None]:
    """The same code without the seconds that building a graph takes."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def make_update(digits: tuple[np.ndarray, np.ndarray]) -> Callable[..., GanUpdate]:
    """Builds the update alone, for 40 digits."""

    def build(precision: str = "float32", **changed: Any) -> GanUpdate:
        images, labels = digits[0][:40, ..., np.newaxis], digits[1][:40]
        settings = TrainSettings(**(TINY | changed))
        return GanUpdate(settings, images, labels, precision=precision, replicas=1)

    return build


@pytest.fixture(scope="module")
def make(digits: tuple[np.ndarray, np.ndarray]) -> Callable[..., GanTrainer]:
    """Builds a training on 40 digits."""

    def build(held_out: Any = None, **changed: Any) -> GanTrainer:
        images, labels = digits[0][:40, ..., np.newaxis], digits[1][:40]
        return GanTrainer(TrainSettings(**(TINY | changed)), images, labels, held_out=held_out)

    return build


def run(update: GanUpdate, steps: int, deviation: float = 0.0) -> list[np.ndarray]:
    scalars = []
    for _ in range(steps):
        scalars.append(update(tf.constant(deviation)).numpy())
        update.step.assign_add(1)
        update.age.assign_add(1)
    return scalars


def weights(network: keras.Model) -> Weights:
    return [variable.numpy() for variable in network.trainable_variables]


def both(update: GanUpdate) -> Weights:
    return weights(update.generator) + weights(update.discriminator)


def same(a: Weights, b: Weights) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def assert_close(a: Weights, b: Weights, rtol: float = 2e-4, atol: float = 2e-6) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


# ----------------------------------------------------------------- one update, a second time


def soft(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.math.log(1.0 + tf.exp(x)))


class Plain:
    """The update with SGD in plain TensorFlow; both networks' weights are its own variables.

    Nothing is shared: where the settings share a kernel, each network has a copy, and the two
    changes are added up after each update.
    """

    def __init__(self, update: GanUpdate, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.settings = update.settings
        self.generator = build_generator(update.settings)
        twin = build_generator(update.settings)
        self.discriminator = build_discriminator(update.settings, twin)
        self.generator.set_weights(update.generator.get_weights())
        for own, variable in zip(
            self.discriminator.trainable_variables,
            update.discriminator.trainable_variables,
            strict=True,
        ):
            own.assign(variable.numpy())
        self.images = pixels.astype(np.float32)[..., np.newaxis] / 127.5 - 1
        self.labels = labels.astype(np.int32)
        self.tied = twin.get_layer(PROJECTION).kernel if update.settings.tie_projection else None

    def draw(self, number: int, deviation: float) -> Any:
        """Stream 0 draws the rows, 1 the latents, 4 and 5 the noises, 6 the mixtures."""

        def seed(stream: int) -> tf.Tensor:
            return tf.constant([self.settings.seed, number * 8 + stream], tf.int64)

        def noise(stream: int) -> tf.Tensor:
            own = tf.random.experimental.stateless_fold_in(seed(stream), 0)
            return deviation * tf.random.stateless_normal([4, 28, 28, 1], own)

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

    def judge(self, images: tf.Tensor, digits: tf.Tensor) -> tf.Tensor:
        outputs = apply(self.discriminator, images, digits, training=True)
        return outputs[0] if self.settings.auxiliary_loss_weight else outputs

    def surprise(self, images: tf.Tensor, digits: tf.Tensor) -> tf.Tensor | float:
        """At the digits, of what the discriminator sees; weighted."""
        if not self.settings.auxiliary_loss_weight:
            return 0.0
        _, seen = apply(self.discriminator, images, digits, training=True)
        told = tf.one_hot(digits, 10) * tf.math.log(tf.nn.softmax(seen))
        return -self.settings.auxiliary_loss_weight * tf.reduce_sum(told) / 4

    def slopes(self, images: tf.Tensor, digits: tf.Tensor) -> tf.Tensor:
        """Each row's own gradient, one at a time."""
        rows = []
        for row in range(4):
            with tf.GradientTape() as tape:
                image = images[row : row + 1]
                tape.watch(image)
                logit = self.judge(image, digits[row : row + 1])
            rows.append(tf.reduce_sum(tape.gradient(logit, image) ** 2))
        return tf.stack(rows)

    def step(self, step: int, deviation: float) -> None:
        settings = self.settings
        rounds = settings.discriminator_steps
        for number in range(step * rounds, step * rounds + rounds):
            real, digits, latent, noise, share = self.draw(number, deviation)
            with tf.GradientTape() as generating:
                fake = apply(self.generator, latent, digits, training=True) + noise
                fake = self.look(fake)
                fake_logits = self.judge(fake, digits)
                critic = settings.loss == "wasserstein"
                generator_loss = -tf.reduce_mean(fake_logits) if critic else soft(-fake_logits)
                generator_loss += self.surprise(fake, digits)
            with tf.GradientTape() as tape:
                on_real = self.judge(real, digits)
                on_fake = self.judge(tf.stop_gradient(fake), digits)
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


# With a smooth output: where pictures are of whole levels, a pixel between two of them can fall to
# either side by rounding alone, and two right computations then differ by a level.
SGD = {
    "optimizer": "sgd",
    "generator_learning_rate": 0.3,
    "discriminator_learning_rate": 0.2,
    "generator_output": "tanh",
}


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
    make_update, digits, eagerly: None, changed: dict[str, Any]
) -> None:
    update = make_update(**SGD, **changed)
    plain = Plain(update, digits[0][:40], digits[1][:40])
    deviation = 0.7 * update.settings.instance_noise
    before = both(update)
    for step in range(2):
        run(update, 1, deviation)
        plain.step(step, deviation)
        assert_close(weights(update.generator), weights(plain.generator))
        assert_close(weights(update.discriminator), weights(plain.discriminator))
    kernels = [(a, b) for a, b in zip(before, both(update), strict=True) if a.ndim > 1]
    assert not any(np.array_equal(a, b) for a, b in kernels)


def test_a_lazy_penalty_is_rarer_and_as_much_stronger(make_update, eagerly: None) -> None:
    lazy = make_update(**SGD, r1_weight=1, penalty_interval=3)
    strong = make_update(**SGD, r1_weight=3, penalty_interval=1)
    none = make_update(**SGD, r1_weight=0)
    for step in range(4):
        for other in (strong, none):
            other.generator.set_weights(lazy.generator.get_weights())
            other.discriminator.set_weights(lazy.discriminator.get_weights())
        for update in (lazy, strong, none):
            run(update, 1)
        like, unlike = (strong, none) if step % 3 == 0 else (none, strong)
        assert_close(weights(lazy.discriminator), weights(like.discriminator))
        found = weights(lazy.discriminator), weights(unlike.discriminator)
        assert not all(np.allclose(a, b, rtol=1e-3) for a, b in zip(*found, strict=True))


def test_no_two_batches_and_no_two_streams_are_alike(make_update, eagerly: None) -> None:
    """Over three updates of three rounds each, and over all that is drawn."""
    update = make_update(discriminator_steps=3, batch_size=16, augmentation=("brightness",))
    seen: list[Any] = []
    gather, normal, uniform = tf.gather, tf.random.stateless_normal, tf.random.stateless_uniform

    def noting(draw: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        def noted(shape: Any, seed: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
            seen.append(tuple(seed.numpy().tolist()))
            return draw(shape, seed, *args, **kwargs)

        return noted

    rows: list[bytes] = []

    def noting_rows(values: Any, places: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
        rows.append(places.numpy().tobytes())
        return gather(values, places, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.random, "stateless_normal", noting(normal))
        patch.setattr(tf.random, "stateless_uniform", noting(uniform))
        patch.setattr(tf, "gather", noting_rows)
        run(update, 3)
    # Rows, latents, and what each of the two views is brightened by, nine times.
    assert len(seen) == len(set(seen)) == 9 * 4
    assert len(set(rows)) == 9


def test_a_seed_sets_weights_and_batches(make_update, eagerly: None) -> None:
    first, second, third = (make_update(seed=seed) for seed in (0, 1, 1))
    assert same(both(second), both(third))
    assert not same(weights(first.generator), weights(second.generator))
    assert not same(weights(first.discriminator), weights(second.discriminator))
    for other in (second, third):
        other.generator.set_weights(first.generator.get_weights())
        other.discriminator.set_weights(first.discriminator.get_weights())
    for update in (first, second, third):
        run(update, 1)
    assert same(both(second), both(third))
    for a, b in zip(weights(first.generator), weights(second.generator), strict=True):
        assert not np.array_equal(a, b)


@pytest.mark.parametrize(
    ("latent", "mean_square", "largest"), [("normal", 1, 6.0), ("uniform", 1 / 3, 1.0)]
)
def test_latents(latent: str, mean_square: float, largest: float) -> None:
    settings = TrainSettings(latent=latent, latent_dim=50)
    drawn = draw_latent(settings, 400, tf.constant([1, 2])).numpy()
    assert drawn.shape == (400, 50)
    assert drawn.mean() == pytest.approx(0, abs=0.03)
    assert (drawn**2).mean() == pytest.approx(mean_square, rel=0.04)
    assert np.abs(drawn).max() <= largest
    assert drawn.min() < -0.99 < 0.99 < drawn.max()


# ---------------------------------------------------------------------- shared weights


def test_shared_weights_learn_from_each_loss(make_update, eagerly: None) -> None:
    """One SGD update moves them by the sum of what either network's rate alone would."""
    small, rate = 1e-9, 0.3
    moved = {}
    for name, rates in {"g": (rate, small), "d": (small, rate), "both": (rate, rate)}.items():
        update = make_update(
            optimizer="sgd",
            tie_projection=True,
            generator_learning_rate=rates[0],
            discriminator_learning_rate=rates[1],
        )
        kernel = update.generator.get_layer(PROJECTION).kernel
        before = kernel.numpy()
        run(update, 1)
        moved[name] = kernel.numpy() - before
    assert np.abs(moved["g"]).max() > 1e-5
    assert np.abs(moved["d"]).max() > 1e-5
    np.testing.assert_allclose(moved["both"], moved["g"] + moved["d"], rtol=1e-3, atol=1e-7)


def test_shared_weights_are_saved_and_restored_once(make, eagerly: None, tmp_path: Path) -> None:
    trainer, other = (make(tie_projection=True, seed=seed) for seed in (0, 1))
    kernel = trainer.update.generator.get_layer(PROJECTION).kernel
    named = trainer.variables()
    assert sum(variable is kernel.value for variable in named.values()) == 1
    trainer.run_steps(2, 0.0)
    Checkpoints(str(tmp_path), "key", named).save(2, {})
    assert Checkpoints(str(tmp_path), "key", other.variables()).restore() == (2, {})
    for network in ("generator", "discriminator"):
        for a, b in zip(
            getattr(trainer.update, network).variables,
            getattr(other.update, network).variables,
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
    assert other.step == 2


# ----------------------------------------------------------------------------- recipes


RECIPES: list[dict[str, Any]] = [
    {"loss": "minimax"},
    {"loss": "least_squares"},
    {"loss": "hinge"},
    {"loss": "relativistic"},
    WGAN_GP,
    {"loss": "wasserstein", "discriminator_normalization": "spectral"},
    {"label_smoothing": 0.1},
    {"generator_activation": "leaky_relu", "leaky_slope": 0.0},
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
def plain_result(make_update) -> Weights:
    update = make_update(r1_weight=0)
    run(update, 2, 0.3)
    return weights(update.discriminator)


def assert_trains(update: GanUpdate) -> None:
    before = both(update)
    scalars = run(update, 2, 0.3)
    assert np.isfinite(scalars).all()
    after = both(update)
    assert all(np.isfinite(w).all() for w in after)
    pairs = zip(before, after, strict=True)
    # All kernels; a bias before a batch normalization has no say.
    assert all(not np.array_equal(a, b) for a, b in pairs if a.ndim > 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed", RECIPES, ids=lambda c: "-".join(f"{key}={value}" for key, value in c.items())
)
def test_each_setting_trains_and_has_an_effect(
    make_update, eagerly: None, plain_result: Weights, changed: dict[str, Any]
) -> None:
    update = make_update(**({"r1_weight": 0} | changed))
    assert_trains(update)
    found = weights(update.discriminator)
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
    "loss": ("non_saturating", "minimax", "least_squares", "hinge", "wasserstein", "relativistic"),
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
def test_combinations_train(make_update, eagerly: None, changed: dict[str, Any]) -> None:
    """With rates so small that none diverges."""
    rates = {"generator_learning_rate": 1e-5, "discriminator_learning_rate": 1e-5}
    update = make_update(**changed, **rates)
    before, half = both(update), len(update.generator.trainable_variables)
    parts = slice(half), slice(half, None)
    # In float16 an update that overflows is left out and the loss scale halved, from 2^15 on.
    for _ in range(16 if changed["precision"] == "mixed_float16" else 2):
        assert np.isfinite(run(update, 1, 0.3)).all()
        after = both(update)
        if not any(same(before[part], after[part]) for part in parts):
            break
    else:
        pytest.fail("One network's weights stayed as they were")
    assert all(np.isfinite(w).all() for w in after)


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"max_steps": None}, ["max_seconds", "max_steps", "null"]),
    ({"deterministic": True, "max_seconds": 9.0}, ["deterministic", "max_seconds=null"]),
    ({"generator_channels": (8, 0, 4)}, ["generator_channels", "1 or more"]),
    ({"label_smoothing": 0.1, "loss": "hinge"}, ["label_smoothing", "loss=hinge"]),
    ({"loss": "wasserstein"}, ["loss=wasserstein", "gradient_penalty_weight", "spectral"]),
    (
        {"discriminator_normalization": "batch", "r1_weight": 0, "r2_weight": 0.1},
        ["discriminator_normalization=batch", "r1_weight", "r2_weight", "gradient_penalty_weight"],
    ),
    (
        {"tie_projection": True, "discriminator_normalization": "spectral"},
        ["tie_projection", "discriminator_normalization=spectral"],
    ),
    ({"patience": 1, "evaluations": 0}, ["patience", "evaluations=0"]),
    ({"warm_start": "auto", "evaluations": 1}, ["warm_start=auto", "evaluations=1"]),
]


@pytest.mark.parametrize("place", range(len(_CONFLICTS)))
def test_each_conflict_is_reached_and_says_which_settings(place: int) -> None:
    changed, words = REFUSED[place]
    drafted = TrainSettings.model_construct(**(TINY | changed))
    assert [is_wrong(drafted) for is_wrong, _ in _CONFLICTS].index(True) == place
    with pytest.raises(ValidationError) as caught:
        TrainSettings(**(TINY | changed))
    (error,) = caught.value.errors()
    for word in words:
        assert word in error["msg"]
    assert "{" not in error["msg"]


def test_settings_beside_a_conflict_are_accepted() -> None:
    for changed in (
        {"max_steps": 2, "max_seconds": None, "deterministic": True},
        {"label_smoothing": 0.1, "loss": "minimax"},
        WGAN_GP,
        {"discriminator_normalization": "batch", "r1_weight": 0},
        {"tie_projection": True, "discriminator_normalization": "batch", "r1_weight": 0},
        {"auxiliary_loss_weight": 0.1, "conditional": False},
        {"patience": 1, "evaluations": 1},
    ):
        TrainSettings(**(TINY | changed))
    assert len(REFUSED) == len(_CONFLICTS)


# ------------------------------------------------------------------ precision and compilation


@pytest.fixture(scope="module")
def in_float32(make_update) -> tuple[Weights, Weights]:
    update = make_update(**SGD, r1_weight=0.5, penalty_interval=1)
    before = both(update)
    run(update, 1)
    return before, both(update)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_changes_weights_about_as_float32_does(
    make_update, eagerly: None, in_float32: tuple[Weights, Weights], precision: str
) -> None:
    """A scale of the loss that were not taken out again would show here, 2^15 times."""
    update = make_update(precision, **SGD, r1_weight=0.5, penalty_interval=1)
    before, expected = in_float32
    assert same(both(update), before)
    scalars = run(update, 1)
    assert np.isfinite(scalars).all()
    for old, new, full in zip(before, both(update), expected, strict=True):
        assert new.dtype == np.float32
        # Rounding is all that moves a bias before a batch normalization.
        least = 1e-4 if new.ndim > 1 else 1e-2
        assert np.linalg.norm(new - full) <= 0.3 * np.linalg.norm(full - old) + least
    assert {average.dtype for average in update.average} == {tf.float32}
    scaled = isinstance(update.generator_optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "mixed_float16")


def test_an_overflow_skips_the_update_and_lowers_the_scale(make_update, eagerly: None) -> None:
    update = make_update("mixed_float16")
    for optimizer in (update.generator_optimizer, update.discriminator_optimizer):
        optimizer.dynamic_scale.assign(1e38)
    before = both(update)
    run(update, 1)
    assert same(both(update), before)
    assert float(update.discriminator_optimizer.dynamic_scale) == pytest.approx(5e37)
    for optimizer in (update.generator_optimizer, update.discriminator_optimizer):
        optimizer.dynamic_scale.assign(2.0**10)
    run(update, 1)
    assert not same(both(update), before)


def test_the_state_of_loss_scaling_is_part_of_a_training(make) -> None:
    trainer = make(precision="float16")
    named = {id(variable) for variable in trainer.variables().values()}
    for optimizer in (trainer.update.generator_optimizer, trainer.update.discriminator_optimizer):
        for variable in (optimizer.dynamic_scale, optimizer.step_counter):
            assert id(variable.value) in named
        assert id(optimizer.inner_optimizer.iterations.value) in named
    trainer.update.set_rates(tf.constant(0.5))
    rate = trainer.update.generator_optimizer.inner_optimizer.learning_rate
    assert float(rate) == pytest.approx(0.5 * trainer.settings.generator_learning_rate)
    assert {v.dtype for v in trainer.best.network.trainable_variables} == {"float32"}
    assert trainer.best.network.get_layer("up_14").compute_dtype == "float32"


@pytest.mark.parametrize("changed", [{"dropout": 0.2}, {"discriminator_normalization": "spectral"}])
def test_all_state_is_part_of_a_training(make, changed: dict[str, Any]) -> None:
    trainer = make(**changed)
    named = {id(variable) for variable in trainer.variables().values()}
    update = trainer.update
    holders = (
        update.generator,
        update.discriminator,
        update.generator_optimizer,
        update.discriminator_optimizer,
        trainer.best.network,
    )
    for variable in (v for holder in holders for v in holder.variables):
        assert id(variable.value) in named
    for variable in (*update.average, update.step):
        assert id(variable) in named
    paths = [variable.path for variable in update.discriminator.variables]
    part = "seed" if "dropout" in changed else "left"
    assert any(part in path for path in paths)


def test_xla_computes_the_same(make, digits, monkeypatch: pytest.MonkeyPatch) -> None:
    """With latents that do not hang on XLA, which draws other random numbers."""

    def spread(settings: TrainSettings, count: int, seed: tf.Tensor) -> tf.Tensor:
        places = tf.reshape(tf.range(float(count * settings.latent_dim)), [count, -1])
        return tf.sin(37.0 * places + tf.cast(seed[1], tf.float32))

    monkeypatch.setattr("models.gan.update.draw_latent", spread)
    recipe = SGD | {"r1_weight": 0.5, "penalty_interval": 2, "max_steps": 2}
    compiled, plain = make(xla="on", **recipe), make(xla="off", **recipe)
    assert compiled._run_on_device._jit_compile
    assert not plain._run_on_device._jit_compile
    scalars = compiled.run_steps(2, 0.0)
    expected = np.mean(run(plain.update, 2), axis=0)
    np.testing.assert_allclose(list(scalars.values()), expected, rtol=1e-3, atol=1e-5)
    assert_close(both(compiled.update), both(plain.update), rtol=5e-3, atol=2e-5)


def test_xla_compiles_once_for_calls_of_any_length(make) -> None:
    """What it compiles reads the number of updates: compiled in, each length would cost seconds."""
    trainer = make(xla="on", max_steps=100)
    rest = tf.constant(0.0), tf.constant(1.0)
    compiled = {
        trainer._run_on_device.experimental_get_compiler_ir(tf.constant(steps), *rest)("hlo")
        for steps in (1, 4, 7)
    }
    assert len(compiled) == 1


# ------------------------------------------------------------------------------ averages


def test_the_average_follows_its_recurrence(make_update, eagerly: None) -> None:
    """Decay min(0.4, (1 + t) / (10 + t)): the early weights are soon forgotten."""
    update = make_update(ema_decay=0.4, generator_learning_rate=1e-2)
    average = [w.astype(np.float64) for w in weights(update.generator)]
    assert same([w.numpy() for w in update.average], weights(update.generator))
    decays = [min(0.4, (1 + step) / (10 + step)) for step in range(1, 8)]
    assert decays[0] == 2 / 11 < decays[4] == 0.4 == decays[-1]
    for decay in decays:
        run(update, 1)
        current = weights(update.generator)
        average = [decay * a + (1 - decay) * w for a, w in zip(average, current, strict=True)]
        assert_close([w.numpy() for w in update.average], average, rtol=1e-4, atol=1e-6)
    assert not same([w.numpy() for w in update.average], current)


def random_weights(network: keras.Model) -> list[tf.Variable]:
    generator = np.random.default_rng(0)
    return [
        tf.Variable(generator.normal(0.1, 0.4, variable.shape).astype(np.float32))
        for variable in network.trainable_variables
    ]


@pytest.mark.parametrize("conditional", [True, False])
def test_batch_statistics_are_those_of_the_activations(
    conditional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean over ten batches of the mean and the variance before each normalization."""
    monkeypatch.setattr(averaged, "_ROWS", 30)
    settings = TrainSettings(**(TINY | {"seed": 3, "conditional": conditional}))
    average = AveragedGenerator(settings)
    network = average.network
    norms = [x for x in network.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 3
    for norm in norms:  # what was there before must not shine through
        norm.moving_mean.assign(norm.moving_mean + 100.0)
    momenta = [norm.momentum for norm in norms]
    given = random_weights(network)

    average.set_weights(given)
    assert same(weights(network), [weight.numpy() for weight in given])
    assert [norm.momentum for norm in norms] == momenta == [0.9] * 3
    found = [(norm.moving_mean.numpy(), norm.moving_variance.numpy()) for norm in norms]

    probe = keras.Model(network.inputs, [norm.input for norm in norms])
    activations = []
    for batch in range(10):
        seed = tf.random.experimental.stateless_fold_in(tf.constant([3, -1]), batch)
        latent = tf.random.stateless_normal([30, 8], seed)
        inputs = [latent, tf.range(30) % 10][: len(network.inputs)]
        outputs = probe(inputs, training=True)
        activations.append([x.numpy().astype(np.float64) for x in outputs])
    for layer, (mean, variance) in enumerate(found):
        means = [batch[layer].mean(axis=(0, 1, 2)) for batch in activations]
        variances = [batch[layer].var(axis=(0, 1, 2)) for batch in activations]
        np.testing.assert_allclose(mean, np.mean(means, axis=0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(variance, np.mean(variances, axis=0), rtol=1e-3, atol=1e-4)
    average.set_weights(given)
    again = [(norm.moving_mean.numpy(), norm.moving_variance.numpy()) for norm in norms]
    assert_close([x for pair in again for x in pair], [x for pair in found for x in pair])


def test_pictures_come_from_the_average_and_from_the_same_latents(make, monkeypatch) -> None:
    monkeypatch.setattr(averaged, "_ROWS", 30)
    trainer = make()
    first = trainer.sample(np.arange(20) % 10)
    assert (first.shape, first.dtype) == ((20, 28, 28, 1), np.uint8)
    for variable in trainer.update.generator.trainable_variables:
        variable.assign(0 * variable.value)
    np.testing.assert_array_equal(first, trainer.sample(np.arange(20) % 10))
    given = random_weights(trainer.average.network)
    for variable, weight in zip(trainer.update.average, given, strict=True):
        variable.assign(weight)
    other = trainer.sample(np.arange(20) % 10)
    assert not np.array_equal(first, other)

    # More pictures than are drawn at a time: each hangs on its place and its digit alone.
    average = trainer.average
    digits = np.arange(70) % 10
    many = average.draw(digits)
    assert many.shape == (70, 28, 28, 1)
    np.testing.assert_array_equal(many[:20], other)
    np.testing.assert_array_equal(average.draw(digits[:35]), many[:35])
    assert len({picture.tobytes() for picture in many}) == 70
    changed = average.draw(np.where(np.arange(70) == 40, 9, digits))
    assert [i for i in range(70) if not np.array_equal(changed[i], many[i])] == [40]


def test_a_trained_generator_draws_from_wider_latents() -> None:
    """As if the weights at the latent were that much larger."""
    wide, narrow = (
        AveragedGenerator(
            TrainSettings(**(TINY | {"latent_scale": width, "generator_output": "tanh"}))
        )
        for width in (1.5, 1.0)
    )
    plain = narrow.draw(np.arange(20) % 10)
    kernel = narrow.network.get_layer(PROJECTION).kernel
    kernel.assign(tf.concat([1.5 * kernel[:8], kernel[8:]], axis=0))
    drawn = wide.draw(np.arange(20) % 10).astype(int)
    assert (drawn != plain).mean() > 0.3
    assert np.abs(drawn - narrow.draw(np.arange(20) % 10)).max() <= 1


def test_without_batch_statistics_there_is_nothing_to_recompute(monkeypatch) -> None:
    average = AveragedGenerator(TrainSettings(**(TINY | {"generator_normalization": "none"})))
    monkeypatch.setattr(average, "_latent", None)
    given = random_weights(average.network)
    average.set_weights(given)
    assert same(weights(average.network), [weight.numpy() for weight in given])


# ------------------------------------------------------------------------------ the loop


class Script:
    """Held-out digits that find what they are told to find."""

    def __init__(self, fids: Sequence[float]) -> None:
        self.labels = np.arange(20) % 10
        self.fids = list(fids)
        self.asked: list[np.ndarray] = []

    def judge(self, images: np.ndarray, asked: np.ndarray) -> Judgement:
        assert images.shape == (20, 28, 28, 1)
        self.asked.append(asked)
        return Judgement(self.fids.pop(0), 1.0, (0.1,) * 10, 1.0, 0.1)


EACH_CALL = {"steps_per_execution": 1, "report_seconds": 1e-9}


def replace_update(trainer: GanTrainer, update: Callable[[tf.Tensor], tf.Tensor]) -> None:
    """Has the training do something else in each update, and keep its variables."""
    called = {"__call__": lambda self, deviation: update(deviation)}
    trainer.update.__class__ = type("ReplacedUpdate", (GanUpdate,), called)


def counting(trainer: GanTrainer) -> GanTrainer:
    """In place of learning, each update adds 1 to the average; the loop around it is the same."""

    def update(deviation: tf.Tensor) -> tf.Tensor:
        for variable in trainer.update.average:
            variable.assign_add(tf.ones_like(variable))
        return tf.stack([deviation, 2.0, 3.0, 4.0])

    for variable in trainer.update.average:
        variable.assign(tf.zeros_like(variable))
    replace_update(trainer, update)
    return trainer


def exported(trainer: GanTrainer) -> float:
    """How many updates the generator to export has seen."""
    (value,) = {float(x) for w in weights(trainer.best.network) for x in w.flat}
    return value


@pytest.fixture
def quick(eagerly: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(averaged, "_ROWS", 20)


def test_every_call_is_reported_and_rates_and_noise_fall(make, quick: None) -> None:
    """Flat until half of the budget is used, then straight to a quarter at its end."""
    trainer = counting(
        make(
            **EACH_CALL,
            max_steps=8,
            generator_learning_rate=1e-2,
            discriminator_learning_rate=2e-3,
            final_learning_rate=0.25,
            instance_noise=0.8,
        )
    )
    reports, rates = list[Progress](), []
    for progress in trainer.fit():
        reports.append(progress)
        optimizers = trainer.update.generator_optimizer, trainer.update.discriminator_optimizer
        rates.append([float(optimizer.learning_rate) for optimizer in optimizers])
    assert [progress.step for progress in reports] == list(range(1, 9))
    assert [progress.fraction for progress in reports] == [i / 8 for i in range(1, 9)]
    assert all(progress.steps_per_second > 0 for progress in reports)
    assert [list(progress.scalars) for progress in reports] == [
        ["discriminator_loss", "generator_loss", "real_logit", "fake_logit"]
    ] * 8
    shares = [1, 1, 1, 1, 1, 1 - 0.75 / 4, 1 - 0.75 / 2, 1 - 0.75 * 3 / 4]
    np.testing.assert_allclose(rates, [(1e-2 * s, 2e-3 * s) for s in shares], rtol=1e-6)
    noise = [progress.scalars["discriminator_loss"] for progress in reports]
    np.testing.assert_allclose(noise, [0.8 * (1 - i / 8) for i in range(8)], rtol=1e-6)
    assert (trainer.step, exported(trainer)) == (8, 8)
    assert list(trainer.fit()) == []
    assert trainer.step == 8


def test_updates_in_one_call_or_in_many(make, make_update) -> None:
    """A graph of three updates a call, of five that do not divide into threes, and no graph."""
    changed = SGD | {"max_steps": 5, "final_learning_rate": 1.0, "penalty_interval": 2}
    trainer, update = make(**changed, steps_per_execution=3), make_update(**changed)
    reports = list(trainer.fit())
    assert reports[-1].step == trainer.step == 5
    assert reports[-1].fraction == 1.0
    scalars = run(update, 5)
    found = list(reports[-1].scalars.values())  # of the last call, of two updates
    np.testing.assert_allclose(found, np.mean(scalars[3:], axis=0), rtol=1e-3, atol=1e-5)
    assert_close(both(trainer.update), both(update), rtol=5e-3, atol=5e-5)
    assert same(weights(trainer.best.network), [w.numpy() for w in trainer.update.average])


def test_a_budget_of_time_ends(make, quick: None) -> None:
    trainer = counting(make(max_seconds=0.3, max_steps=None, steps_per_execution=4))
    started = time.monotonic()
    reports = list(trainer.fit())
    assert 0.3 <= reports[-1].seconds <= time.monotonic() - started < 5
    assert reports[-1].fraction == 1.0
    assert reports[-1].step == trainer.step >= 1


def test_calls_are_as_long_as_fits_a_budget_of_time(make) -> None:
    timed = make(max_seconds=60, max_steps=None, steps_per_execution=32)
    assert timed._next_steps(1, 30.0) == 1  # the first call builds the graph
    assert timed._next_steps(1, 0.001) == 4
    assert timed._next_steps(16, 4.0) == 8
    assert timed._next_steps(16, 0.1) == 32
    assert make(steps_per_execution=32)._next_steps(32, 100.0) == 32


def test_the_best_is_kept_and_not_the_last(make, quick: None) -> None:
    script = Script([5.0, 3.0, 4.0, 3.5])
    trainer = counting(make(script, **EACH_CALL, max_steps=8, evaluations=4))
    reports = list(trainer.fit())
    assert script.fids == []
    fids = [progress.judgement and progress.judgement.fid for progress in reports]
    assert fids == [None, 5, 5, 3, 3, 4, 4, 3.5]
    assert exported(trainer) == 4
    for asked in script.asked:
        np.testing.assert_array_equal(asked, np.arange(20) % 10)


def test_the_best_has_the_batch_statistics_of_its_moment(make, quick: None) -> None:
    trainer = make(Script([1.0, 2.0]), **EACH_CALL, max_steps=2, evaluations=2)
    list(trainer.fit(None))
    last = trainer.average.network.get_weights()
    list_of_best = trainer.best.network.get_weights()
    again = AveragedGenerator(trainer.settings)
    names = [variable.name for variable in trainer.best.network.trainable_variables]
    assert "gamma" in names
    again.set_weights([tf.Variable(w) for w in weights(trainer.best.network)])
    assert_close(again.network.get_weights(), list_of_best)
    assert not same(last, list_of_best)


@pytest.mark.parametrize(
    ("fids", "patience", "steps"),
    [
        ([5, 4, 4.5, 4.5, 1, 1, 1, 1], 2, 4),
        ([5, 6, 1, 1, 1, 1, 1, 1], 1, 2),
        ([8, 7, 6, 5, 4, 3, 2, 1], 1, 8),
        ([5, 6, 4, 6, 3, 6, 2, 6], 2, 8),
        ([1, 2, 2, 2, 2, 2, 2, 2], None, 8),
    ],
)
def test_patience(make, quick: None, fids: list[float], patience: int | None, steps: int) -> None:
    recipe = EACH_CALL | {"max_steps": 8, "evaluations": 8, "patience": patience}
    trainer = counting(make(Script(fids), **recipe))
    reports = list(trainer.fit())
    assert reports[-1].step == trainer.step == steps
    assert exported(trainer) == 1 + int(np.argmin(fids[:steps]))


def test_a_call_across_many_evaluations_makes_one(make, quick: None) -> None:
    script = Script([5.0, 4.0])
    trainer = counting(make(script, max_steps=8, steps_per_execution=5, evaluations=8))
    list(trainer.fit())
    assert script.fids == []
    assert exported(trainer) == 8


def test_evaluations_without_held_out_digits_or_the_reverse(make, quick: None) -> None:
    for trainer in (make(max_steps=3), make(Script([]), max_steps=3, evaluations=0)):
        assert list(counting(trainer).fit())[-1].judgement is None
        assert exported(trainer) == 3


def interrupted(trainer: GanTrainer, at: int, checkpoints: Checkpoints | None) -> str:
    reports = trainer.fit(checkpoints)
    assert [next(reports).step for _ in range(at)] == list(range(1, at + 1))
    trainer.stop_requested = True
    with pytest.raises(InterruptedTrainingError) as caught:
        next(reports)
    return str(caught.value)


def test_a_training_that_is_stopped_goes_on(make, quick: None, tmp_path: Path) -> None:
    """Evaluations, patience and the best so far included."""
    recipe = EACH_CALL | {"max_steps": 10, "evaluations": 10, "patience": 3}

    def start(fids: list[float]) -> tuple[GanTrainer, Checkpoints]:
        trainer = counting(make(Script(fids), **recipe))
        return trainer, Checkpoints(str(tmp_path), "key", trainer.variables())

    trainer, checkpoints = start([9, 8, 3, 5, 6])
    message = interrupted(trainer, 4, checkpoints)
    assert "stopped at step 5" in message
    assert "run again" in message
    trainer, checkpoints = start([4, 1])
    reports = list(trainer.fit(checkpoints))
    # The third was the best, and the sixth the third since.
    assert [progress.step for progress in reports] == [6]
    assert reports[0].fraction == 0.6
    assert exported(trainer) == 3
    assert trainer._held_out.fids == [1]


def test_a_training_that_is_stopped_without_checkpoints_says_so(make, quick: None) -> None:
    trainer = counting(make(**EACH_CALL, max_steps=10))
    assert interrupted(trainer, 1, None).endswith("step 2; nothing was kept")


def test_a_stop_after_the_last_call_changes_nothing(make, quick: None) -> None:
    trainer = counting(make(max_steps=3, steps_per_execution=3))
    trainer.stop_requested = True
    assert [progress.step for progress in trainer.fit()] == [3]
    assert exported(trainer) == 3


def test_seconds_go_on_counting_and_what_is_exported_was_trained(
    make, quick: None, tmp_path: Path
) -> None:
    """Cut off after the budget of time but before its only evaluation."""
    recipe: dict[str, Any] = {"max_seconds": 50, "max_steps": None, "evaluations": 1}
    trainer = counting(make(Script([]), **recipe))
    trainer.run_steps(3, 0.0)
    extra = {"seconds": 50.1, "fids": [], "evaluated": 0, "course": {}}
    Checkpoints(str(tmp_path), "key", trainer.variables()).save(3, extra)
    again = counting(make(Script([1.0]), **recipe))
    list(again.fit(Checkpoints(str(tmp_path), "key", again.variables())))
    assert (again.step, exported(again)) == (3, 3)


def test_checkpoints_come_at_their_interval(make, quick: None, tmp_path: Path) -> None:
    for seconds, expected in ((1e-9, [2, 4, 6]), (3600, [])):
        recipe = {"max_steps": 8, "steps_per_execution": 2, "checkpoint_seconds": seconds}
        trainer = counting(make(**recipe))
        checkpoints, saved = Checkpoints(str(tmp_path), "key", trainer.variables()), []
        checkpoints.save = lambda step, extra, saved=saved: saved.append((step, json.dumps(extra)))
        list(trainer.fit(checkpoints))
        assert [step for step, _ in saved] == expected


@pytest.mark.slow
def test_divergence_is_an_error_that_helps(make, eagerly: None) -> None:
    trainer = make(
        max_steps=200,
        steps_per_execution=50,
        optimizer="sgd",
        loss="least_squares",
        generator_learning_rate=1.0,
        discriminator_learning_rate=1.0,
        r1_weight=1000,
        penalty_interval=1,
        discriminator_activation="relu",
    )
    with pytest.raises(NonFiniteLossError) as caught:
        list(trainer.fit())
    message = str(caught.value)
    assert f"diverged before step {trainer.step}: discriminator_loss " in message
    assert "nan" in message or "inf" in message
    named = re.findall(r"train\.(\w+)", message)
    rates = ["generator_learning_rate", "discriminator_learning_rate"]
    assert named == [*rates, "r1_weight", "loss"]
    assert set(named) <= TrainSettings.model_fields.keys()


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_any_scalar_that_is_not_finite_ends_the_training(
    make, quick: None, place: int, value: float
) -> None:
    trainer = make(max_steps=4)
    scalars = [1.0] * 4
    scalars[place] = value
    replace_update(trainer, lambda deviation: tf.constant(scalars))
    with pytest.raises(NonFiniteLossError, match=f"{value:g}"):
        trainer.run_steps(2, 0.0)
