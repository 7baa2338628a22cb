"""The TFX Trainer's entry point for the GAN."""

import dataclasses
import json
import logging
import os
from typing import Any

import numpy as np
import tensorflow as tf

from models.examples import load_split
from models.gan.export import export_generator
from models.gan.samples import encode_grid
from models.gan.settings import TrainSettings
from models.gan.training import GanTrainer, Progress

_progress_log = logging.getLogger("mnist_gan.progress")


def run_fn(fn_args: Any) -> None:
    """Trains the GAN on the train split and exports the averaged generator.

    Args:
      fn_args: TFX's FnArgs. `custom_config["train"]` holds the fields of `TrainSettings`;
        `serving_model_dir` receives the SavedModel; `model_run_dir` receives TensorBoard's events,
        `samples/step-<n>.png` and `progress.jsonl`, a JSON object per interval.

    Raises:
      NonFiniteLossError: when training diverges.
    """
    settings = TrainSettings.model_validate(fn_args.custom_config["train"])
    images, labels = load_split(fn_args.train_files)
    trainer = GanTrainer(settings, images, labels)
    with _RunLog(fn_args.model_run_dir, trainer) as run_log:
        for progress in trainer.fit():
            run_log.record(progress)
        trainer.refresh_average()
        run_log.sample(int(trainer.step))
    export_generator(trainer.average, settings, fn_args.serving_model_dir)


class _RunLog:
    """Writes what a training leaves behind beside the model: progress, scalars and samples."""

    def __init__(self, directory: str, trainer: GanTrainer) -> None:
        self._directory = directory
        self._trainer = trainer
        self._sampled_at = 0.0
        tf.io.gfile.makedirs(os.path.join(directory, "samples"))
        self._events = tf.summary.create_file_writer(directory)
        self._lines = tf.io.gfile.GFile(os.path.join(directory, "progress.jsonl"), "w")

    def __enter__(self) -> "_RunLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self._events.close()
        self._lines.close()

    def record(self, progress: Progress) -> None:
        _progress_log.info(self._line(progress))
        self._lines.write(json.dumps(dataclasses.asdict(progress)) + "\n")
        self._lines.flush()
        with self._events.as_default(step=progress.step):
            for name, value in progress.scalars.items():
                tf.summary.scalar(name, value)
            tf.summary.scalar("steps_per_second", progress.steps_per_second)
        if progress.seconds - self._sampled_at >= self._trainer.settings.sample_seconds:
            self._sampled_at = progress.seconds
            self._trainer.refresh_average()
            self.sample(progress.step)

    def sample(self, step: int) -> None:
        """Writes a grid of the averaged generator's digits, a column per digit."""
        png = encode_grid(self._trainer.sample(rows=8), columns=10)
        with tf.io.gfile.GFile(
            os.path.join(self._directory, "samples", f"step-{step:07d}.png"), "wb"
        ) as file:
            file.write(png)
        with self._events.as_default(step=step):
            tf.summary.image("samples", tf.io.decode_png(png)[tf.newaxis])

    def _line(self, progress: Progress) -> str:
        left = progress.seconds * (1.0 / max(progress.fraction, 1e-6) - 1.0)
        rate = progress.steps_per_second
        images = rate * self._trainer.settings.batch_size
        return (
            f"step {progress.step}  {rate:.1f} steps/s  {images:.0f} images/s  "
            f"losses D {progress.scalars['discriminator_loss']:.3f} "
            f"G {progress.scalars['generator_loss']:.3f}  {np.ceil(left):.0f} s left"
        )
