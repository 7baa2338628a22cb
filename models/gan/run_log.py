"""Records of a running training: log lines, TensorBoard, sample images and warnings."""

import dataclasses
import json
import logging
import math
import os

import numpy as np
import tensorflow as tf

import storage
from models.gan.losses import LOSSES
from models.gan.samples import encode_grid
from models.gan.training import Progress, Training
from models.gan.validation import ValidationMetrics
from parsing import parse_json

_log = logging.getLogger("mnist_gan.progress")

_SAMPLE_LABELS = np.arange(80) % 10  # a grid of 10 columns then has one label per column
_SAMPLE_SECONDS = 60.0
_COLLAPSE_FRACTION = 0.75  # of the budget, before which missing labels are no failure


class RunLog:
    """Writes progress, scalars and sample images, and warns of failure modes."""

    def __init__(self, directory: str, training: Training) -> None:
        """Opens the files.

        Args:
          directory: receives TensorBoard's events, `samples/step-<n>.png` and `progress.jsonl`,
            one JSON object per interval and evaluation. A training that resumes in the same
            directory keeps the lines up to its checkpoint.
          training: the training that reports its progress.
        """
        self._directory = directory
        self._training = training
        self._sampled_at: float | None = None
        self._sampled_step: int | None = None
        self._last_validation: ValidationMetrics | None = None
        self._start = "cold"
        self._warned: set[str] = set()
        tf.io.gfile.makedirs(os.path.join(directory, "samples"))
        self._events = tf.summary.create_file_writer(directory)
        self._lines: tf.io.gfile.GFile | None = None

    def __enter__(self) -> "RunLog":
        """Returns this log."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the files."""
        self._events.close()
        if self._lines:
            self._lines.close()

    def record(self, progress: Progress) -> None:
        """Logs and writes the progress; samples per evaluation and every `_SAMPLE_SECONDS`."""
        if self._start != progress.start:
            self._start = progress.start
            _log.info(f"start: {progress.start}")
        _log.info(self._line(progress))
        self._lines = self._lines or self._open_lines()
        self._lines.write(json.dumps(dataclasses.asdict(progress)) + "\n")
        self._lines.flush()
        self._warn_of_failures(progress)
        evaluated = progress.validation is not self._last_validation
        self._last_validation = progress.validation
        with self._events.as_default(step=progress.step):
            self._write_scalars(progress, evaluated)
        if self._sampled_at is None:
            self._sampled_at = progress.seconds
        if evaluated or progress.seconds - self._sampled_at >= _SAMPLE_SECONDS:
            self._sampled_at = progress.seconds
            self.sample(progress.step)

    def sample(self, step: int) -> None:
        """Writes a grid of images by the averaged generator, one column per label, once a step."""
        if step == self._sampled_step:
            return
        self._sampled_step = step
        png = encode_grid(self._training.generate(_SAMPLE_LABELS), columns=10)
        path = os.path.join(self._directory, "samples", f"step-{step:07d}.png")
        storage.write(path, png)
        with self._events.as_default(step=step):
            tf.summary.image("samples", tf.io.decode_png(png)[tf.newaxis])

    def _open_lines(self) -> tf.io.gfile.GFile:
        path = os.path.join(self._directory, "progress.jsonl")
        resumed_step = self._training.resumed_step
        lines = storage.read(path).splitlines(True) if resumed_step and storage.exists(path) else []
        storage.write(path, b"".join(line for line in lines if _step(line) <= resumed_step))
        return tf.io.gfile.GFile(path, "a")

    def _write_scalars(self, progress: Progress, evaluated: bool) -> None:
        for name, value in progress.scalars.items():
            tf.summary.scalar(name, value)
        tf.summary.scalar("steps_per_second", progress.steps_per_second)
        if progress.validation and evaluated:
            for name in ("fid", "variance_ratio", "conditional_accuracy"):
                tf.summary.scalar(f"validation/{name}", getattr(progress.validation, name))

    def _line(self, progress: Progress) -> str:
        seconds_left = progress.seconds * (1.0 / max(progress.fraction, 1e-6) - 1.0)
        rate = progress.steps_per_second
        images = rate * self._training.settings.batch_size
        fid = f"FID {progress.validation.fid:.3g}  " if progress.validation else ""
        return (
            f"step {progress.step}  {rate:.1f} steps/s  {images:.0f} images/s  "
            f"losses D {progress.scalars['discriminator_loss']:.3f} "
            f"G {progress.scalars['generator_loss']:.3f}  {fid}{np.ceil(seconds_left):.0f} s left"
        )

    def _warn_of_failures(self, progress: Progress) -> None:
        loss = progress.scalars["discriminator_loss"]
        bound = LOSSES[self._training.settings.loss].saturated_below
        if bound is not None and loss < bound:
            self._warn_once(
                "discriminator saturated",
                f"its loss is {loss:.2g}, and the generator's gradient all but vanishes. Raise "
                "train.r1_weight or train.instance_noise, lower "
                "train.discriminator_learning_rate, or add train.augmentation.",
            )
        collapse = progress.validation.collapse if progress.validation else None
        if collapse and progress.fraction >= _COLLAPSE_FRACTION:
            self._warn_once(
                "generator collapsed",
                f"{collapse}. Raise train.r1_weight, lower train.generator_learning_rate, set "
                "train.conditional, or choose another train.loss.",
            )

    def _warn_once(self, failure: str, message: str) -> None:
        if failure not in self._warned:
            self._warned.add(failure)
            _log.warning("%s: %s", failure, message)


def _step(line: bytes) -> float:
    """Of a line of `progress.jsonl`; infinite for a line that was cut off."""
    try:
        return float(parse_json(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf
