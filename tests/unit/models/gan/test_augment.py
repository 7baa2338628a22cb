"""The augmentations: what each does to a image, its randomness, and its gradient."""

import numpy as np
import pytest
import tensorflow as tf

from models.gan.augment import POLICIES, augment
from models.gan.penalties import zero_centered_gradient_penalty

ALL = tuple(POLICIES)
SEED = tf.constant([5, 7])
EVERY_POLICY = pytest.mark.parametrize("policy", [(name,) for name in ALL] + [ALL], ids="-".join)


def noise_images(count: int, seed: int = 0) -> np.ndarray:
    """Noise, brighter than the background everywhere."""
    values = np.random.default_rng(seed).uniform(-0.9, 1, (count, 28, 28, 1))
    return values.astype(np.float32)


def copies(count: int) -> np.ndarray:
    return np.repeat(noise_images(1), count, axis=0)


def applied(images: np.ndarray, *policy: str, seed: tf.Tensor = SEED) -> np.ndarray:
    return augment(tf.constant(images), policy, seed).numpy()


def pulled_back(images: np.ndarray, weights: np.ndarray, *policy: str) -> np.ndarray:
    """The gradient of <weights, augment(images)> at the images."""
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(weights * augment(x, policy, SEED))
    return tape.gradient(value, x).numpy()


def shifted(image: np.ndarray, down: int, right: int, fill: float) -> np.ndarray:
    moved = np.roll(image, (down, right), axis=(0, 1))
    rows, columns = np.arange(28) - down, np.arange(28) - right
    moved[(rows < 0) | (rows > 27)] = fill
    moved[:, (columns < 0) | (columns > 27)] = fill
    return moved


def test_no_policy_leaves_the_images_alone() -> None:
    images = noise_images(3)
    np.testing.assert_array_equal(applied(images), images)


@EVERY_POLICY
def test_the_seed_decides(policy: tuple[str, ...]) -> None:
    images = copies(32)
    once = applied(images, *policy)
    assert once.shape == images.shape
    assert once.dtype == np.float32
    np.testing.assert_array_equal(once, applied(images, *policy))
    for other in ([5, 8], [6, 7]):
        assert (applied(images, *policy, seed=tf.constant(other)) != once).any()


@EVERY_POLICY
def test_each_image_has_its_own_draw(policy: tuple[str, ...]) -> None:
    assert len(np.unique(applied(copies(32), *policy), axis=0)) > 15


def test_each_entry_has_its_own_draw() -> None:
    nothing = np.zeros((32, 28, 28, 1), np.float32)
    first, both = (applied(nothing, *["brightness"] * times)[:, 0, 0, 0] for times in (1, 2))
    assert abs(np.corrcoef(first, both - first)[0, 1]) < 0.5


def test_the_order_is_the_policys() -> None:
    """A hole cut last is background; brightness after it reaches into the hole."""
    images = np.zeros((64, 28, 28, 1), np.float32)
    last = applied(images, "brightness", "cutout").min(axis=(1, 2, 3))
    np.testing.assert_array_equal(last, np.full(64, -1))
    first = applied(images, "cutout", "brightness").min(axis=(1, 2, 3))
    assert (first != -1).mean() > 0.9


def test_translation_moves_the_image() -> None:
    """Every image is its original moved by -3..3 either way, and all 49 moves happen."""
    count = 1000
    images = noise_images(count)
    moved, seen = applied(images, "translation"), np.zeros((7, 7), int)
    for image, result in zip(images, moved, strict=True):
        found = [
            (down, right)
            for down in range(-3, 4)
            for right in range(-3, 4)
            if np.array_equal(result, shifted(image, down, right, -1))
        ]
        assert len(found) == 1
        seen[found[0][0] + 3, found[0][1] + 3] += 1
    assert seen.min() > 0
    for shares in (seen.sum(axis=0) / count, seen.sum(axis=1) / count):
        np.testing.assert_allclose(shares, 1 / 7, atol=0.04)


def test_cutout_blanks_a_square() -> None:
    images = noise_images(1000)
    result = applied(images, "cutout")
    holes = result == -1
    np.testing.assert_array_equal(result[~holes], images[~holes])
    holes = holes[..., 0]
    rows, columns = holes.any(axis=2), holes.any(axis=1)
    np.testing.assert_array_equal(holes, rows[:, :, None] & columns[:, None, :])
    for used in (rows, columns):
        assert (np.diff(used.astype(int), axis=1) == 1).sum(axis=1).max() == 1  # in one piece
        first, size = used.argmax(axis=1), used.sum(axis=1)
        assert set(size) == set(range(7, 15))  # a center on the edge leaves half of it
        inside = (first > 0) & (first + size < 28)
        assert set(size[inside]) == {14}
        assert set(first[inside]) == set(range(1, 14))
        assert len(set(zip(first, size, strict=True))) == 29  # centers, both edges included
        assert (size == 14).mean() == pytest.approx(15 / 29, abs=0.06)
    area = holes.sum(axis=(1, 2))
    assert area.min() >= 49
    assert area.max() == 196


