"""The variables of a training: all of them, each once, under loss scaling too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from gan_helpers import TINY, make_update

from models.gan.checkpoints import Checkpoints
from models.gan.networks import PROJECTION
from models.gan.settings import TrainSettings
from models.gan.state import GanState


def test_a_tied_kernel_is_saved_and_restored_once(digits, eagerly: None, tmp_path: Path) -> None:
    update, other = (make_update(digits, tie_projection=True, seed=seed) for seed in (0, 1))
    kernel = update.gan.generator.get_layer(PROJECTION).kernel
    variables = update.gan.variables()
    assert sum(variable is kernel.value for variable in variables.values()) == 1
    update.run(2)
    Checkpoints(str(tmp_path), "key", variables).save(2, {})
    assert Checkpoints(str(tmp_path), "key", other.gan.variables()).restore() == (2, {})
    for name in ("generator", "discriminator"):
        networks = getattr(update.gan, name), getattr(other.gan, name)
        for a, b in zip(*(network.variables for network in networks), strict=True):
            np.testing.assert_array_equal(a, b)
    assert int(other.gan.step) == int(other.gan.total_steps) == 2


def test_the_state_of_loss_scaling_is_part_of_the_state() -> None:
    gan = GanState(TrainSettings(**TINY), "mixed_float16")
    named = {id(variable) for variable in gan.variables().values()}
    for optimizer in (gan.generator_optimizer, gan.discriminator_optimizer):
        for variable in (optimizer.dynamic_scale, optimizer.step_counter):
            assert id(variable.value) in named
        assert id(optimizer.inner_optimizer.iterations.value) in named
    gan.set_learning_rates(tf.constant(0.5))
    rate = gan.generator_optimizer.inner_optimizer.learning_rate
    assert float(rate) == pytest.approx(0.5 * gan.settings.generator_learning_rate)


@pytest.mark.parametrize(
    ("changed", "part"),
    [({"dropout": 0.2}, "seed"), ({"discriminator_normalization": "spectral"}, "left")],
)
def test_every_variable_is_part_of_the_state(changed: dict[str, Any], part: str) -> None:
    gan = GanState(TrainSettings(**(TINY | changed)))
    named = {id(variable) for variable in gan.variables().values()}
    holders = (
        gan.generator,
        gan.discriminator,
        gan.generator_optimizer,
        gan.discriminator_optimizer,
    )
    for variable in (v for holder in holders for v in holder.variables):
        assert id(variable.value) in named
    for variable in (*gan.ema, gan.step, gan.total_steps):
        assert id(variable) in named
    assert any(part in variable.path for variable in gan.discriminator.variables)


def test_a_warm_start_takes_everything_but_the_step() -> None:
    gan = GanState(TrainSettings(**TINY))
    assert gan.variables().keys() - gan.warm_start_variables().keys() == {"step_000"}
