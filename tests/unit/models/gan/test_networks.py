"""The two networks: their weights at first, what each setting changes, spectral scaling, tying."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from mnist.spans import resolve_span
from mnist.splits import load_splits
from models.gan.custom_layers import SpectralScaling, TransposedDense
from models.gan.networks import (
    FEATURES,
    PROJECTION,
    add_log_intensity_channels,
    apply,
    build_discriminator,
    build_generator,
    scale_pixels,
    to_pixels,
)
from models.gan.settings import TrainSettings

SMALL: dict[str, Any] = {
    "latent_dim": 8,
    "auxiliary_loss_weight": 0,
    "generator_channels": (8, 4, 4),
    "discriminator_channels": (4, 4, 8),
}
DIGITS = tf.range(6)
LATENT = tf.random.stateless_normal([6, 8], [1, 2])
IMAGES = tf.random.stateless_uniform([6, 28, 28, 1], [3, 4], -1.0, 1.0)


def settings(**changed: Any) -> TrainSettings:
    return TrainSettings(**(SMALL | changed))


def build(precision: str = "float32", **changed: Any) -> tuple[keras.Model, keras.Model]:
    recipe = settings(**changed)
    generator = build_generator(recipe, precision)
    return generator, build_discriminator(recipe, generator, precision)


def logits_of(discriminator: keras.Model, *, training: bool = False) -> np.ndarray:
    return apply(discriminator, IMAGES, DIGITS, training=training).numpy()


def of_type(network: keras.Model, kind: type) -> list[Any]:
    return [layer for layer in network.layers if isinstance(layer, kind)]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"conditional": False},
        {"tie_projection": True, "generator_channels": (8, 4, 0)},
        {"discriminator_normalization": "spectral"},
        {"discriminator_normalization": "batch", "r1_weight": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_images_logits_and_variables_are_float32(precision: str, changed: dict[str, Any]) -> None:
    generator, discriminator = build(precision, **changed)
    images = apply(generator, LATENT, DIGITS, training=True)
    logits = apply(discriminator, images, DIGITS, training=True)
    assert (images.dtype, images.shape) == (tf.float32, (6, 28, 28, 1))
    assert (logits.dtype, logits.shape) == (tf.float32, (6,))
    assert np.abs(images).max() <= 1
    assert np.isfinite(logits).all()
    for variable in generator.trainable_variables + discriminator.trainable_variables:
        assert variable.dtype == "float32"
    if precision != "float32":
        assert generator.get_layer("up_14").compute_dtype == precision.removeprefix("mixed_")


@pytest.mark.parametrize("conditional", [True, False])
def test_only_conditional_networks_heed_the_digit(conditional: bool) -> None:
    generator, discriminator = build(conditional=conditional, generator_normalization="none")
    drawn = [apply(generator, LATENT, DIGITS + i, training=False) for i in (0, 1)]
    logits = [apply(discriminator, IMAGES, DIGITS + i, training=False) for i in (0, 1)]
    for first, second in (drawn, logits):
        assert np.array_equal(first, second) != conditional


@pytest.mark.parametrize("tie_projection", [False, True])
@pytest.mark.parametrize(
    ("initializer", "deviation"),
    [
        ("normal", lambda into, out: 0.02),
        ("he", lambda into, out: np.sqrt(2 / into)),
        ("keras", lambda into, out: np.sqrt(2 / (into + out))),
    ],
)
def test_weights_at_first(initializer: str, deviation: Any, tie_projection: bool) -> None:
    """Each layer's deviation is its formula's, by the inputs and outputs of one unit."""
    networks = build(
        initializer=initializer,
        tie_projection=tie_projection,
        generator_channels=(32, 32, 32),
        discriminator_channels=(32, 32, 32),
        latent_dim=32,
    )
    kernels: dict[str, np.ndarray] = {}
    for network in networks:
        for variable in network.trainable_variables:
            value = variable.numpy()
            if variable.name == "kernel":
                kernels[variable.path] = value
            else:
                assert variable.name in ("bias", "gamma", "beta")
                np.testing.assert_array_equal(value, float(variable.name == "gamma"))
    assert len(kernels) == (9 if tie_projection else 10)
    for path, kernel in kernels.items():
        field = int(np.prod(kernel.shape[:-2]))
        expected = deviation(field * kernel.shape[-2], field * kernel.shape[-1])
        # Five standard errors of a deviation, and a truncated normal's is set to the nominal one.
        error = 5 * expected / np.sqrt(2 * kernel.size)
        assert kernel.std() == pytest.approx(expected, abs=error), path
        assert abs(kernel.mean()) < 5 * expected / np.sqrt(kernel.size), path
    firsts = [round(float(kernel.flat[0] / kernel.std()), 4) for kernel in kernels.values()]
    assert len(set(firsts)) == len(firsts)  # no two layers draw the same numbers


@pytest.mark.parametrize(
    "changed", [{}, {"tie_projection": True}, {"discriminator_normalization": "spectral"}], ids=str
)
def test_the_seed_gives_all_weights(changed: dict[str, Any]) -> None:
    first, again, other = (build(seed=seed, **changed) for seed in (3, 3, 4))
    for network, same, different in zip(first, again, other, strict=True):
        for a, b in zip(network.get_weights(), same.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        kernels = zip(network.trainable_variables, different.trainable_variables, strict=True)
        assert not any(np.array_equal(a, b) for a, b in kernels if a.name == "kernel")


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", lambda x: np.maximum(x, 0)),
        ("leaky_relu", lambda x: np.where(x > 0, x, 0.2 * x)),
        ("elu", lambda x: np.where(x > 0, x, np.expm1(x))),
    ],
)
def test_activations(activation: str, function: Any) -> None:
    """The discriminator without digits, layer by layer, in NumPy but for the convolutions."""
    changed = {"discriminator_activation": activation, "conditional": False}
    _, discriminator = build(**changed)
    for variable in discriminator.trainable_variables:
        if variable.name == "bias":
            variable.assign(variable.numpy() + np.linspace(-0.5, 0.5, variable.shape[0]))
    x = IMAGES.numpy().reshape(6, 14, 2, 14, 2).transpose(0, 1, 3, 2, 4).reshape(6, 14, 14, 4)
    for name, stride in (("down_14", 1), ("down_7", 2), ("down_4", 2)):
        kernel, bias = discriminator.get_layer(name).get_weights()
        x = function(tf.nn.conv2d(x, kernel, stride, "SAME").numpy() + bias)
    x = x.reshape(6, -1)
    kernel, bias = discriminator.get_layer("features").get_weights()
    x = function(x @ kernel + bias)
    kernel, bias = discriminator.get_layer("logit").get_weights()
    logits = (x @ kernel + bias)[:, 0]
    np.testing.assert_allclose(logits_of(discriminator), logits, rtol=1e-4, atol=1e-5)
    assert x.shape == (6, FEATURES)


@pytest.mark.parametrize(
    ("ink", "expected"),
    [(-50.0, -1.0), (-1.01, -0.765762), (0.0, 0.0), (0.5, 0.462117), (50.0, 1.0)],
)
def test_the_textbook_s_last_activation(ink: float, expected: float) -> None:
    generator, bias = passing_on_a_constant(generator_output="tanh")
    bias.assign([ink])
    image = apply(generator, LATENT, DIGITS, training=False).numpy()
    np.testing.assert_allclose(image, np.full((6, 28, 28, 1), expected), atol=1e-5)


@pytest.mark.parametrize(
    ("ink", "latent", "expected"),
    [
        # 1.3 tanh(x) is -1 at x = -artanh(1 / 1.3) = -1.0184.
        (-1.03, 0.0, 0),
        (-1.01, 0.0, 1),  # (1.3 tanh(-1.01) + 1) * 127.5 = 0.57
        (0.0, 0.0, 128),  # 127.5, to even
        (-0.5, 0.0, 51),  # (1 - 1.3 tanh(0.5)) * 127.5 = 50.90
        (0.5, 0.0, 234),  # (1 + 1.8 tanh(0.5)) * 127.5 = 233.55
        (3.0, 0.0, 253),
        (3.0, -1.0, 252),  # 253.12 - 0.83
        (3.0, 1.0, 254),
        (3.0, 3.0, 255),
        (0.5, -70.0, 195),  # white bounds grey as well: 195.02
    ],
)
def test_whole_grey_levels_up_to_white(ink: float, latent: float, expected: int) -> None:
    generator, bias = passing_on_a_constant()
    bias.assign([ink])
    latents = tf.concat([tf.fill([6, 1], latent), LATENT[:, 1:]], 1)
    image = apply(generator, latents, DIGITS, training=False)
    np.testing.assert_array_equal(to_pixels(image), np.full((6, 28, 28, 1), expected, np.uint8))
    np.testing.assert_allclose((image + 1) * 127.5, np.full(image.shape, expected), atol=1e-4)


def test_whites_are_as_frequent_as_in_real_digits(mnist_dir: Path) -> None:
    generator, bias = passing_on_a_constant()
    bias.assign([3.0])
    latents = tf.random.stateless_normal([10_000, 8], [5, 6])
    image = to_pixels(apply(generator, latents, tf.zeros(10_000, tf.int32), training=False))
    real = load_splits(resolve_span(str(mnist_dir), None), 0.1)["train"].images
    drawn, whites = (
        np.array([np.bincount(each[each >= 245], minlength=256).argmax() for each in pictures])
        for pictures in (image.numpy(), real)
    )
    for level in range(250, 256):
        assert np.mean(drawn == level) == pytest.approx(np.mean(whites == level), abs=0.03)


@pytest.mark.parametrize(
    ("ink", "factor"),
    [
        (-0.5, 1.3),  # grey: as if nothing were rounded
        (0.5, 1.8),
        (-2.0, 0.13),  # black: or a generator that draws black alone would stay with it
        (2.0, 0.18),
    ],
)
def test_what_rounding_and_clipping_let_through(ink: float, factor: float) -> None:
    generator, bias = passing_on_a_constant()
    bias.assign([ink])
    with tf.GradientTape() as tape:
        image = apply(generator, LATENT, DIGITS, training=False)
        total = tf.reduce_sum(image)
    slope = 6 * 28 * 28 * factor * (1 - np.tanh(ink) ** 2)
    np.testing.assert_allclose(tape.gradient(total, bias), [slope], rtol=1e-4)


def passing_on_a_constant(**settings: Any) -> tuple[keras.Model, Any]:
    """A generator whose last convolution has a kernel of 0, and that layer's bias."""
    generator, _ = build(**settings)
    kernel, bias = generator.get_layer("to_image").weights
    kernel.assign(tf.zeros(kernel.shape))
    return generator, bias


