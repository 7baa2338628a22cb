"""The training loop on a few digits: its counting, its streams, its averages, its recipes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.gan.settings import TrainSettings
from models.gan.training import GanTrainer, NonFiniteLossError, Progress, draw_latent

TINY: dict[str, Any] = {
    "max_seconds": None,
    "max_steps": 2,
    "batch_size": 8,
    "latent_dim": 8,
    "generator_channels": (8, 4, 4),
    "discriminator_channels": (4, 4, 8),
}
Weights = list[np.ndarray]


@dataclass
class Recorded:
    """A training of one update per call, and what it held before the first and after each."""

    trainer: GanTrainer
    reports: list[Progress]
    generator: list[Weights]
    average: list[Weights]
    rates: list[tuple[float, float]]


@pytest.fixture(scope="module")
def make(digits: tuple[np.ndarray, np.ndarray]):
    def trainer(**changed: Any) -> GanTrainer:
        images, labels = digits
        return GanTrainer(
            TrainSettings(**(TINY | changed)), images[:200, ..., np.newaxis], labels[:200]
        )

    return trainer


RECORDED: dict[str, Any] = {
    "max_steps": 8,
    "steps_per_call": 1,
    "report_seconds": 1e-9,
    "r1_interval": 3,
    "ema_decay": 0.4,
    "generator_learning_rate": 1e-2,
    "discriminator_learning_rate": 2e-3,
    "final_learning_rate": 0.25,
}


@pytest.fixture(scope="module")
def recorded(make) -> Recorded:
    trainer = make(**RECORDED)
    record = Recorded(trainer, [], [variables(trainer.generator)], [variables(trainer.average)], [])
    for progress in trainer.fit():
        record.reports.append(progress)
        record.generator.append(variables(trainer.generator))
        record.average.append(variables(trainer.average))
        optimisers = trainer._generator_optimiser, trainer._discriminator_optimiser
        record.rates.append(tuple(float(x.learning_rate) for x in optimisers))
    return record


@pytest.fixture
def eagerly() -> Iterator[None]:
    """The same code without the seconds that building a graph takes."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def variables(network: keras.Model) -> Weights:
    return [variable.numpy() for variable in network.trainable_variables]


def same(a: Weights, b: Weights) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_every_call_is_reported(recorded: Recorded) -> None:
    assert [progress.step for progress in recorded.reports] == list(range(1, 9))
    assert [progress.fraction for progress in recorded.reports] == [i / 8 for i in range(1, 9)]
    assert int(recorded.trainer.step) == 8
    for progress in recorded.reports:
        assert progress.steps_per_second > 0
        assert np.isfinite(list(progress.scalars.values())).all()


