"""The probe refuses what breaks the serving contract, in a process of its own."""

from pathlib import Path

import pytest
import tensorflow as tf

from components.serving_check.executor import NotServableError, probe
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
    probe(str(exported), 300)


def test_a_truncated_model_is_refused(exported):
    [data] = (exported / "variables").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(NotServableError, match="cannot be served"):
        probe(str(exported), 300)


def test_a_model_without_the_signatures_is_refused(tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda x: x, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.f)
    with pytest.raises(NotServableError, match="the signature generate_pixels is missing"):
        probe(str(tmp_path / "model"), 300)


def test_a_model_that_takes_too_long_is_killed(exported):
    with pytest.raises(NotServableError, match=r"within 0.1 s \(serving_check.timeout_seconds\)"):
        probe(str(exported), 0.1)
