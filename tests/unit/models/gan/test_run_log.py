"""Records of a training: log lines, events, samples, and warnings of failure modes."""

import dataclasses
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.util import event_pb2

from models.gan.networks import build_discriminator, build_generator
from models.gan.run_log import RunLog
from models.gan.settings import TrainSettings
from models.gan.training import Progress
from models.gan.validation import ValidationMetrics

GOOD = ValidationMetrics(
    fid=3.5,
    variance_ratio=0.9,
    class_shares=(0.1,) * 10,
    conditional_accuracy=0.97,
    relative_fid=0.2,
)
COLLAPSED = dataclasses.replace(GOOD, fid=90.0, class_shares=(0.0,) + (1 / 9,) * 9)
SCALARS = {
    "discriminator_loss": 1.25,
    "generator_loss": 0.75,
    "real_logit": 0.5,
    "fake_logit": -0.5,
}


def progress(step: int, **changed: Any) -> Progress:
    values: dict[str, Any] = {
        "step": step,
        "seconds": step / 10,
        "fraction": step / 1000,
        "steps_per_second": 10.0,
        "scalars": SCALARS,
        "validation": None,
    }
    return Progress(**(values | changed))


def training_of(resumed_step: int = 0, **changed: Any) -> Any:
    """The part of a training that a log reads; its images have a gray level each, in order."""
    settings = TrainSettings(
        latent_dim=3, generator_channels=(1, 1, 1), discriminator_channels=(1, 1, 1), **changed
    )
    generator = build_generator(settings)
    gan = SimpleNamespace(
        generator=generator, discriminator=build_discriminator(settings, generator)
    )

    def generate(labels: np.ndarray) -> np.ndarray:
        np.testing.assert_array_equal(labels, np.arange(80) % 10)
        return np.full([80, 28, 28, 1], np.arange(80).reshape(-1, 1, 1, 1), np.uint8)

    return SimpleNamespace(settings=settings, gan=gan, generate=generate, resumed_step=resumed_step)


def events(directory: Path) -> Iterator[tuple[int, str, Any]]:
    (path,) = directory.glob("events.out.tfevents.*")
    for record in tf.data.TFRecordDataset(str(path)):
        event = event_pb2.Event.FromString(record.numpy())
        for value in event.summary.value:
            yield event.step, value.tag, tf.make_ndarray(value.tensor)


def scalars(directory: Path) -> dict[tuple[int, str], float]:
    found = [(key, value) for *key, value in events(directory) if value.ndim == 0]
    assert len({tuple(key) for key, _ in found}) == len(found)
    return {tuple(key): float(value) for key, value in found}


def test_lines_are_json_whole_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    with RunLog(str(tmp_path), training_of()) as log:
        for count, metrics in enumerate((None, GOOD), start=1):
            log.record(progress(100 * count, validation=metrics))
            assert path.read_text().count("\n") == count
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first == {
        "step": 100,
        "seconds": 10.0,
        "fraction": 0.1,
        "steps_per_second": 10.0,
        "scalars": SCALARS,
        "validation": None,
        "start": "cold",
    }
    assert second["validation"] == {
        "fid": 3.5,
        "variance_ratio": 0.9,
        "class_shares": [0.1] * 10,
        "conditional_accuracy": 0.97,
        "relative_fid": 0.2,
    }


def test_scalars_can_be_read_and_a_validation_is_written_once(tmp_path: Path) -> None:
    with RunLog(str(tmp_path), training_of()) as log:
        log.record(progress(100))
        log.record(progress(200, validation=GOOD))
        log.record(progress(300, validation=GOOD))
        log.record(progress(400, validation=COLLAPSED))
    found = scalars(tmp_path)
    each = [*SCALARS, "steps_per_second"]
    names = ("fid", "variance_ratio", "conditional_accuracy")
    validated = [f"validation/{name}" for name in names]
    assert found.keys() == {(step, name) for step in (100, 200, 300, 400) for name in each} | {
        (step, name) for step in (200, 400) for name in validated
    }
    for name, value in SCALARS.items():
        assert found[300, name] == value
    assert found[200, "validation/fid"] == 3.5
    assert found[400, "validation/variance_ratio"] == pytest.approx(0.9)


