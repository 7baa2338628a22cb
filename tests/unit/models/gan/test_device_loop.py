"""Many updates per call: schedules, compilation, and the end of a training that diverges."""

import math
import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from gan_helpers import SGD, TINY, assert_close, forty, make_update

from models.gan.batches import TrainingData
from models.gan.device_loop import DeviceLoop, NonFiniteLossError
from models.gan.settings import TrainSettings
from models.gan.state import GanState
from models.gan.update import SCALARS, update_networks


def make_loop(digits, update: Any = update_networks, **changed: Any) -> tuple[DeviceLoop, GanState]:
    settings = TrainSettings(**(TINY | changed))
    gan, data = GanState(settings), TrainingData(settings, *forty(digits))
    return DeviceLoop(gan, data, tf.distribute.get_strategy(), update), gan


def test_learning_rates_and_noise_follow_the_fraction(digits, eagerly: None) -> None:
    """Constant over the first half of the budget, then linear to a quarter; the noise to 0."""
    rates = {"generator_learning_rate": 1e-2, "discriminator_learning_rate": 2e-3}
    loop, gan = make_loop(
        digits,
        lambda gan, data, noise_std: tf.stack([noise_std, 2.0, 3.0, 4.0]),
        **rates,
        final_learning_rate_factor=0.25,
        instance_noise=0.8,
    )
    for fraction, factor in ((0.0, 1), (0.5, 1), (0.625, 1 - 0.75 / 4), (1.0, 0.25)):
        scalars = loop.run(2, fraction)
        assert list(scalars) == list(SCALARS)
        expected = [0.8 * (1 - fraction), 2, 3, 4]
        np.testing.assert_allclose(list(scalars.values()), expected, rtol=1e-6)
        optimizers = gan.generator_optimizer, gan.discriminator_optimizer
        found = [float(optimizer.learning_rate) for optimizer in optimizers]
        np.testing.assert_allclose(found, [factor * rate for rate in rates.values()], 1e-6)
    assert int(gan.step) == int(gan.total_steps) == 8


def test_xla_computes_the_same(digits, monkeypatch: pytest.MonkeyPatch) -> None:
    """With latents that do not depend on XLA, which draws other random numbers."""

    def spread(settings: TrainSettings, count: int, seed: tf.Tensor) -> tf.Tensor:
        positions = tf.reshape(tf.range(float(count * settings.latent_dim)), [count, -1])
        return tf.sin(37.0 * positions + tf.cast(seed[1], tf.float32))

    monkeypatch.setattr("models.gan.batches.draw_latent", spread)
    recipe = SGD | {"r1_weight": 0.5, "penalty_interval": 2}
    loop, gan = make_loop(digits, xla="on", **recipe)
    update = make_update(digits, **recipe)
    scalars = loop.run(2, 0.0)
    expected = np.mean(update.run(2), axis=0)
    np.testing.assert_allclose(list(scalars.values()), expected, rtol=1e-3, atol=1e-5)
    found = [v.numpy() for n in (gan.generator, gan.discriminator) for v in n.trainable_variables]
    assert_close(found, update.weights(), rtol=5e-3, atol=2e-5)


def test_xla_compiles_once_for_calls_of_any_length(digits) -> None:
    """The compiled loop reads the number of updates; one loop per number would cost seconds."""
    fraction = tf.constant(0.0)
    loop, _ = make_loop(digits, xla="on")
    compiled = {
        loop.function.experimental_get_compiler_ir(tf.constant(steps), fraction)("hlo")
        for steps in (1, 4, 7)
    }
    assert len(compiled) == 1
    loop, _ = make_loop(digits, xla="off")
    with pytest.raises(ValueError, match="jit_compile"):
        loop.function.experimental_get_compiler_ir(tf.constant(1), fraction)


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_any_scalar_that_is_not_finite_is_divergence(
    digits, eagerly: None, position: int, value: float
) -> None:
    scalars = [1.0] * 4
    scalars[position] = value
    loop, _ = make_loop(digits, lambda gan, data, noise_std: tf.constant(scalars))
    with pytest.raises(NonFiniteLossError, match=f"{value:g}") as caught:
        loop.run(2, 0.0)
    named = re.findall(r"train\.(\w+)", str(caught.value))
    assert {"loss", "r1_weight"} < set(named) <= TrainSettings.model_fields.keys()