def test_brightness_adds_one_number() -> None:
    images = noise_images(1000)
    added = (applied(images, "brightness") - images).reshape(1000, -1)
    np.testing.assert_allclose(added, added[:, :1].repeat(784, axis=1), atol=1e-6)
    added = added.mean(axis=1)
    assert -0.5 - 1e-6 <= added.min() < -0.48
    assert 0.48 < added.max() <= 0.5 + 1e-6
    assert added.std() == pytest.approx(1 / np.sqrt(12), abs=0.02)


def test_contrast_stretches_about_the_mean() -> None:
    images = noise_images(1000)
    result = applied(images, "contrast").astype(np.float64).reshape(1000, -1)
    flat = images.astype(np.float64).reshape(1000, -1)
    mean = flat.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(result.mean(axis=1, keepdims=True), mean, atol=1e-5)
    scale = result.std(axis=1) / flat.std(axis=1)
    np.testing.assert_allclose(result, mean + scale[:, None] * (flat - mean), atol=1e-5)
    assert 0.5 - 1e-5 <= scale.min() < 0.52
    assert 1.48 < scale.max() <= 1.5 + 1e-5
    assert scale.std() == pytest.approx(1 / np.sqrt(12), abs=0.02)


@EVERY_POLICY
@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_is_the_adjoint(policy: tuple[str, ...], seed: int) -> None:
    """Each is an affine map of the image, Ax + b: <Ax, y> = <x, A'y>, image by image."""
    x, y = noise_images(16, seed=2 * seed), noise_images(16, seed=2 * seed + 1)
    linear = applied(x, *policy).astype(np.float64) - applied(np.zeros_like(x), *policy)
    left = (linear * y).sum(axis=(1, 2, 3))
    right = (x.astype(np.float64) * pulled_back(x, y, *policy)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-3)


@EVERY_POLICY
def test_a_penalty_can_be_taken_through_it(policy: tuple[str, ...]) -> None:
    """D(x) = w.(Ax + b) has the penalty |A'w|^2 / 2, whose gradient at w is AA'w."""
    images = noise_images(8)
    weights = tf.Variable(noise_images(1, seed=1)[0])

    def discriminate(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(weights * augment(x, policy, SEED), axis=[1, 2, 3])

    with tf.GradientTape() as tape:
        penalty = zero_centered_gradient_penalty(discriminate, tf.constant(images))
    back = pulled_back(images, np.broadcast_to(weights.numpy(), images.shape), *policy)
    assert float(penalty) == pytest.approx(0.5 * (back**2).sum(axis=(1, 2, 3)).mean(), rel=1e-5)
    forth = applied(back, *policy) - applied(np.zeros_like(back), *policy)
    np.testing.assert_allclose(tape.gradient(penalty, weights), forth.mean(axis=0), atol=1e-5)


@EVERY_POLICY
def test_it_runs_in_a_loop_in_a_graph(policy: tuple[str, ...]) -> None:
    """As the training does, here with a batch size that the graph does not know."""

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28, 1]), tf.TensorSpec([], tf.int32)])
    def repeated(images: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        gradient = tf.zeros_like(images)
        for step in tf.range(steps):
            with tf.GradientTape() as tape:
                tape.watch(images)
                result = augment(images, policy, tf.stack([3, step]))
                total = tf.reduce_sum(tf.square(result))
            gradient = tape.gradient(total, images)
            assert result.shape.as_list() == [None, 28, 28, 1]
            images = result
        return images, gradient

    for count in (1, 6):
        images = tf.constant(noise_images(count))
        found, gradient = repeated(images, 3)
        for step in range(3):
            with tf.GradientTape() as tape:
                tape.watch(images)
                result = augment(images, policy, tf.constant([3, step]))
                total = tf.reduce_sum(tf.square(result))
            expected = tape.gradient(total, images)
            images = result
        np.testing.assert_allclose(found, images, atol=1e-5)
        np.testing.assert_allclose(gradient, expected, atol=1e-4)