def test_the_average_follows_its_recurrence(recorded: Recorded) -> None:
    """Decay min(0.4, (1 + t) / (10 + t)): the early weights are soon forgotten."""
    average = [weights.astype(np.float64) for weights in recorded.generator[0]]
    assert same(recorded.average[0], recorded.generator[0])
    decays = [min(0.4, (1 + step) / (10 + step)) for step in range(1, 9)]
    assert decays[0] == 2 / 11 < decays[4] == 0.4 == decays[-1]
    for step, decay in enumerate(decays, start=1):
        current = recorded.generator[step]
        average = [decay * a + (1 - decay) * w for a, w in zip(average, current, strict=True)]
        for expected, found in zip(average, recorded.average[step], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert not same(recorded.average[-1], recorded.generator[-1])


def test_the_rates_fall_in_the_second_half(recorded: Recorded) -> None:
    """Flat until half of the budget is used, then straight to a quarter at its end."""
    shares = [1, 1, 1, 1, 1, 1 - 0.75 / 4, 1 - 0.75 / 2, 1 - 0.75 * 3 / 4]
    np.testing.assert_allclose(
        recorded.rates, [(1e-2 * share, 2e-3 * share) for share in shares], rtol=1e-6
    )


def test_one_seed_gives_one_training(make, recorded: Recorded) -> None:
    again, first = make(**RECORDED), recorded.trainer
    list(again.fit())
    assert same(variables(again.generator), recorded.generator[-1])
    assert same(variables(again.average), recorded.average[-1])
    assert same(variables(again.discriminator), variables(first.discriminator))
    assert not same(recorded.generator[0], recorded.generator[-1])


def test_a_seed_sets_weights_and_batches(make, eagerly: None) -> None:
    first, second, third = (make(seed=seed, max_steps=1) for seed in (0, 1, 1))
    assert not same(variables(first.generator), variables(second.generator))
    assert not same(variables(first.discriminator), variables(second.discriminator))
    for other in (second, third):
        other.generator.set_weights(first.generator.get_weights())
        other.discriminator.set_weights(first.discriminator.get_weights())
    for trainer in (first, second, third):
        list(trainer.fit())
    assert same(variables(second.generator), variables(third.generator))
    for network in ("generator", "discriminator"):
        assert not same(variables(getattr(first, network)), variables(getattr(second, network)))


def test_updates_in_one_call_or_in_many(make, recorded: Recorded) -> None:
    """With a flat rate the host calls make no difference; five do not divide into threes."""
    flat = {"max_steps": 5, "final_learning_rate": 1.0, "steps_per_call": 3}
    trainer = make(**(RECORDED | flat))
    reports = list(trainer.fit())
    assert reports[-1].step == int(trainer.step) == 5
    assert reports[-1].fraction == 1.0
    for found, expected in zip(variables(trainer.generator), recorded.generator[5], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_budget_of_time_ends(make, eagerly: None) -> None:
    reports = list(make(max_seconds=1e-6, max_steps=None, steps_per_call=4).fit())
    assert len(reports) == 1
    assert reports[0].fraction == 1.0
    assert 1 <= reports[0].step <= 4


def test_a_budget_that_is_used_up_trains_no_further(recorded: Recorded) -> None:
    assert list(recorded.trainer.fit()) == []
    assert int(recorded.trainer.step) == 8


@pytest.mark.parametrize("batches", [1, 3])
def test_refreshed_statistics_are_those_of_the_activations(make, batches: int) -> None:
    trainer = make(seed=3)
    generator = np.random.default_rng(0)
    average = trainer.average
    for variable in average.trainable_variables:
        variable.assign(generator.normal(0.1, 0.4, variable.shape))
    norms = [x for x in average.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 3
    for norm in norms:  # what training left must not shine through
        norm.moving_mean.assign(norm.moving_mean + 100.0)
    before, momenta = variables(average), [norm.momentum for norm in norms]

    trainer.refresh_average(batches=batches, batch_size=30)
    found = [(norm.moving_mean.numpy(), norm.moving_variance.numpy()) for norm in norms]

    assert same(variables(average), before)
    assert [norm.momentum for norm in norms] == momenta
    probe = keras.Model(average.inputs, [norm.input for norm in norms])
    latents = [draw_latent(trainer.settings, 30, tf.constant([3, i])) for i in range(batches)]
    activations = [
        [x.numpy().astype(np.float64) for x in probe([latent, tf.range(30) % 10], training=True)]
        for latent in latents
    ]
    for layer, (mean, variance) in enumerate(found):
        means = [batch[layer].mean(axis=(0, 1, 2)) for batch in activations]
        variances = [batch[layer].var(axis=(0, 1, 2)) for batch in activations]
        np.testing.assert_allclose(mean, np.mean(means, axis=0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(variance, np.mean(variances, axis=0), rtol=1e-3, atol=1e-4)
    trainer.refresh_average(batches=batches, batch_size=30)
    for norm, (mean, variance) in zip(norms, found, strict=True):
        np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-4, atol=1e-5)


def test_refreshing_without_batch_statistics(make) -> None:
    trainer = make(generator_normalisation="none")
    before = variables(trainer.average)
    trainer.refresh_average()
    assert same(variables(trainer.average), before)


def test_samples_come_from_the_average_in_rows_of_digits(make) -> None:
    trainer = make()
    first = trainer.sample(rows=2)
    assert (first.shape, first.dtype) == ((20, 28, 28, 1), np.uint8)
    np.testing.assert_array_equal(first, trainer.sample(rows=2))
    trainer.generator.set_weights([0 * weights for weights in trainer.generator.get_weights()])
    np.testing.assert_array_equal(first, trainer.sample(rows=2))
    # The latent's part of the first layer silenced, all that is left is the digit.
    kernel = trainer.average.get_layer("project").kernel
    kernel.assign(np.where(np.arange(18)[:, np.newaxis] < 8, 0.0, 5 * kernel.numpy()))
    digits = trainer.sample(rows=2)
    np.testing.assert_array_equal(digits[:10], digits[10:])
    assert len({picture.tobytes() for picture in digits}) == 10


def test_divergence_is_an_error_that_helps(make) -> None:
    trainer = make(
        max_steps=200,
        steps_per_call=50,
        optimiser="sgd",
        loss="least_squares",
        generator_learning_rate=1.0,
        discriminator_learning_rate=1.0,
        r1_weight=1000,
        r1_interval=1,
        discriminator_activation="relu",
    )
    with pytest.raises(NonFiniteLossError) as caught:
        list(trainer.fit())
    message = str(caught.value)
    assert f"diverged before step {int(trainer.step)}: discriminator_loss " in message
    assert "nan" in message or "inf" in message
    for name in ("generator_learning_rate", "discriminator_learning_rate", "r1_weight", "loss"):
        assert f"train.{name}" in message
        assert name in TrainSettings.model_fields


def test_a_lazy_penalty_is_rarer_and_as_much_stronger(make, eagerly: None) -> None:
    each = {"steps_per_call": 1, "report_seconds": 1e-9, "optimiser": "sgd"}
    lazy, eager = make(r1_weight=1, r1_interval=4, **each), make(r1_weight=4, r1_interval=1, **each)
    alike = []
    for _ in zip(lazy.fit(), eager.fit(), strict=True):
        pairs = zip(variables(lazy.discriminator), variables(eager.discriminator), strict=True)
        alike.append(all(np.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in pairs))
    assert alike == [True, False]


def to_image(trainer: GanTrainer) -> np.ndarray:
    """Weights of the generator's last layer, which has one shape in every recipe."""
    return trainer.generator.get_layer("to_image").kernel.numpy()


@pytest.fixture(scope="module")
def plain_result(make) -> np.ndarray:
    trainer = make(r1_weight=0)
    tf.config.run_functions_eagerly(True)
    list(trainer.fit())
    tf.config.run_functions_eagerly(False)
    return to_image(trainer)


@pytest.mark.parametrize(
    "changed",
    [
        {"r1_weight": 2.0},
        {"conditional": False},
        {"latent": "uniform"},
        {"discriminator_normalisation": "batch"},
        {"generator_normalisation": "none"},
        {"dropout": 0.3},
        {"instance_noise": 0.5},
        {"label_smoothing": 0.1},
        {"initialisation": "normal"},
        {"generator_activation": "elu"},
        {"optimiser": "sgd"},
        {"optimiser": "momentum"},
        {"optimiser": "rmsprop"},
        {"loss": "minimax"},
        {"loss": "least_squares"},
        {"loss": "hinge"},
    ],
    ids=lambda changed: "-".join(f"{key}={value}" for key, value in changed.items()),
)
def test_each_setting_trains_and_has_an_effect(
    make, eagerly: None, plain_result: np.ndarray, changed: dict[str, Any]
) -> None:
    trainer = make(**({"r1_weight": 0} | changed))
    (progress,) = trainer.fit()
    assert progress.step == 2
    for network in (trainer.generator, trainer.discriminator, trainer.average):
        assert all(np.isfinite(weights).all() for weights in network.get_weights())
    assert not np.array_equal(to_image(trainer), plain_result)


CLASSIC: dict[str, Any] = {
    "conditional": False,
    "latent": "uniform",
    "initialisation": "normal",
    "generator_activation": "leaky_relu",
    "discriminator_normalisation": "batch",
    "dropout": 0.3,
    "instance_noise": 0.1,
}


def test_a_classic_recipe_as_a_graph(make) -> None:
    recipe = CLASSIC | {"loss": "minimax", "label_smoothing": 0.1, "optimiser": "momentum"}
    trainer = make(**recipe, max_steps=3, steps_per_call=2)
    before = [variables(network) for network in (trainer.generator, trainer.discriminator)]
    progress = list(trainer.fit())[-1]
    assert progress.step == int(trainer.step) == 3
    assert np.isfinite(list(progress.scalars.values())).all()
    for old, network in zip(before, (trainer.generator, trainer.discriminator), strict=True):
        assert not same(old, variables(network))
        assert all(np.isfinite(weights).all() for weights in network.get_weights())
