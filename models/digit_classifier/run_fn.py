"""The TFX Trainer's entry point for the digit classifier."""

import json
import logging
import os
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

import storage
from errors import UserError
from mnist.records import load_split
from models.digit_classifier.settings import ClassifierSettings
from models.digit_classifier.training import ClassifierTrainer, accuracy

_REPORT_SECONDS = 5.0

_progress_log = logging.getLogger("mnist_gan.progress")


class ClassifierTooWeakError(UserError):
    """The classifier is not accurate enough to measure a generator with its features."""


def run_fn(fn_args: Any) -> None:
    """Trains the classifier on the train split and exports it.

    Args:
      fn_args: TFX's FnArgs. `custom_config["settings"]` holds the fields of
        `ClassifierSettings`; `serving_model_dir` receives the SavedModel, whose signature takes
        `image` uint8 [n, 28, 28, 1] and gives `features` float32 [n, 96] and `logits` float32
        [n, 10]; `model_run_dir` receives `metrics.json`.

    Raises:
      ClassifierTooWeakError: if the accuracy on the eval split is below `min_accuracy`.
    """
    settings = ClassifierSettings.model_validate(fn_args.custom_config["settings"])
    images, labels = load_split(fn_args.train_files)
    trainer = ClassifierTrainer(images, labels, steps=settings.steps)
    model = trainer.fit(_reporter(settings.steps))
    eval_accuracy = accuracy(model, *load_split(fn_args.eval_files))
    if eval_accuracy < settings.min_accuracy:
        raise ClassifierTooWeakError(
            f"the digit classifier's accuracy on the eval split is {eval_accuracy:.2%}, expected "
            f"at least {settings.min_accuracy:.2%}",
            "classifier.min_accuracy",
            f"raise classifier.steps, or look at the data: {len(labels)} training digits",
        )
    _progress_log.info(f"accuracy on the eval split {eval_accuracy:.2%}")
    text = json.dumps({"accuracy": eval_accuracy, **settings.model_dump()}, indent=2)
    storage.write(os.path.join(fn_args.model_run_dir, "metrics.json"), text.encode())
    export_classifier(model, fn_args.serving_model_dir)


def export_classifier(model: keras.Model, directory: str) -> None:
    """Writes the SavedModel that `FeatureExtractor` reads.

    Args:
      model: from `build_classifier`.
      directory: created; must not hold a SavedModel yet.
    """

    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        features, logits = model(image, training=False)
        return {"features": features, "logits": logits}

    archive = keras.export.ExportArchive()
    # Not `track`ed, so that each variable is saved once; see `models/gan/export.py`.
    archive.add_endpoint(
        "serving_default", classify, [tf.TensorSpec([None, 28, 28, 1], tf.uint8, "image")]
    )
    archive.write_out(directory, verbose=False)


def _reporter(total: int) -> Callable[[int, float, float], None]:
    reported = 0.0

    def report(step: int, loss: float, seconds: float) -> None:
        nonlocal reported
        if seconds - reported >= _REPORT_SECONDS:
            reported = seconds
            left = seconds * (total - step) / step
            _progress_log.info(f"step {step} of {total}  loss {loss:.3f}  {left:.0f} s left")

    return report
