"""The losses: known values, their formulas again in numpy, and which way they pull."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.gan.losses import LOSSES
from models.gan.settings import TrainSettings

REAL, FAKE = [2.0, -1.0, 0.5], [-3.0, 0.25, 1.5]
LOGIT = st.floats(-30, 30, width=32)
PAIRS = st.lists(st.tuples(LOGIT, LOGIT), min_size=1, max_size=6)


def minus_log_sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, -logits)


def cross_entropy(real: np.ndarray, fake: np.ndarray, target: float = 1.0) -> float:
    kept = target * minus_log_sigmoid(real) + (1 - target) * minus_log_sigmoid(-real)
    return kept.mean() + minus_log_sigmoid(-fake).mean()


Formula = Callable[[np.ndarray, np.ndarray], float]
FORMULAS: dict[str, tuple[Formula, Formula]] = {
    "non_saturating": (cross_entropy, lambda real, fake: minus_log_sigmoid(fake).mean()),
    # log(1 - D(G(z))), which the generator minimizes
    "minimax": (cross_entropy, lambda real, fake: -minus_log_sigmoid(-fake).mean()),
    "least_squares": (
        lambda real, fake: ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2,
        lambda real, fake: ((fake - 1) ** 2).mean() / 2,
    ),
    "hinge": (
        lambda real, fake: np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean(),
        lambda real, fake: -fake.mean(),
    ),
    "wasserstein": (
        lambda real, fake: fake.mean() - real.mean(),
        lambda real, fake: -fake.mean(),
    ),
    "relativistic": (
        lambda real, fake: minus_log_sigmoid(real - fake).mean(),
        lambda real, fake: minus_log_sigmoid(fake - real).mean(),
    ),
}


def test_every_loss_is_checked() -> None:
    assert set(FORMULAS) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS)
def test_losses_by_their_formulas(name: str, pairs: list[tuple[float, float]]) -> None:
    real, fake = np.array(pairs).T
    logits = tf.constant(real, tf.float32), tf.constant(fake, tf.float32)
    losses = LOSSES[name].discriminator(*logits, 1.0), LOSSES[name].generator(*logits)
    for loss, formula in zip(losses, FORMULAS[name], strict=True):
        assert loss.shape == ()
        assert loss.dtype == tf.float32
        assert float(loss) == pytest.approx(formula(real, fake), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("non_saturating", 2 * math.log(2), math.log(2)),
        ("minimax", 2 * math.log(2), -math.log(2)),
        ("least_squares", 0.5, 0.5),
        ("hinge", 2.0, 0.0),
        ("wasserstein", 0.0, 0.0),
        ("relativistic", math.log(2), math.log(2)),
    ],
)
def test_a_discriminator_that_does_not_know(
    name: str, discriminator: float, generator: float
) -> None:
    nothing = tf.zeros(4)
    pair = LOSSES[name]
    assert float(pair.discriminator(nothing, nothing, 1.0)) == pytest.approx(discriminator)
    assert float(pair.generator(nothing, nothing)) == pytest.approx(generator)


@pytest.mark.parametrize("name", ["non_saturating", "minimax"])
def test_smoothing_is_of_the_real_side_only(name: str) -> None:
    loss, real, fake = LOSSES[name].discriminator, np.array(REAL), np.array(FAKE)
    smooth = float(loss(tf.constant(REAL), tf.constant(FAKE), 0.9))
    assert smooth == pytest.approx(cross_entropy(real, fake, 0.9))
    assert smooth != pytest.approx(cross_entropy(real, fake))
    # Its best real logit is log(0.9 / 0.1) and no longer infinite.
    logit = tf.Variable([math.log(9.0)])
    with tf.GradientTape() as tape:
        value = loss(logit, tf.constant([-50.0]), 0.9)
    assert tape.gradient(value, logit).numpy() == pytest.approx([0.0], abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_which_losses_depend_on_the_real_target(name: str) -> None:
    values = {
        float(LOSSES[name].discriminator(tf.constant(REAL), tf.constant(FAKE), t)) for t in (0.9, 1)
    }
    assert LOSSES[name].smooths_labels == (len(values) == 2)


@pytest.mark.parametrize("name", LOSSES)
def test_settings_refuse_label_smoothing_that_has_no_effect(name: str) -> None:
    try:
        TrainSettings(loss=name, label_smoothing=0.1)
        accepted = True
    except ValidationError:
        accepted = False
    assert accepted == LOSSES[name].smooths_labels


@pytest.mark.parametrize("name", LOSSES)
def test_each_network_pulls_its_way(name: str) -> None:
    """The discriminator raises real and lowers fake logits; the generator raises fake ones."""
    real, fake = tf.Variable([0.5, -0.5]), tf.Variable([0.5, -0.5])
    with tf.GradientTape(persistent=True) as tape:
        discriminator = LOSSES[name].discriminator(real, fake, 1.0)
        generator = LOSSES[name].generator(real, fake)
    assert (tape.gradient(discriminator, real).numpy() < 0).all()
    fake_gradient = tape.gradient(discriminator, fake).numpy()
    if name == "least_squares":  # its fake logits are drawn to 0 from both sides
        assert np.sign(fake_gradient).tolist() == [1, -1]
    else:
        assert (fake_gradient > 0).all()
    assert (tape.gradient(generator, fake).numpy() < 0).all()


def test_non_saturating_learns_where_minimax_does_not() -> None:
    gradients = {}
    for name in ("non_saturating", "minimax"):
        fake = tf.Variable([-10.0])
        with tf.GradientTape() as tape:
            loss = LOSSES[name].generator(tf.zeros(1), fake)
        gradients[name] = float(tape.gradient(loss, fake)[0])
    assert gradients["non_saturating"] == pytest.approx(-1, abs=1e-4)
    assert gradients["minimax"] == pytest.approx(-1 / (1 + math.exp(10)), rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_huge_logits_stay_finite(name: str) -> None:
    huge = tf.Variable([1e4, -1e4])
    with tf.GradientTape(persistent=True) as tape:
        losses = [
            LOSSES[name].discriminator(huge, huge[::-1], 0.9),
            LOSSES[name].generator(huge, huge[::-1]),
        ]
    for loss in losses:
        assert math.isfinite(float(loss))
        assert np.isfinite(tape.gradient(loss, huge).numpy()).all()
