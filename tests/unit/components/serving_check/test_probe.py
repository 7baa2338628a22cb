"""The probe refuses what breaks the serving contract, and names it."""

import shutil
from pathlib import Path

import pytest
import tensorflow as tf
from old_export import export_as_before
from tensorflow_serving.apis import prediction_log_pb2

from components.serving_check import probe
from components.serving_check.probe import ContractError, check
from models.gan.export import export_generator, write_warm_up
from models.gan.image_mark import ImageMark
from models.gan.networks import build_generator
from models.gan.settings import TrainSettings
from registry.layout import WARM_UP_REQUESTS

SETTINGS = TrainSettings(latent_dim=8)
MARK = ImageMark({}).add


class Broken(tf.Module):
    """Keeps to the contract but for what `breach` replaces; each image is one gray level."""

    def __init__(self, **breach):
        super().__init__()
        seeded = [tf.TensorSpec([None], tf.int64, name) for name in ("seed", "digit")]
        latent = [tf.TensorSpec([None, 8], tf.float32, "latent"), seeded[1]]
        functions = {
            "generate_pixels": self.generate_pixels,
            "serving_default": self.serving_default,
            "from_latent": self.from_latent,
        } | breach
        self.functions = {
            name: tf.function(function, input_signature=latent if name == "from_latent" else seeded)
            for name, function in functions.items()
        }

    def checked(self, digit):
        wrong = tf.where((digit < -1) | (digit > 9))[:1, 0]
        message = tf.strings.format("row {} has {}", (wrong, tf.gather(digit, wrong)))
        with tf.control_dependencies([tf.debugging.Assert(tf.size(wrong) == 0, [message])]):
            return tf.where(digit == -1, tf.constant(3, tf.int64), digit)

    def generate_pixels(self, seed, digit):
        digit = self.checked(digit)
        grey = tf.cast(digit * 20, tf.uint8)
        image = tf.ones([1, 28, 28, 1], tf.uint8) * grey[:, None, None, None]
        return {"image": image, "digit": digit}

    def serving_default(self, seed, digit):
        return marked_images(self.generate_pixels(seed, digit), seed)

    def from_latent(self, latent, digit):
        digit = self.checked(digit)
        wrong = tf.where(~tf.math.is_finite(latent[:, 0]))[:1, 0]
        message = tf.strings.format("row {} has {}", (wrong, tf.gather(latent[:, 0], wrong)))
        with tf.control_dependencies([tf.debugging.Assert(tf.size(wrong) == 0, [message])]):
            image = tf.zeros([1, 28, 28, 1]) + latent[:, :1, None, None] * 0
        return {"image": image, "digit": digit}

    def save(self, folder: Path) -> str:
        tf.saved_model.save(self, str(folder), signatures=self.functions)
        write_warm_up(self.functions, SETTINGS, str(folder / WARM_UP_REQUESTS))
        return str(folder)


def marked_images(drawn, seed, mark=MARK):
    """What `serving_default` gives for what `generate_pixels` gives."""
    encoded = tf.map_fn(tf.io.encode_png, drawn["image"], fn_output_signature=tf.string)
    return {"image_bytes": mark(encoded, seed, drawn["digit"]), "digit": drawn["digit"]}


def images(mark):
    """A `serving_default` with another function of (files, seed, digit) in place of the mark."""

    def replaced(module):
        return lambda seed, digit: marked_images(module.generate_pixels(seed, digit), seed, mark)

    return "serving_default", replaced


def pixels(change):
    """A `generate_pixels` whose outputs a function of (module, outputs, seed, digit) changes."""

    def replaced(module):
        return lambda seed, digit: change(module, module.generate_pixels(seed, digit), seed, digit)

    return "generate_pixels", replaced


BREACHES = {
    "the signature from_latent is missing": ("from_latent", lambda module: None),
    r"generate_pixels declares .*'image': 'float32 \[N, 28, 28, 1\]'": pixels(
        lambda module, drawn, seed, digit: drawn | {"image": tf.cast(drawn["image"], tf.float32)}
    ),
    r"generate_pixels declares .*'image': 'uint8 \[N, 28, 28\]'": pixels(
        lambda module, drawn, seed, digit: drawn | {"image": drawn["image"][..., 0]}
    ),
    r"generate_pixels declares .*'digits': 'int64 \[N\]'": pixels(
        lambda module, drawn, seed, digit: {"image": drawn["image"], "digits": drawn["digit"]}
    ),
    "generate_pixels gives 2 rows of image for 1": pixels(
        lambda module, drawn, seed, digit: drawn | {"image": tf.repeat(drawn["image"], 2, axis=0)}
    ),
    "generate_pixels gives digit 3 in row 1, expected 0": pixels(
        lambda module, drawn, seed, digit: drawn | {"digit": tf.ones_like(digit) * 3}
    ),
    "PNG of row 0 differs from generate_pixels": pixels(
        lambda module, drawn, seed, digit: drawn | {"image": drawn["image"] + 1}
    ),
    "serving_default gives no PNG in row 0": images(
        lambda files, seed, digit: tf.fill([tf.size(seed)], "no image")
    ),
    "PNG of row 0 has no mark of a generated image": images(lambda files, seed, digit: files),
    "PNG of row 0 names another seed or digit": images(
        lambda files, seed, digit: ImageMark({}).add(files, seed + 1, digit)
    ),
    "from_latent leaves the range": (
        "from_latent",
        lambda module: (
            lambda latent, digit: (
                module.from_latent(latent, digit)
                | {"image": module.from_latent(latent, digit)["image"] + 1.5}
            )
        ),
    ),
    "latent nan is not refused": (
        "from_latent",
        lambda module: lambda latent, digit: module.from_latent(tf.zeros_like(latent), digit),
    ),
    "digit -2 is not refused": (
        "generate_pixels",
        lambda module: (
            lambda seed, digit: module.generate_pixels(seed, tf.clip_by_value(digit, -1, 9))
        ),
    ),
}


