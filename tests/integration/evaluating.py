"""Runs of the evaluator on tables of real digits, as its tests need them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import ndimage
from tfx.types import standard_artifacts

from components.generator_evaluator.artifacts import EvaluationReport
from components.generator_evaluator.executor import Executor
from evaluation.settings import EvaluationSettings

COUNT = 1000
SETTINGS = EvaluationSettings(samples=COUNT, fid_samples=COUNT)


def blurred(images: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(images.astype(float), (0, 0.7, 0.7, 0)).astype(np.uint8)


class TableGenerator(tf.Module):
    """A generator by the serving contract that takes its images from a table."""

    def __init__(self, images: np.ndarray) -> None:
        """Takes images of 0 to 9 in turn."""
        super().__init__()
        self._table = tf.constant(images)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, "seed"),
            tf.TensorSpec([None], tf.int64, "digit"),
        ]
    )
    def generate_pixels(self, seed: tf.Tensor, digit: tf.Tensor) -> dict[str, tf.Tensor]:
        digit = tf.maximum(digit, 0)
        return {"image": tf.gather(self._table, (seed // 10 * 10 + digit) % COUNT), "digit": digit}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 3], tf.float32, "latent"),
            tf.TensorSpec([None], tf.int64, "digit"),
        ]
    )
    def from_latent(self, latent: tf.Tensor, digit: tf.Tensor) -> dict[str, tf.Tensor]:
        image = tf.cast(tf.gather(self._table, tf.maximum(digit, 0)), tf.float32) / 127.5 - 1.0
        return {"image": image, "digit": digit}


def export(images: np.ndarray, folder: Path) -> None:
    module = TableGenerator(images)
    names = ("generate_pixels", "from_latent")
    signatures = {name: getattr(module, name) for name in names}
    tf.saved_model.save(module, str(folder), signatures=signatures)


class Run:
    """One execution of the executor, with everything it leaves behind."""

    def __init__(self, folder: Path, inputs: dict[str, list[Any]], serving: Path, **changed: Any):
        model = standard_artifacts.Model()
        model.uri = str(folder)
        self.evaluation = standard_artifacts.ModelEvaluation()
        self.blessing = standard_artifacts.ModelBlessing()
        self.report = EvaluationReport()
        outputs = {name: getattr(self, name) for name in ("evaluation", "blessing", "report")}
        for name, artifact in outputs.items():
            artifact.uri = str(folder / name)
            (folder / name).mkdir()
        Executor().Do(
            {"model": [model], **inputs},
            {name: [artifact] for name, artifact in outputs.items()},
            {
                "settings": SETTINGS.model_copy(update=changed).model_dump_json(),
                "serving_dir": str(serving),
                "train": json.dumps({"latent": "normal"}),
                "classifier_settings": json.dumps({"steps": 400}),
            },
        )
        self.content = json.loads((folder / "evaluation" / "evaluation.json").read_text())

    @property
    def blessed(self) -> bool:
        names = {path.name for path in Path(self.blessing.uri).iterdir()}
        assert self.blessing.get_int_custom_property("blessed") == ("BLESSED" in names)
        assert ("BLESSED" in names) is not ("NOT_BLESSED" in names)
        assert self.content["verdict"]["blessed"] is ("BLESSED" in names)
        return "BLESSED" in names
