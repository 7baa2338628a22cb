"""The averaged generator: its batch statistics, its latents and its images."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gan_helpers import TINY, assert_close, same, weights

from models.gan import averaged
from models.gan.averaged import AveragedGenerator
from models.gan.networks import PROJECTION
from models.gan.settings import TrainSettings


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
    monkeypatch.setattr(averaged, "BATCH_SIZE", 30)
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


def test_a_trained_generator_scales_its_latents() -> None:
    """As if the weights at the latent were that much larger."""
    wide, narrow = (
        AveragedGenerator(
            TrainSettings(**(TINY | {"latent_scale": width, "generator_output": "tanh"}))
        )
        for width in (1.5, 1.0)
    )
    plain = narrow.generate(np.arange(20) % 10)
    kernel = narrow.network.get_layer(PROJECTION).kernel
    kernel.assign(tf.concat([1.5 * kernel[:8], kernel[8:]], axis=0))
    images = wide.generate(np.arange(20) % 10).astype(int)
    assert (images != plain).mean() > 0.3
    assert np.abs(images - narrow.generate(np.arange(20) % 10)).max() <= 1


def test_a_generator_without_batch_normalization_takes_the_weights() -> None:
    average = AveragedGenerator(TrainSettings(**(TINY | {"generator_normalization": "none"})))
    given = random_weights(average.network)
    average.set_weights(given)
    assert same(weights(average.network), [weight.numpy() for weight in given])


def test_each_image_follows_from_its_position_and_its_label(monkeypatch) -> None:
    """Also with more images than are generated at a time, and on every call."""
    monkeypatch.setattr(averaged, "BATCH_SIZE", 30)
    average = AveragedGenerator(TrainSettings(**TINY))
    average.set_weights(random_weights(average.network))
    labels = np.arange(70) % 10
    images = average.generate(labels)
    assert (images.shape, images.dtype) == ((70, 28, 28, 1), np.uint8)
    assert len({image.tobytes() for image in images}) == 70
    np.testing.assert_array_equal(average.generate(labels[:35]), images[:35])
    changed = average.generate(np.where(np.arange(70) == 40, 9, labels))
    assert [i for i in range(70) if not np.array_equal(changed[i], images[i])] == [40]
