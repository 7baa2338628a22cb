"""The probe refuses what breaks the serving contract, in a process of its own."""

from pathlib import Path

import pytest
import tensorflow as tf

from components.serving_check.executor import NotServableError, probe
from components.serving_check.probe import check
from models.gan.export import export_generator
from models.gan.networks import build_generator
from models.gan.settings import TrainSettings

SETTINGS = TrainSettings(
    generator_channels=(4, 4, 4), discriminator_channels=(4, 4, 4), latent_dim=8
)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    export_generator(build_generator(SETTINGS), SETTINGS, str(tmp_path / "model"))
    return tmp_path / "model"


def test_an_exported_generator_passes(exported):
    probe(str(exported), 300, 4)


def test_a_generator_without_digits_passes(tmp_path):
    settings = SETTINGS.model_copy(update={"conditional": False})
    export_generator(build_generator(settings), settings, str(tmp_path / "model"))
    measured = probe(str(tmp_path / "model"), 300, 4)
    assert set(measured) == {"load_seconds", "latency_ms", "peak_gib"}
    assert 0.1 < measured["peak_gib"] < 4


class Broken(tf.Module):
    """Keeps to the contract but for what `breach` replaces; its pictures are one grey level."""

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
        drawn = self.generate_pixels(seed, digit)
        encoded = tf.map_fn(tf.io.encode_png, drawn["image"], fn_output_signature=tf.string)
        return {"image_bytes": encoded, "digit": drawn["digit"]}

    def from_latent(self, latent, digit):
        digit = self.checked(digit)
        return {"image": tf.zeros([1, 28, 28, 1]) + latent[:, :1, None, None] * 0, "digit": digit}

    def save(self, folder: Path) -> str:
        tf.saved_model.save(self, str(folder), signatures=self.functions)
        return str(folder)


def pixels(change):
    """A `generate_pixels` whose outputs a function of (module, outputs, seed, digit) changes."""

    def replaced(module):
        return lambda seed, digit: change(module, module.generate_pixels(seed, digit), seed, digit)

    return "generate_pixels", replaced


BREACHES = {
    "the signature from_latent is missing": ("from_latent", lambda module: None),
    r"generate_pixels gives float32 \(0, 28, 28, 1\), not uint8": pixels(
        lambda module, drawn, seed, digit: drawn | {"image": tf.cast(drawn["image"], tf.float32)}
    ),
    r"generate_pixels gives uint8 \(0, 28, 28\), not uint8 \(0, 28, 28, 1\)": pixels(
        lambda module, drawn, seed, digit: drawn | {"image": drawn["image"][..., 0]}
    ),
    r"generate_pixels says digit 3 in row 1, asked for 0": pixels(
        lambda module, drawn, seed, digit: drawn | {"digit": tf.ones_like(digit) * 3}
    ),
    "PNG of row 0 differs from generate_pixels": pixels(
        lambda module, drawn, seed, digit: drawn | {"image": drawn["image"] + 1}
    ),
    "serving_default gives no PNG in row 0": (
        "serving_default",
        lambda module: (
            lambda seed, digit: (
                module.serving_default(seed, digit)
                | {"image_bytes": tf.fill([tf.size(seed)], "a picture")}
            )
        ),
    ),
    "from_latent leaves the range": (
        "from_latent",
        lambda module: (
            lambda latent, digit: (
                module.from_latent(latent, digit)
                | {"image": module.from_latent(latent, digit)["image"] + float("nan")}
            )
        ),
    ),
    "digit -2 is not refused": (
        "generate_pixels",
        lambda module: (
            lambda seed, digit: module.generate_pixels(seed, tf.clip_by_value(digit, -1, 9))
        ),
    ),
}


@pytest.mark.parametrize("said", BREACHES)
def test_each_breach_of_the_contract_is_named(tmp_path, said):
    name, replace = BREACHES[said]
    module = Broken()
    function = replace(module)
    signatures = {n: f for n, f in module.functions.items() if n != name}
    if function is not None:
        specs = module.functions[name].input_signature
        signatures[name] = tf.function(function, input_signature=specs)
    module.functions = signatures
    with pytest.raises(ValueError, match=said):
        check(module.save(tmp_path / "model"))


def test_the_plain_module_keeps_to_the_contract(tmp_path):
    assert check(Broken().save(tmp_path / "model"))["latency_ms"] > 0


def test_a_picture_that_depends_on_its_batch_is_refused(tmp_path):
    module = Broken()

    def uneven(seed, digit):
        drawn = module.generate_pixels(seed, digit)
        return drawn | {"image": drawn["image"] + tf.cast(tf.size(seed), tf.uint8)}

    def encoded(seed, digit):
        drawn = uneven(seed, digit)
        pictures = tf.map_fn(tf.io.encode_png, drawn["image"], fn_output_signature=tf.string)
        return {"image_bytes": pictures, "digit": drawn["digit"]}

    broken = Broken(generate_pixels=uneven, serving_default=encoded)
    with pytest.raises(ValueError, match="the picture of seed 0, digit -1 depends on its batch"):
        check(broken.save(tmp_path / "model"))


def test_a_model_that_takes_too_much_memory_is_killed(exported):
    said = r"GiB when it was loaded and called, and 0.05 are allowed \(serving_check.memory_gib\)"
    with pytest.raises(NotServableError, match=said):
        probe(str(exported), 300, 0.05)


def test_a_truncated_model_is_refused(exported):
    [data] = (exported / "variables").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(NotServableError, match="cannot be served"):
        probe(str(exported), 300, 4)


def test_a_model_without_the_signatures_is_refused(tmp_path):
    """And what was wrong reaches the other process."""
    module = tf.Module()
    module.f = tf.function(lambda x: x, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.f)
    with pytest.raises(NotServableError, match="the signature generate_pixels is missing"):
        probe(str(tmp_path / "model"), 300, 4)


def test_a_model_that_takes_too_long_is_killed(exported):
    with pytest.raises(NotServableError, match=r"within 0.1 s \(serving_check.timeout_seconds\)"):
        probe(str(exported), 0.1, 4)
