"""Sampling from exported generators, and errors for models that are none."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from evaluation.baseline import find_baseline
from evaluation.sampling import Generator, GeneratorError, Samples
from models.gan.export import export_generator
from models.gan.networks import build_generator
from models.gan.settings import TrainSettings

SMALL = {"generator_channels": (4, 4, 4), "discriminator_channels": (4, 4, 4), "latent_dim": 8}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A small generator that takes a digit, and one that takes none."""
    folder = tmp_path_factory.mktemp("models")
    for conditional in (True, False):
        settings = TrainSettings(conditional=conditional, latent="uniform", **SMALL)
        export_generator(build_generator(settings), settings, str(folder / str(conditional)))
    return {conditional: folder / str(conditional) for conditional in (True, False)}


@pytest.mark.parametrize("conditional", [True, False])
def test_samples_are_those_of_consecutive_seeds(exported, conditional):
    model = exported[conditional]
    labels = np.random.default_rng(0).integers(0, 10, 1003)
    samples = Generator(str(model)).sample(labels, seed=5)
    assert (samples.images.dtype, samples.images.shape) == (np.uint8, (1003, 28, 28, 1))
    digits = labels if conditional else np.full(1003, -1)
    if conditional:
        np.testing.assert_array_equal(samples.labels, digits)
        np.testing.assert_array_equal(samples.strata, digits)
    else:
        assert samples.labels is None
        assert not samples.strata.any()
    signature = tf.saved_model.load(str(model)).signatures["generate_pixels"]
    rows = [0, 7, 1002]
    alone = signature(
        seed=tf.constant([5 + row for row in rows], tf.int64),
        digit=tf.constant(digits[rows], tf.int64),
    )
    np.testing.assert_array_equal(samples.images[rows], alone["image"])


@pytest.mark.parametrize("latent", ["uniform", "normal"])
@pytest.mark.parametrize("conditional", [True, False])
def test_interpolation_between_latents(exported, conditional, latent):
    paths = Generator(str(exported[conditional])).interpolate(latent, seed=0, rows=3, columns=4)
    assert (paths.dtype, paths.shape) == (np.uint8, (3, 4, 28, 28, 1))
    assert (paths[:, 0] != paths[:, -1]).any()


def save(folder: Path, image: np.ndarray) -> str:
    """A model whose `generate_pixels` gives this whatever it is asked."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, n) for n in ("seed", "digit")])
    def generate_pixels(seed: tf.Tensor, digit: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"image": tf.identity(image), "digit": digit}

    module = tf.Module()
    tf.saved_model.save(module, str(folder), signatures={"generate_pixels": generate_pixels})
    return str(folder)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 28, 28, 1), np.float32),
        np.zeros((1, 32, 32, 1), np.uint8),
        np.zeros((1, 28, 28, 3), np.uint8),
        np.zeros((1, 28, 28, 1), np.uint8),  # where 100 are asked for
    ],
)
def test_a_model_that_generates_no_images_is_named(tmp_path, image):
    model = save(tmp_path / "model", image)
    with pytest.raises(GeneratorError) as caught:
        Generator(model).sample(np.arange(100) % 10, 0)
    assert caught.value.where == model


def with_from_latent(folder: Path, exported: Path, shape: list[int | None], output: str) -> str:
    """An exported generator whose `from_latent` takes and gives something else."""
    module = tf.saved_model.load(str(exported))
    signature = [
        tf.TensorSpec(shape, tf.float32, "latent"),
        tf.TensorSpec([None], tf.int64, "digit"),
    ]
    wrong = tf.function(
        lambda latent, digit: {output: tf.zeros([tf.size(digit), 28, 28, 1])},
        input_signature=signature,
    )
    signatures = {
        "generate_pixels": module.signatures["generate_pixels"],
        "from_latent": wrong,
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return str(folder)


@pytest.mark.parametrize(("shape", "output"), [([None, 8], "pixels"), ([None], "image")])
def test_another_from_latent_is_named(exported, tmp_path, shape, output):
    model = with_from_latent(tmp_path / "model", exported[True], shape, output)
    with pytest.raises(GeneratorError, match="from_latent") as caught:
        Generator(model).interpolate("normal", seed=0)
    assert caught.value.where == model


def test_two_exports_of_one_network_are_the_same_model(tmp_path):
    settings = TrainSettings(**SMALL)
    network = build_generator(settings)
    for version in ("1", "2"):
        export_generator(network, settings, str(tmp_path / version))
    first, second = (Generator(str(tmp_path / version)) for version in ("1", "2"))
    assert first.identity == second.identity
    labels = np.arange(10)
    images = first.sample(labels, 0)
    place = (str(tmp_path), labels, images, 0, "fail")
    found = find_baseline(*place, identity=first.identity)
    assert (found.status, found.version) == ("unchanged", "2")
    # Equal images are not enough, nor are equal weights.
    assert find_baseline(*place, identity="another").status == "measured"
    other = Samples(255 - images.images, labels)
    place = (str(tmp_path), labels, other, 0, "fail")
    assert find_baseline(*place, identity=first.identity).status == "measured"


def test_weights_and_signatures_tell_models_apart(exported, tmp_path):
    settings = TrainSettings(**SMALL)
    tf.random.set_seed(1)
    export_generator(build_generator(settings), settings, str(tmp_path / "other"))
    changed = with_from_latent(tmp_path / "changed", exported[True], [None, 8], "pixels")
    folders = [str(exported[True]), str(tmp_path / "other"), changed]
    assert len({Generator(folder).identity for folder in folders}) == 3


def without_variables(folder: Path) -> None:
    shutil.rmtree(folder / "variables")


def with_half_of_the_weights(folder: Path) -> None:
    [weights] = folder.glob("variables/variables.data*")
    os.truncate(weights, weights.stat().st_size // 2)


def with_another_graph(folder: Path) -> None:
    (folder / "saved_model.pb").write_bytes(b"no graph")


@pytest.mark.parametrize(
    "damage", [shutil.rmtree, without_variables, with_half_of_the_weights, with_another_graph]
)
def test_what_is_no_model_is_named(exported, tmp_path, damage):
    folder = tmp_path / "model"
    shutil.copytree(exported[True], folder)
    damage(folder)
    with pytest.raises(GeneratorError) as caught:
        Generator(str(folder))
    assert caught.value.where == str(folder)


def test_an_unconditional_baseline_beside_a_conditional_candidate(exported, tmp_path):
    shutil.copytree(exported[False], tmp_path / "serving" / "1")
    labels = np.arange(100) % 10
    candidate = Generator(str(exported[True])).sample(labels, 0)
    found = find_baseline(str(tmp_path / "serving"), labels, candidate, 0, "fail", identity="")
    assert found.status == "measured"
    assert isinstance(found.samples, Samples)
    assert found.samples.labels is None
