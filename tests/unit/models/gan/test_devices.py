"""What a training says of the device that it runs on."""

import pytest
import tensorflow as tf

from models.gan import devices


@pytest.fixture
def no_gpu() -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("auto", "auto", 1), "CPU, float32"),
        (("float32", "on", 1), "CPU, float32, XLA"),
        (("bfloat16", "off", 2), "2 x CPU, mixed_bfloat16"),
    ],
)
def test_the_device_is_told_with_its_arithmetic(no_gpu, settings, expected: str) -> None:
    assert devices.describe_devices(*settings) == expected


def test_a_driver_whose_gpu_is_out_of_reach_is_told(no_gpu, tmp_path, monkeypatch) -> None:
    driver = tmp_path / "version"
    monkeypatch.setattr(devices, "_NVIDIA_DRIVER", str(driver))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not devices.has_idle_gpu()
    driver.touch()
    assert devices.has_idle_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not devices.has_idle_gpu()
