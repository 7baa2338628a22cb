"""The losses, by hand, and the gradient penalty, in closed form and by differences."""

import math
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.gan.losses import LOSSES, r1_penalty

REAL, FAKE = [2.0, -1.0, 0.5], [-3.0, 0.25, 1.5]
LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=6)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def minus_log_sigmoid(logit: float) -> float:
    """-log D, written so that it does not overflow."""
    return math.log1p(math.exp(-logit)) if logit > 0 else -logit + math.log1p(math.exp(logit))


def cross_entropy(real: list[float], fake: list[float], target: float = 1.0) -> float:
    kept = mean(
        [target * minus_log_sigmoid(x) + (1 - target) * minus_log_sigmoid(-x) for x in real]
    )
    return kept + mean([minus_log_sigmoid(-x) for x in fake])


BY_HAND: dict[str, tuple[Callable[..., float], Callable[[list[float]], float]]] = {
    "non_saturating": (cross_entropy, lambda fake: mean([minus_log_sigmoid(x) for x in fake])),
    # log(1 - D(G(z))), which the generator minimises
    "minimax": (cross_entropy, lambda fake: -mean([minus_log_sigmoid(-x) for x in fake])),
    "least_squares": (
        lambda real, fake: (
            0.5 * mean([(x - 1) ** 2 for x in real]) + 0.5 * mean([x**2 for x in fake])
        ),
        lambda fake: 0.5 * mean([(x - 1) ** 2 for x in fake]),
    ),
    "hinge": (
        lambda real, fake: (
            mean([max(0, 1 - x) for x in real]) + mean([max(0, 1 + x) for x in fake])
        ),
        lambda fake: -mean(fake),
    ),
}


def test_every_loss_is_checked() -> None:
    assert set(BY_HAND) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=40, deadline=None)
@given(real=LOGITS, fake=LOGITS)
def test_losses_by_hand(name: str, real: list[float], fake: list[float]) -> None:
    discriminator, generator = BY_HAND[name]
    pair = LOSSES[name]
    loss = pair.discriminator(tf.constant(real), tf.constant(fake), 1.0)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(discriminator(real, fake), rel=1e-5, abs=1e-6)
    assert float(pair.generator(tf.constant(fake))) == pytest.approx(
        generator(fake), rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("non_saturating", 2 * math.log(2), math.log(2)),
        ("minimax", 2 * math.log(2), -math.log(2)),
        ("least_squares", 0.5, 0.5),
        ("hinge", 2.0, 0.0),
    ],
)
def test_a_discriminator_that_does_not_know(
    name: str, discriminator: float, generator: float
) -> None:
    nothing = tf.zeros(4)
    pair = LOSSES[name]
    assert float(pair.discriminator(nothing, nothing, 1.0)) == pytest.approx(discriminator)
    assert float(pair.generator(nothing)) == pytest.approx(generator)


@pytest.mark.parametrize("name", ["non_saturating", "minimax"])
def test_smoothing_is_of_the_real_side_only(name: str) -> None:
    loss = LOSSES[name].discriminator
    smooth = float(loss(tf.constant(REAL), tf.constant(FAKE), 0.9))
    assert smooth == pytest.approx(cross_entropy(REAL, FAKE, 0.9))
    assert smooth != pytest.approx(cross_entropy(REAL, FAKE))
    # Its best real logit is log(0.9 / 0.1) and no longer infinite.
    logit = tf.Variable([math.log(9.0)])
    with tf.GradientTape() as tape:
        value = loss(logit, tf.constant([-50.0]), 0.9)
    assert tape.gradient(value, logit).numpy() == pytest.approx([0.0], abs=1e-6)


@pytest.mark.parametrize("name", ["least_squares", "hinge"])
def test_the_others_do_not_heed_the_target(name: str) -> None:
    values = {
        float(LOSSES[name].discriminator(tf.constant(REAL), tf.constant(FAKE), t)) for t in (0.9, 1)
    }
    assert len(values) == 1