def test_normalizations_stand_where_they_must() -> None:
    norm = keras.layers.BatchNormalization
    generator, discriminator = build(discriminator_normalization="batch", r1_weight=0)
    assert len(of_type(generator, norm)) == 3
    # Not the discriminator's first layer, nor its features.
    assert len(of_type(discriminator, norm)) == 2
    names = [layer.name for layer in discriminator.layers]
    assert isinstance(discriminator.layers[names.index("down_14") + 1], keras.layers.LeakyReLU)
    generator, discriminator = build(generator_normalization="none")
    assert not of_type(generator, norm) + of_type(discriminator, norm)
    _, discriminator = build(discriminator_normalization="spectral")
    scaled = {layer.layer.name for layer in of_type(discriminator, SpectralScaling)}
    assert scaled == {"down_14", "down_7", "down_4", "features", "logit", "label_embedding"}


def test_dropout_is_for_training_and_drops_its_share() -> None:
    _, discriminator = build(dropout=0.25)
    layers = of_type(discriminator, keras.layers.Dropout)
    assert len(layers) == 3
    assert len({float(layer.seed_generator.state.numpy()[0]) for layer in layers}) == 3
    np.testing.assert_array_equal(logits_of(discriminator), logits_of(discriminator))
    assert not np.array_equal(logits_of(discriminator, training=True), logits_of(discriminator))
    dropped = np.mean(layers[0](np.ones([100, 1000]), training=True) == 0)
    assert dropped == pytest.approx(0.25, abs=0.01)
    _, plain = build()
    assert not of_type(plain, keras.layers.Dropout)
    assert np.array_equal(logits_of(plain, training=True), logits_of(plain))


