"""What a training leaves behind beside the model, and says while it runs."""

import dataclasses
import json
import logging
import os

import numpy as np
import tensorflow as tf

from models.gan.losses import LOSSES
from models.gan.samples import encode_grid
from models.gan.training import GanTrainer, Progress

_progress_log = logging.getLogger("mnist_gan.progress")

_SHOWN = np.arange(80) % 10  # the digits in turn, so that a column holds one


class RunLog:
    """Writes progress, scalars and samples, and names what goes wrong."""

    def __init__(self, directory: str, trainer: GanTrainer) -> None:
        """Opens the files.

        Args:
          directory: receives TensorBoard's events, `samples/step-<n>.png` and `progress.jsonl`,
            a JSON object per interval.
          trainer: whose progress it is.
        """
        self._directory = directory
        self._trainer = trainer
        self._sampled_at: float | None = None
        self._judged: object = None
        self._started = "cold"
        self._named: set[str] = set()
        tf.io.gfile.makedirs(os.path.join(directory, "samples"))
        self._events = tf.summary.create_file_writer(directory)
        self._lines = tf.io.gfile.GFile(os.path.join(directory, "progress.jsonl"), "w")

    def __enter__(self) -> "RunLog":
        """Does nothing more."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the files."""
        self._events.close()
        self._lines.close()

    def record(self, progress: Progress) -> None:
        """Says and writes where the training stands."""
        if self._started != progress.start:
            self._started = progress.start
            _progress_log.info(f"start: {progress.start}")
        _progress_log.info(self._line(progress))
        self._lines.write(json.dumps(dataclasses.asdict(progress)) + "\n")
        self._lines.flush()
        self._name_failures(progress)
        with self._events.as_default(step=progress.step):
            self._write_scalars(progress)
        if self._sampled_at is None:
            self._sampled_at = progress.seconds
        if progress.seconds - self._sampled_at >= self._trainer.settings.sample_seconds:
            self._sampled_at = progress.seconds
            self.sample(progress.step)

    def sample(self, step: int) -> None:
        """Writes a grid of the averaged generator's digits, a column per digit."""
        png = encode_grid(self._trainer.sample(_SHOWN), columns=10)
        path = os.path.join(self._directory, "samples", f"step-{step:07d}.png")
        with tf.io.gfile.GFile(path, "wb") as file:
            file.write(png)
        with self._events.as_default(step=step):
            tf.summary.image("samples", tf.io.decode_png(png)[tf.newaxis])

    def _write_scalars(self, progress: Progress) -> None:
        for name, value in progress.scalars.items():
            tf.summary.scalar(name, value)
        tf.summary.scalar("steps_per_second", progress.steps_per_second)
        if progress.judgement and progress.judgement is not self._judged:
            self._judged = progress.judgement
            for name in ("fid", "spread", "agreement"):
                tf.summary.scalar(f"held_out/{name}", getattr(progress.judgement, name))
        if self._trainer.settings.histograms:
            for network in (self._trainer.update.generator, self._trainer.update.discriminator):
                for variable in network.trainable_variables:
                    tf.summary.histogram(variable.path, variable.value)

    def _line(self, progress: Progress) -> str:
        left = progress.seconds * (1.0 / max(progress.fraction, 1e-6) - 1.0)
        rate = progress.steps_per_second
        images = rate * self._trainer.settings.batch_size
        fid = f"FID {progress.judgement.fid:.3g}  " if progress.judgement else ""
        return (
            f"step {progress.step}  {rate:.1f} steps/s  {images:.0f} images/s  "
            f"losses D {progress.scalars['discriminator_loss']:.3f} "
            f"G {progress.scalars['generator_loss']:.3f}  {fid}{np.ceil(left):.0f} s left"
        )

    def _name_failures(self, progress: Progress) -> None:
        """Warns of a failure mode once, with what to try."""
        loss = progress.scalars["discriminator_loss"]
        bound = LOSSES[self._trainer.settings.loss].saturated_below
        if bound is not None and loss < bound:
            self._warn(
                "discriminator saturated",
                f"its loss is {loss:.2g}, so the generator learns next to nothing. Raise "
                "train.r1_weight or train.instance_noise, lower "
                "train.discriminator_learning_rate, or add train.augmentation.",
            )
        collapse = progress.judgement.collapse if progress.judgement else None
        if collapse and progress.fraction >= 0.75:
            self._warn(
                "generator collapsed",
                f"{collapse}. Raise train.r1_weight, lower train.generator_learning_rate, set "
                "train.conditional, or choose another train.loss.",
            )

    def _warn(self, mode: str, what: str) -> None:
        if mode not in self._named:
            self._named.add(mode)
            _progress_log.warning("%s: %s", mode, what)