def test_samples_are_grids_with_a_column_per_digit(tmp_path: Path) -> None:
    with RunLog(str(tmp_path), training_of()) as log:
        for step in range(0, 2000, 100):  # ten seconds each
            validation = GOOD if step >= 1500 else None
            log.record(progress(step, fraction=0.1, validation=validation))
        log.sample(2000)
        log.sample(2000)
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == [f"step-{step:07d}.png" for step in (600, 1200, 1500, 2000)]
    grid = np.asarray(Image.open(tmp_path / "samples" / names[-1]))
    assert grid.shape == (8 * 30 - 2, 10 * 30 - 2)
    np.testing.assert_array_equal(grid[::30, ::30], np.arange(80).reshape(8, 10))
    images = {step: value for step, tag, value in events(tmp_path) if tag == "samples"}
    assert images.keys() == {600, 1200, 1500, 2000}
    written = Image.open(io.BytesIO(images[2000][2]))
    np.testing.assert_array_equal(np.asarray(written), grid)


def test_the_line_says_where_it_stands(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mnist_gan.progress")
    with RunLog(str(tmp_path), training_of(batch_size=64)) as log:
        log.record(progress(100, seconds=30.0, fraction=0.25))
        log.record(progress(100, seconds=30.0, fraction=0.25, validation=GOOD))
    first, second = caplog.messages
    assert first == ("step 100  10.0 steps/s  640 images/s  losses D 1.250 G 0.750  90 s left")
    assert second == first.replace("90 s", "FID 3.5  90 s")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize(
    ("loss", "saturated", "healthy"),
    [
        ("non_saturating", 0.019, 0.021),
        ("minimax", 0.019, 0.021),
        ("least_squares", 0.004, 0.006),
        ("hinge", 0.0, 0.006),
        ("relativistic", 0.009, 0.011),
    ],
)
def test_a_saturated_discriminator_is_named_once(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    loss: str,
    saturated: float,
    healthy: float,
) -> None:
    with RunLog(str(tmp_path), training_of(loss=loss)) as log:
        for step, value in enumerate((healthy, saturated, healthy, saturated)):
            log.record(progress(step, scalars=SCALARS | {"discriminator_loss": value}))
            assert len(warnings(caplog)) == (step > 0)
    (message,) = warnings(caplog)
    assert message.startswith("discriminator saturated: its loss is ")
    assert_names_settings(message, "r1_weight", "instance_noise", "augmentation")


def test_a_wasserstein_critic_has_no_such_bound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunLog(str(tmp_path), training_of(loss="wasserstein", gradient_penalty_weight=10)) as log:
        log.record(progress(1, scalars=SCALARS | {"discriminator_loss": -50.0}))
    assert warnings(caplog) == []


def test_a_collapse_is_named_once_and_not_early(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunLog(str(tmp_path), training_of()) as log:
        log.record(progress(749, validation=COLLAPSED))
        log.record(progress(750, validation=GOOD))
        assert warnings(caplog) == []
        log.record(progress(800, validation=COLLAPSED))
        log.record(progress(900, validation=COLLAPSED))
    (message,) = warnings(caplog)
    assert message.startswith("generator collapsed: the labels 0 are missing")
    assert_names_settings(message, "r1_weight", "generator_learning_rate", "conditional", "loss")


def test_a_resumed_training_keeps_the_lines_up_to_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    with RunLog(str(tmp_path), training_of()) as log:
        for step in (100, 200, 300):
            log.record(progress(step))
    with path.open("a") as file:
        file.write('{"step": 150')  # cut off by a power failure
    with RunLog(str(tmp_path), training_of(resumed_step=200)) as log:
        log.record(progress(250))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [100, 200, 250]
    with RunLog(str(tmp_path), training_of()) as log:
        log.record(progress(50))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [50]


def assert_names_settings(message: str, *names: str) -> None:
    for name in names:
        assert f"train.{name}" in message
        assert name in TrainSettings.model_fields


def test_files_are_closed_after_an_error(tmp_path: Path) -> None:
    def fail(log: RunLog) -> None:
        with log:
            log.record(progress(1))
            raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        fail(RunLog(str(tmp_path), training_of()))
    assert json.loads((tmp_path / "progress.jsonl").read_text())["step"] == 1
    assert (1, "generator_loss") in scalars(tmp_path)