SCALED = pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: keras.layers.Dense(7, kernel_initializer=drawn()), (20,)),
        (lambda: keras.layers.Conv2D(6, 3, 2, "same", kernel_initializer=drawn()), (8, 8, 4)),
    ],
    ids=["dense", "convolution"],
)


def drawn() -> keras.Initializer:
    return keras.initializers.RandomNormal(stddev=0.7, seed=5)


def scaled_layer(layer: Any, shape: tuple[int, ...], calls: int) -> tuple[SpectralScaling, Any]:
    scaling = SpectralScaling(layer())
    x = tf.random.stateless_normal([4, *shape], [7, 8])
    for _ in range(calls + 1):  # the first builds it
        scaling(x, training=calls > 0)
    return scaling, x


def sigma(kernel: np.ndarray) -> float:
    return np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]


@SCALED
def test_the_scaled_kernel_has_the_largest_singular_value_1(layer: Any, shape: Any) -> None:
    scaling, x = scaled_layer(layer, shape, calls=100)
    kernel = scaling.layer.kernel.numpy()
    assert sigma(kernel) > 1.5
    divided = tf.constant(kernel / sigma(kernel))
    bias = np.linspace(-1, 1, kernel.shape[-1]).astype(np.float32)
    scaling.layer.bias.assign(bias)
    if kernel.ndim == 2:
        expected = x.numpy() @ divided.numpy() + bias
    else:
        expected = tf.nn.conv2d(x, divided, 2, "SAME").numpy() + bias
    np.testing.assert_allclose(scaling(x), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(scaling.layer.kernel, kernel)


@SCALED
def test_one_power_iteration_per_training_call_and_none_otherwise(layer: Any, shape: Any) -> None:
    scaling, x = scaled_layer(layer, shape, calls=0)
    kernel = scaling.layer.kernel.numpy()
    matrix, left = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64), scaling.left.numpy()
    scaling(x, training=False)
    np.testing.assert_array_equal(scaling.left, left)
    for _ in range(3):
        scaling(x, training=True)
        right = matrix.T @ left
        left = matrix @ right
        left /= np.linalg.norm(left)
        np.testing.assert_allclose(scaling.left, left, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(scaling.layer.kernel, kernel)


@SCALED
def test_the_gradient_passes_through_the_scale(layer: Any, shape: Any) -> None:
    """By differences of the output with the true largest singular value, through NumPy's SVD."""
    scaling, x = scaled_layer(layer, shape, calls=200)
    weights = tf.random.stateless_normal(scaling(x).shape, [9, 9])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(weights * scaling(x))
    variables = scaling.trainable_variables
    assert [variable.name for variable in variables] == ["kernel", "bias"]
    gradient = tape.gradient(loss, variables)[0].numpy()

    def value(kernel: np.ndarray) -> float:
        divided = tf.constant(kernel / sigma(kernel))
        doubles = tf.cast(x, tf.float64)
        if kernel.ndim == 2:
            out = tf.matmul(doubles, divided)
        else:
            out = tf.nn.conv2d(doubles, divided, 2, "SAME")
        return float(tf.reduce_sum(tf.cast(weights, tf.float64) * out))

    kernel = scaling.layer.kernel.numpy().astype(np.float64)
    generator = np.random.default_rng(0)
    for index in generator.permutation(kernel.size)[:25]:
        place = np.unravel_index(index, kernel.shape)
        step = np.zeros_like(kernel)
        step[place] = 1e-5
        slope = (value(kernel + step) - value(kernel - step)) / 2e-5
        assert gradient[place] == pytest.approx(slope, rel=0.02, abs=0.02)
    # Stretching the kernel changes nothing, which only holds where the scale is differentiated.
    assert abs((gradient * kernel).sum()) < 1e-3 * np.linalg.norm(gradient) * np.linalg.norm(kernel)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_the_scale_is_estimated_in_float32(precision: str) -> None:
    """In half precision the estimate would be off by parts in a thousand."""
    policy = keras.DTypePolicy(precision)
    half = SpectralScaling(keras.layers.Dense(9, kernel_initializer=drawn(), dtype=policy))
    full = SpectralScaling(keras.layers.Dense(9, kernel_initializer=drawn()))
    x = tf.random.stateless_normal([4, 30], [7, 8])
    for _ in range(50):
        output, expected = half(x, training=True), full(x, training=True)
    assert output.dtype == precision.removeprefix("mixed_")
    np.testing.assert_allclose(half.left, full.left, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tf.cast(output, tf.float32), expected, rtol=0.02, atol=0.02)


def test_a_tied_layer_is_the_others_transpose() -> None:
    kernel = keras.Variable(np.random.default_rng(0).normal(size=(5, 12)), dtype="float32")
    tied = TransposedDense(kernel, dtype=keras.DTypePolicy("float32"), name="tied")
    x = np.random.default_rng(1).normal(size=(3, 12)).astype(np.float32)
    np.testing.assert_allclose(tied(x), x @ kernel.numpy().T, rtol=1e-5, atol=1e-6)
    bias = np.arange(5, dtype=np.float32)
    tied.bias.assign(bias)
    kernel.assign(2 * kernel.numpy())
    np.testing.assert_allclose(tied(x), x @ kernel.numpy().T + bias, rtol=1e-5, atol=1e-6)
    assert {id(v) for v in tied.trainable_variables} == {id(kernel), id(tied.bias)}


@pytest.mark.parametrize("conditional", [True, False])
def test_sharing_is_of_one_variable(conditional: bool) -> None:
    generator, discriminator = build(tie_projection=True, conditional=conditional)
    kernel = generator.get_layer(PROJECTION).kernel
    both = {id(v.value) for v in generator.trainable_variables} & {
        id(v.value) for v in discriminator.trainable_variables
    }
    assert both == {id(kernel.value)}
    before = logits_of(discriminator)
    kernel.assign(kernel.numpy() + 0.1)
    assert not np.array_equal(logits_of(discriminator), before)
    apart = build(conditional=conditional)
    assert not {id(v) for v in apart[0].variables} & {id(v) for v in apart[1].variables}


def test_pixels_there_and_back() -> None:
    pixels = tf.range(256)
    scaled = scale_pixels(tf.cast(pixels, tf.uint8))
    assert (float(scaled[0]), float(scaled[255])) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_pixels(scaled), pixels)
    np.testing.assert_array_equal(to_pixels(tf.constant([-1.7, 1.2])), [0, 255])
    # Half a grey more or less is the next one.
    np.testing.assert_array_equal(to_pixels(scaled + 0.45 / 127.5)[:-1], pixels[:-1])


def test_grey_views_draw_the_ends_apart() -> None:
    """Each pixel itself, above black, below white."""
    _, discriminator = build(log_intensity_channels=True, conditional=False)
    assert discriminator.get_layer("down_14").kernel.shape == (2, 2, 12, 4)
    pixels = np.array([3.0, 255.0], np.float32).reshape(1, 1, 2, 1)
    seen = add_log_intensity_channels(tf.constant(pixels / 127.5 - 1))[0, 0]
    above, below = (2 * np.log([1.75, 64.75]), 2 * np.log([64.25, 1.25]))
    expected = np.stack([[3 / 127.5 - 1, 1], above / np.log(65) - 1, below / np.log(65) - 1], -1)
    np.testing.assert_allclose(seen, expected, rtol=1e-4)