@pytest.mark.parametrize("message", BREACHES)
def test_each_breach_of_the_contract_is_named(tmp_path, message):
    name, replace = BREACHES[message]
    module = Broken()
    function = replace(module)
    signatures = {n: f for n, f in module.functions.items() if n != name}
    if function is not None:
        specs = module.functions[name].input_signature
        signatures[name] = tf.function(function, input_signature=specs)
    module.functions = signatures
    with pytest.raises(ContractError, match=message):
        check(module.save(tmp_path / "model"))


def test_the_plain_module_keeps_to_the_contract(tmp_path):
    assert check(Broken().save(tmp_path / "model"))["latency_ms"] > 0


def test_exported_generators_keep_to_the_contract(exported, settings, tmp_path):
    assert set(check(str(exported))) == {"load_seconds", "latency_ms"}
    unconditional = settings.model_copy(update={"conditional": False})
    export_generator(build_generator(unconditional), unconditional, str(tmp_path / "unconditional"))
    check(str(tmp_path / "unconditional"))


def test_an_image_that_depends_on_its_batch_is_refused(tmp_path):
    module = Broken()

    def uneven(seed, digit):
        drawn = module.generate_pixels(seed, digit)
        return drawn | {"image": drawn["image"] + tf.cast(tf.size(seed), tf.uint8)}

    def encoded(seed, digit):
        return marked_images(uneven(seed, digit), seed)

    broken = Broken(generate_pixels=uneven, serving_default=encoded)
    with pytest.raises(ContractError, match="image of seed 0, digit -1 depends on its batch"):
        check(broken.save(tmp_path / "model"))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ContractError):
        check(str(tmp_path))


def test_a_model_without_the_signatures_is_refused(tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda x: x, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.f)
    with pytest.raises(ContractError, match="serving_default"):
        check(str(tmp_path / "model"))


def test_an_export_with_two_copies_of_each_variable_is_refused(tmp_path, settings):
    """Python draws with it, and a session does not: nothing restores what the signatures read."""
    generator = build_generator(settings)
    export_as_before(generator, settings, tmp_path)
    drawn = tf.saved_model.load(str(tmp_path)).signatures["generate_pixels"](
        seed=tf.constant([1], tf.int64), digit=tf.constant([3], tf.int64)
    )
    assert drawn["image"].shape == (1, 28, 28, 1)
    names = sorted(variable.path for variable in generator.variables)
    with pytest.raises(ContractError, match=f"^serving_default reads 20 of 20 .*{names[0]}"):
        check(str(tmp_path))


def test_an_export_that_gives_other_images_than_the_generator_is_refused(
    exported, settings, tmp_path
):
    other = settings.model_copy(update={"seed": 1})
    export_generator(build_generator(other), other, str(tmp_path / "other"))
    shutil.copy(tmp_path / "other" / WARM_UP_REQUESTS, exported / WARM_UP_REQUESTS)
    with pytest.raises(ContractError, match="image_bytes"):
        check(str(exported))


def test_an_export_that_python_loads_otherwise_is_refused(
    exported, settings, tmp_path, monkeypatch
):
    other = settings.model_copy(update={"seed": 1})
    export_generator(build_generator(other), other, str(tmp_path / "other"))
    loaded = tf.saved_model.load(str(tmp_path / "other"))
    monkeypatch.setattr(probe.tf.saved_model, "load", lambda folder: loaded)
    with pytest.raises(ContractError, match=r"tf\.saved_model\.load"):
        check(str(exported))


def test_an_export_without_responses_to_compare_is_refused(exported):
    (exported / WARM_UP_REQUESTS).unlink()
    with pytest.raises(ContractError, match=r"from_latent, generate_pixels, serving_default$"):
        check(str(exported))


def test_a_warm_up_request_that_fails_is_refused(exported):
    """TensorFlow Serving does not serve a version whose warm-up fails."""
    path = str(exported / WARM_UP_REQUESTS)
    write_warm_up({"from_latent": lambda latent, digit: {"digit": digit}}, SETTINGS, path)
    [record] = tf.data.TFRecordDataset(path).as_numpy_iterator()
    log = prediction_log_pb2.PredictionLog.FromString(record)
    digits = log.predict_log.request.inputs["digit"]
    digits.CopyFrom(tf.make_tensor_proto(tf.make_ndarray(digits) + 12))
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(log.SerializeToString())
    with pytest.raises(ContractError, match=r"^from_latent raises InvalidArgumentError: .*\[11\]"):
        check(str(exported))
