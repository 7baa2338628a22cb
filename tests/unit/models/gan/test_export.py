"""The serving contract, on an untrained generator that was saved and loaded again."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from saved_variables import variables_of
from tensorflow_serving.apis import prediction_log_pb2

from models.gan.export import export_generator
from models.gan.networks import PROJECTION, build_generator
from models.gan.settings import TrainSettings
from registry.layout import WARM_UP_REQUESTS

LATENT_DIM = 6
ENDS = (-(2**63), 2**63 - 1)
SEEDS = st.integers(*ENDS)
DIGITS = st.integers(-1, 9)


class Served(NamedTuple):
    """A generator, the folder that it was exported to, and what was loaded from there."""

    generator: keras.Model
    folder: Path
    loaded: Any

    def __call__(self, signature: str, *columns: Any) -> dict[str, np.ndarray]:
        first = np.float32 if signature == "from_latent" else np.int64
        name = "latent" if signature == "from_latent" else "seed"
        drawn = self.loaded.signatures[signature](
            **{
                name: tf.constant(np.asarray(columns[0], first)),
                "digit": tf.constant(np.asarray(columns[1], np.int64)),
            }
        )
        return {key: value.numpy() for key, value in drawn.items()}

    def images(self, seeds: list[int], digits: list[int]) -> list[bytes]:
        return [image.tobytes() for image in self("generate_pixels", seeds, digits)["image"]]


def serve(directory: Path, **changed: Any) -> Served:
    recipe = TrainSettings(latent_dim=LATENT_DIM, generator_channels=(8, 6, 4), **changed)
    generator = build_generator(recipe)
    # Weights large enough for images that use all of the grays.
    for variable in generator.trainable_variables:
        if variable.name == "kernel":
            variable.assign(3.0 * variable)
    export_generator(generator, recipe, str(directory / "model"))
    folder = directory / "model"
    return Served(generator, folder, tf.saved_model.load(str(folder)))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve(tmp_path_factory.mktemp("conditional"))


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve(tmp_path_factory.mktemp("unconditional"), conditional=False, latent="uniform")


@pytest.mark.parametrize("latent", ["normal", "uniform"])
def test_seeds_give_wider_latents_than_in_training(tmp_path: Path, latent: str) -> None:
    """As if the weights at the latent were that much larger."""
    tanh = {"generator_output": "tanh", "latent": latent}
    wide = serve(tmp_path / "wide", latent_scale=1.5, **tanh)
    kernel = wide.generator.get_layer(PROJECTION).kernel
    kernel.assign(tf.concat([1.5 * kernel[:LATENT_DIM], kernel[LATENT_DIM:]], axis=0))
    recipe = TrainSettings(
        latent_dim=LATENT_DIM, generator_channels=(8, 6, 4), latent_scale=1, **tanh
    )
    export_generator(wide.generator, recipe, str(tmp_path / "narrow"))
    folder = tmp_path / "narrow"
    narrow = Served(wide.generator, folder, tf.saved_model.load(str(folder)))
    rows = list(range(20)), [seed % 10 for seed in range(20)]
    drawn, same = (each("generate_pixels", *rows)["image"].astype(int) for each in (wide, narrow))
    assert np.ptp(drawn) > 100
    assert np.abs(drawn - same).max() <= 1


def latents(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, LATENT_DIM)).astype(np.float32)


def test_the_three_signatures(served: Served) -> None:
    def columns(specs: dict[str, tf.TensorSpec]) -> dict[str, tuple[list[int | None], str]]:
        return {name: (spec.shape.as_list(), spec.dtype.name) for name, spec in specs.items()}

    found = {
        name: (columns(x.structured_input_signature[1]), columns(x.structured_outputs))
        for name, x in served.loaded.signatures.items()
    }
    numbers, digit = ([None], "int64"), {"digit": ([None], "int64")}
    assert found == {
        "serving_default": (
            {"seed": numbers, **digit},
            {"image_bytes": ([None], "string"), **digit},
        ),
        "generate_pixels": (
            {"seed": numbers, **digit},
            {"image": ([None, 28, 28, 1], "uint8"), **digit},
        ),
        "from_latent": (
            {"latent": ([None, LATENT_DIM], "float32"), **digit},
            {"image": ([None, 28, 28, 1], "float32"), **digit},
        ),
    }


@pytest.mark.parametrize("rows", [0, 1, 7, 16, 33])
def test_any_number_of_rows(served: Served, unconditional: Served, rows: int) -> None:
    for model, digits in ((served, np.arange(rows) % 11 - 1), (unconditional, np.full(rows, -1))):
        drawn = model("generate_pixels", np.arange(rows), digits)
        assert (drawn["image"].shape, drawn["image"].dtype) == ((rows, 28, 28, 1), np.uint8)
        assert (drawn["digit"].shape, drawn["digit"].dtype) == ((rows,), np.int64)
        encoded = model("serving_default", np.arange(rows), digits)
        assert encoded["image_bytes"].shape == (rows,)
        np.testing.assert_array_equal(encoded["digit"], drawn["digit"])
        raw = model("from_latent", latents(rows), digits)
        assert (raw["image"].shape, raw["image"].dtype) == ((rows, 28, 28, 1), np.float32)
        assert raw["digit"].shape == (rows,)


@settings(max_examples=40, deadline=None)
@given(
    row=st.tuples(SEEDS, DIGITS),
    before=st.lists(st.tuples(SEEDS, DIGITS), max_size=20),
    after=st.lists(st.tuples(SEEDS, DIGITS), max_size=20),
)
def test_a_row_does_not_depend_on_its_batch(
    served: Served,
    row: tuple[int, int],
    before: list[tuple[int, int]],
    after: list[tuple[int, int]],
) -> None:
    seeds, digits = zip(*before, row, *after, strict=True)
    together = served("generate_pixels", seeds, digits)
    alone = served("generate_pixels", [row[0]], [row[1]])
    for name, values in alone.items():
        np.testing.assert_array_equal(together[name][len(before)], values[0])


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 40), place=st.integers(0, 39), digit=DIGITS, seed=st.integers(0, 99))
def test_a_latent_does_not_depend_on_its_batch(
    served: Served, rows: int, place: int, digit: int, seed: int
) -> None:
    place %= rows
    many = latents(rows, seed)
    together = served("from_latent", many, [digit] * rows)
    alone = served("from_latent", many[place : place + 1], [digit])
    for name, values in alone.items():
        np.testing.assert_array_equal(together[name][place], values[0])


def test_a_reloaded_model_draws_the_same(served: Served, tmp_path: Path) -> None:
    again = serve(tmp_path)
    seeds, digits = list(range(20)), [-1, *range(10), *range(9)]
    assert again.images(seeds, digits) == served.images(seeds, digits)


def test_seeds_at_the_ends_of_their_range(served: Served) -> None:
    seeds = [ENDS[0], ENDS[0] + 1, -(2**32), -1, 0, 1, 2**32, 2**32 + 1, ENDS[1] - 1, ENDS[1]]
    images = served.images(seeds, [5] * len(seeds))
    assert len(set(images)) == len(seeds), "no two of them alike"
    assert served.images(seeds, [5] * len(seeds)) == images


def test_different_seeds_and_digits_differ(served: Served) -> None:
    seeds = [seed for seed in range(60) for _ in range(10)]
    assert len(set(served.images(seeds, [*range(10)] * 60))) == 600


def test_any_digit_follows_from_the_seed_alone(served: Served, unconditional: Served) -> None:
    seeds = list(range(1000))
    drawn = served("generate_pixels", seeds, [-1] * 1000)["digit"]
    assert drawn[:12].tolist() == [9, 0, 9, 3, 4, 0, 8, 5, 3, 0, 7, 8], "the same on any day"
    counts = np.bincount(drawn, minlength=10)
    assert len(counts) == 10
    assert ((counts - 100) ** 2 / 100).sum() < 27.9, "chi-squared, 9 degrees, 0.1 %"
    encoded = served("serving_default", seeds[::-1], [-1] * 1000)["digit"]
    np.testing.assert_array_equal(encoded[::-1], drawn)
    # Asked for by name the digit gives the very image.
    assert served.images(seeds[:40], drawn[:40].tolist()) == served.images(seeds[:40], [-1] * 40)
    assert set(unconditional("generate_pixels", seeds, [-1] * 1000)["digit"]) == {-1}


def test_any_digit_follows_from_the_latent(served: Served) -> None:
    many = latents(300)
    drawn = served("from_latent", many, [-1] * 300)
    assert set(drawn["digit"]) == set(range(10))
    named = served("from_latent", many, drawn["digit"])
    np.testing.assert_array_equal(named["image"], drawn["image"])


def test_the_png_holds_the_pixels(served: Served) -> None:
    seeds, digits = list(range(33)), [-1, *range(10)] * 3
    encoded = served("serving_default", seeds, digits)["image_bytes"]
    pixels = served("generate_pixels", seeds, digits)["image"]
    for png, expected in zip(encoded, pixels, strict=True):
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        with Image.open(io.BytesIO(png)) as image:
            assert (image.mode, image.size) == ("L", (28, 28))
            np.testing.assert_array_equal(np.asarray(image), expected[..., 0])


@pytest.mark.parametrize("name", ["served", "unconditional"])
def test_what_is_served_is_the_network(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    many = latents(20)
    digits = np.arange(20) % 10 if name == "served" else np.full(20, -1)
    inputs = [tf.constant(many), tf.constant(digits, tf.int32)][: len(model.generator.inputs)]
    expected = model.generator(inputs, training=False).numpy()
    drawn = model("from_latent", many, digits)
    np.testing.assert_allclose(drawn["image"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(drawn["digit"], digits)
    assert np.abs(drawn["image"]).max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    latent=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 20), st.just(LATENT_DIM)),
        elements=st.floats(width=32),
        fill=st.floats(-3, 3, width=32),
    ),
    digit=DIGITS,
)
def test_pixels_of_any_latent_are_in_range_or_the_row_is_refused(
    served: Served, latent: np.ndarray, digit: int
) -> None:
    try:
        image = served("from_latent", latent, [digit] * len(latent))["image"]
    except tf.errors.InvalidArgumentError as error:
        [row] = map(int, re.findall(r"row \[(\d+)\]", error.message))
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"row \[0\]"):
            served("from_latent", latent[row : row + 1], [digit])
        before = served("from_latent", latent[:row], [digit] * row)["image"]
        assert (np.abs(before) <= 1).all()
    else:
        assert np.isfinite(latent).all()
        assert (np.abs(image) <= 1).all()


@pytest.mark.parametrize("name", ["served", "unconditional"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("row", [0, 1, 17])
def test_a_latent_without_a_finite_image_is_named(
    name: str, request: pytest.FixtureRequest, value: float, row: int
) -> None:
    model = request.getfixturevalue(name)
    latent = latents(18)
    latent[row] = value
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"latent .*row \[{row}\] has \["):
        model("from_latent", latent, [-1] * 18)


def test_each_variable_is_saved_once(served: Served, unconditional: Served) -> None:
    for model in (served, unconditional):
        in_graph, restored, stored = variables_of(model.folder)
        assert in_graph == restored
        assert len(in_graph) == stored == len(model.generator.variables)


SIGNATURES: dict[str, Callable[[int], Any]] = {
    "serving_default": lambda rows: list(range(rows)),
    "generate_pixels": lambda rows: list(range(rows)),
    "from_latent": latents,
}


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize(
    ("digits", "row", "value"),
    [([10], 0, 10), ([0, 9, -2, 11], 2, -2), ([-1] * 20 + [ENDS[1]], 20, ENDS[1])],
)
def test_a_wrong_digit_is_named(
    served: Served, signature: str, digits: list[int], row: int, value: int
) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"row \[{row}\] has \[{value}\]"):
        served(signature, SIGNATURES[signature](len(digits)), digits)


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("digit", [0, 9, -2])
def test_an_unconditional_generator_takes_no_digit(
    unconditional: Served, signature: str, digit: int
) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"row \[1\] has \[{digit}\]"):
        unconditional(signature, SIGNATURES[signature](3), [-1, digit, -1])


@pytest.mark.parametrize("name", ["served", "unconditional"])
@pytest.mark.parametrize(
    ("rows", "digits"), [(3, 1), (1, 3), (0, 1), (1, 0), (16, 32), (32, 16), (17, 18)]
)
def test_inputs_of_unequal_length_are_refused(
    name: str, request: pytest.FixtureRequest, rows: int, digits: int
) -> None:
    """A single digit is not taken for all rows, nor are rows dropped where a padding would fit."""
    model = request.getfixturevalue(name)
    for signature, first in SIGNATURES.items():
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{digits} rows.* {rows}"):
            model(signature, first(rows), [-1] * digits)


@pytest.mark.parametrize("name", ["served", "unconditional"])
def test_warm_up_requests_call_every_signature(name: str, request: pytest.FixtureRequest) -> None:
    """As TensorFlow Serving reads them: PredictionLogs in a TFRecord, at most 1,000."""
    model = request.getfixturevalue(name)
    path = model.folder / WARM_UP_REQUESTS
    called = []
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log
        signature = log.request.model_spec.signature_name
        assert log.response.model_spec.signature_name == signature
        inputs = {name: tf.constant(tf.make_ndarray(p)) for name, p in log.request.inputs.items()}
        outputs = model.loaded.signatures[signature](**inputs)
        assert set(log.response.outputs) == set(outputs)
        for key, expected in log.response.outputs.items():
            np.testing.assert_array_equal(outputs[key].numpy(), tf.make_ndarray(expected))
        called.append(signature)
    assert sorted(called) == sorted(model.loaded.signatures)
