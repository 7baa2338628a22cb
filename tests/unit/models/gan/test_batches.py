"""Batches and random streams: all follow from the seed and the number of the batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from gan_helpers import make_update, same, weights

from models.gan.batches import draw_latent
from models.gan.settings import TrainSettings


def test_no_two_batches_and_no_two_streams_are_alike(digits, eagerly: None) -> None:
    """Over three updates of three rounds each, and over all that is drawn."""
    update = make_update(digits, discriminator_steps=3, batch_size=16, augmentation=("brightness",))
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
        update.run(3)
    # Rows, latents, and what each of the two views is brightened by, nine times.
    assert len(seen) == len(set(seen)) == 9 * 4
    assert len(set(rows)) == 9


def test_a_seed_sets_weights_and_batches(digits, eagerly: None) -> None:
    first, second, third = (make_update(digits, seed=seed) for seed in (0, 1, 1))
    assert same(second.weights(), third.weights())
    assert not same(weights(first.gan.generator), weights(second.gan.generator))
    assert not same(weights(first.gan.discriminator), weights(second.gan.discriminator))
    for other in (second, third):
        for name in ("generator", "discriminator"):
            getattr(other.gan, name).set_weights(getattr(first.gan, name).get_weights())
    for update in (first, second, third):
        update.run(1)
    assert same(second.weights(), third.weights())
    for a, b in zip(weights(first.gan.generator), weights(second.gan.generator), strict=True):
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
