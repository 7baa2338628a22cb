"""The fused Adam against Keras' own and against the paper's algorithm."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.gan.fused_adam import FusedAdam


@pytest.mark.parametrize(("beta_1", "beta_2"), [(0.5, 0.99), (0.0, 0.999), (0.9, 0.9)])
def test_it_is_adam(beta_1: float, beta_2: float) -> None:
    random = np.random.default_rng(0)
    start = [random.normal(size=shape).astype(np.float32) for shape in ((3, 4), (5,), ())]
    fused, keras_own = ([tf.Variable(value) for value in start] for _ in range(2))
    ours, theirs = (
        kind(1e-2, beta_1, beta_2, epsilon=1e-5) for kind in (FusedAdam, keras.optimizers.Adam)
    )
    by_hand = [value.astype(np.float64) for value in start]
    first, second = ([np.zeros_like(value) for value in by_hand] for _ in range(2))
    for step in range(1, 8):
        slopes = [random.normal(size=value.shape).astype(np.float32) for value in start]
        if step == 4:
            ours.learning_rate.assign(2e-3)
            theirs.learning_rate.assign(2e-3)
        rate = float(ours.learning_rate)
        for optimizer, variables in ((ours, fused), (theirs, keras_own)):
            optimizer.apply([tf.constant(slope) for slope in slopes], variables)
        for place, slope in enumerate(slopes):
            first[place] = beta_1 * first[place] + (1 - beta_1) * slope
            second[place] = beta_2 * second[place] + (1 - beta_2) * slope.astype(float) ** 2
            alpha = rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
            by_hand[place] = by_hand[place] - alpha * first[place] / (np.sqrt(second[place]) + 1e-5)
    for a, b, c in zip(fused, keras_own, by_hand, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(a.numpy(), c, rtol=1e-5, atol=1e-6)
    for a, b in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
