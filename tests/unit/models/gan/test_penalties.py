"""The gradient penalties: in closed form, by differences, and their own gradients."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from models.gan.penalties import wasserstein_gradient_penalty, zero_centered_gradient_penalty

REAL, FAKE = np.random.default_rng(0).uniform(-1, 1, (2, 4, 28, 28, 1)).astype(np.float32)
SHARE = np.array([0.0, 0.25, 0.7, 1.0], np.float32).reshape(4, 1, 1, 1)
MIXED = (SHARE * REAL.astype(np.float64) + (1 - SHARE) * FAKE).reshape(4, 784)

Discriminate = Callable[[tf.Tensor], tf.Tensor]


def of_real(discriminate: Discriminate) -> tf.Tensor:
    return zero_centered_gradient_penalty(discriminate, tf.constant(REAL))


def between(discriminate: Discriminate) -> tf.Tensor:
    return wasserstein_gradient_penalty(
        discriminate, tf.constant(REAL), tf.constant(FAKE), tf.constant(SHARE)
    )


def half_mean_square(slopes: np.ndarray) -> float:
    return 0.5 * (slopes**2).sum(axis=1).mean()


def mean_square_from_one(slopes: np.ndarray) -> float:
    return ((np.sqrt((slopes**2).sum(axis=1)) - 1) ** 2).mean()


# What is under test, where it takes the slopes, and what it makes of them, slopes being [n, 784].
PENALTIES = pytest.mark.parametrize(
    ("penalty", "points", "formula"),
    [
        pytest.param(of_real, REAL.reshape(4, 784).astype(float), half_mean_square, id="zero"),
        pytest.param(between, MIXED, mean_square_from_one, id="interpolated"),
    ],
)
Penalty = Callable[[Discriminate], tf.Tensor]
Formula = Callable[[np.ndarray], float]


@PENALTIES
@pytest.mark.parametrize("length", [0.3, 1.0, 20.0])
def test_a_linear_discriminator(
    penalty: Penalty, points: np.ndarray, formula: Formula, length: float
) -> None:
    """D(x) = w.x + b has the slope w everywhere."""
    weights = np.random.default_rng(1).normal(size=(28, 28, 1))
    weights *= length / np.sqrt((weights**2).sum())
    value = penalty(
        lambda x: tf.reduce_sum(x * tf.constant(weights, tf.float32), axis=[1, 2, 3]) + 3.0
    )
    assert value.shape == ()
    assert value.dtype == tf.float32
    expected = {half_mean_square: length**2 / 2, mean_square_from_one: (length - 1) ** 2}
    assert float(value) == pytest.approx(expected[formula], rel=1e-4, abs=1e-10)


def small_network() -> list[np.ndarray]:
    """Weights of D(x) = tanh(xW + b).v + c."""
    generator = np.random.default_rng(3)
    shapes: list[tuple[int, ...]] = [(784, 4), (4,), (4,), ()]
    scales = [0.08, 0.3, 1.0, 1.0]
    return [s * generator.normal(size=shape) for s, shape in zip(scales, shapes, strict=True)]


def forward(weights: list[np.ndarray], flat: np.ndarray) -> np.ndarray:
    first, bias, second, offset = weights
    return np.tanh(flat @ first + bias) @ second + offset


def slopes_by_hand(weights: list[np.ndarray], flat: np.ndarray) -> np.ndarray:
    first, bias, second, _ = weights
    return ((1 - np.tanh(flat @ first + bias) ** 2) * second) @ first.T


def discriminator(variables: list[tf.Variable]) -> Discriminate:
    first, bias, second, offset = variables

    def discriminate(x: tf.Tensor) -> tf.Tensor:
        hidden = tf.tanh(tf.reshape(x, [-1, 784]) @ first + bias)
        return tf.linalg.matvec(hidden, second) + offset

    return discriminate


@PENALTIES
def test_a_network_by_differences(penalty: Penalty, points: np.ndarray, formula: Formula) -> None:
    weights, step = small_network(), 1e-5
    shifts = step * np.eye(784)
    slopes = np.stack(
        [(forward(weights, x + shifts) - forward(weights, x - shifts)) / (2 * step) for x in points]
    )
    variables = [tf.Variable(x, dtype=tf.float32) for x in weights]
    assert float(penalty(discriminator(variables))) == pytest.approx(formula(slopes), rel=1e-4)


@PENALTIES
def test_its_gradient_by_differences(
    penalty: Penalty, points: np.ndarray, formula: Formula
) -> None:
    """Every entry of the gradient at the weights, which is a second derivative of D."""
    weights, step = small_network(), 1e-5
    variables = [tf.Variable(x, dtype=tf.float32) for x in weights]
    with tf.GradientTape() as tape:
        value = penalty(discriminator(variables))
    gradients = tape.gradient(value, variables)
    assert gradients.pop() is None  # the last bias moves no slope
    for weight, gradient in zip(weights, gradients, strict=False):
        assert gradient.dtype == tf.float32
        expected = np.zeros_like(weight)
        for place in np.ndindex(weight.shape):
            kept, ends = weight[place], []
            for shift in (step, -step):
                weight[place] = kept + shift
                ends.append(formula(slopes_by_hand(weights, points)))
            weight[place] = kept
            expected[place] = (ends[0] - ends[1]) / (2 * step)
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(
            gradient, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
        )


@PENALTIES
def test_a_flat_discriminator(penalty: Penalty, points: np.ndarray, formula: Formula) -> None:
    """Where all slopes are 0 the value is right and its gradient is finite."""
    weights = tf.Variable(tf.zeros([28, 28, 1]))
    with tf.GradientTape() as tape:
        value = penalty(lambda x: tf.reduce_sum(x * weights, axis=[1, 2, 3]))
    assert float(value) == pytest.approx(formula(np.zeros((4, 784))), abs=1e-5)
    assert np.isfinite(tape.gradient(value, weights).numpy()).all()


@PENALTIES
def test_it_is_float32_over_half_precision(
    penalty: Penalty, points: np.ndarray, formula: Formula
) -> None:
    """The squares are added up in float32: in half precision these would overflow."""
    weights = tf.Variable(tf.fill([28, 28, 1], 20.0))

    def discriminate(x: tf.Tensor) -> tf.Tensor:
        half = tf.cast(x, tf.float16) * tf.cast(weights, tf.float16)
        return tf.reduce_sum(tf.cast(half, tf.float32), axis=[1, 2, 3])

    with tf.GradientTape() as tape:
        value = penalty(discriminate)
    assert value.dtype == tf.float32
    assert float(value) == pytest.approx(formula(np.full((4, 784), 20.0)), rel=1e-4)
    gradient = tape.gradient(value, weights)
    assert gradient.dtype == tf.float32
    assert np.isfinite(gradient.numpy()).all()