@pytest.mark.parametrize("name", LOSSES)
def test_each_network_pulls_its_way(name: str) -> None:
    """The discriminator raises real and lowers fake logits; the generator raises fake ones."""
    real, fake = tf.Variable([0.5, -0.5]), tf.Variable([0.5, -0.5])
    with tf.GradientTape(persistent=True) as tape:
        discriminator = LOSSES[name].discriminator(real, fake, 1.0)
        generator = LOSSES[name].generator(fake)
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
            loss = LOSSES[name].generator(fake)
        gradients[name] = float(tape.gradient(loss, fake)[0])
    assert gradients["non_saturating"] == pytest.approx(-1, abs=1e-4)
    assert gradients["minimax"] == pytest.approx(-1 / (1 + math.exp(10)), rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_huge_logits_stay_finite(name: str) -> None:
    huge = tf.Variable([1e4, -1e4])
    with tf.GradientTape(persistent=True) as tape:
        losses = [LOSSES[name].discriminator(huge, huge, 0.9), LOSSES[name].generator(huge)]
    for loss in losses:
        assert math.isfinite(float(loss))
        assert np.isfinite(tape.gradient(loss, huge).numpy()).all()


def pictures(count: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).uniform(-1, 1, (count, 28, 28, 1)), tf.float32)


def test_the_penalty_of_a_linear_discriminator() -> None:
    """D(x) = w.x + b: half of |w|^2, whatever the pictures and however many."""
    weights = np.random.default_rng(1).normal(size=(28, 28, 1)).astype(np.float32)
    for count in (1, 5):
        penalty = r1_penalty(
            lambda x: tf.reduce_sum(x * weights, axis=[1, 2, 3]) + 3.0, pictures(count)
        )
        assert float(penalty) == pytest.approx(0.5 * float((weights**2).sum()), rel=1e-5)


def test_the_penalty_of_a_quadratic_discriminator() -> None:
    """D(x) = x'Ax / 2 with A symmetric: half the mean of |Ax|^2."""
    generator = np.random.default_rng(2)
    root = generator.normal(size=(784, 784))
    matrix = ((root + root.T) / 56).astype(np.float32)
    images = pictures(6)
    flat = images.numpy().reshape(6, 784).astype(np.float64)

    def discriminate(x: tf.Tensor) -> tf.Tensor:
        x = tf.reshape(x, [-1, 784])
        return 0.5 * tf.reduce_sum(x * (x @ matrix), axis=1)

    expected = 0.5 * ((flat @ matrix.astype(np.float64)) ** 2).sum(axis=1).mean()
    assert float(r1_penalty(discriminate, images)) == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """A small smooth discriminator."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(3, 5, 3, activation="softplus"),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
            keras.layers.Reshape(()),
        ]
    )


def forward64(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """The same network in float64, by its definition."""
    kernel, bias, weights, offset = (np.asarray(x, np.float64) for x in network.get_weights())
    windows = np.lib.stride_tricks.sliding_window_view(images[..., 0], (5, 5), axis=(1, 2))
    hidden = np.einsum("nyxij,ijc->nyxc", windows[:, ::3, ::3], kernel[:, :, 0]) + bias
    return np.logaddexp(hidden, 0).reshape(len(images), -1) @ weights[:, 0] + offset


def test_the_penalty_of_a_network_by_differences(network: keras.Model) -> None:
    images = pictures(3)
    exact = images.numpy().astype(np.float64)
    np.testing.assert_allclose(forward64(network, exact), network(images), rtol=1e-4, atol=1e-5)
    step = 1e-5
    shifts = step * np.eye(784).reshape(784, 28, 28, 1)
    squared = []
    for image in exact:
        up, down = forward64(network, image + shifts), forward64(network, image - shifts)
        squared.append((((up - down) / (2 * step)) ** 2).sum())
    assert float(r1_penalty(network, images)) == pytest.approx(0.5 * np.mean(squared), rel=1e-4)


def test_the_penalty_can_be_trained_on(network: keras.Model) -> None:
    """Its own gradient, at the weights, against differences of the penalty."""
    images, kernel = pictures(2), network.layers[0].kernel
    with tf.GradientTape() as tape:
        penalty = r1_penalty(network, images)
    gradient = tape.gradient(penalty, kernel.value).numpy()
    place = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
    before, ends = kernel.numpy(), []
    for shift in (1e-2, -1e-2):
        moved = before.copy()
        moved[place] += shift
        kernel.assign(moved)
        ends.append(float(r1_penalty(network, images)))
    kernel.assign(before)
    assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=1e-2)
