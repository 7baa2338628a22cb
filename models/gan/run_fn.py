"""The TFX Trainer's entry point for the GAN."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from models.digit_classifier.features import FeatureExtractor
from models.examples import load_split
from models.gan.checkpoints import Checkpoints, checkpoint_key
from models.gan.devices import choose_strategy, describe_devices, has_idle_gpu, is_chief
from models.gan.export import export_generator
from models.gan.held_out import HeldOut, split_held_out
from models.gan.interruption import recipe, stopping_on_signals
from models.gan.run_log import RunLog
from models.gan.settings import TrainSettings
from models.gan.training import GanTrainer
from models.gan.tuning_settings import describe, with_hyperparameters
from models.gan.warm_start import find_start, leave_state

_progress_log = logging.getLogger("mnist_gan.progress")


def run_fn(fn_args: Any) -> None:
    """Trains the GAN on the train split and exports the averaged generator.

    Args:
      fn_args: TFX's FnArgs. `custom_config["train"]` holds the fields of `TrainSettings`,
        `custom_config["checkpoints"]` a folder or URI for the state of trainings that were cut
        off (none are kept without it), `custom_config["served"]` one with the versions that are
        served, for a warm start; `base_model` the digit classifier by whose features
        the best moment of the training is found (the last is taken without it);
        `hyperparameters` what the Tuner found, which replaces fields of `TrainSettings`.
        `serving_model_dir` receives the SavedModel; `model_run_dir` what `RunLog` writes.

    Raises:
      NonFiniteLossError: when training diverges.
      InterruptedTrainingError: after SIGTERM or SIGINT.
      CheckpointError: when a checkpoint cannot be written.
      WarmStartError: when the training that is served cannot be gone on from.
    """
    settings = _settings(fn_args)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    # Before any device is used: the machines of a cluster have to find each other first.
    strategy = choose_strategy()
    images, labels = load_split(fn_args.train_files)
    trained, held_out = _hold_out(settings, images, labels, fn_args.base_model)
    images, labels = images[trained], labels[trained]
    trainer = GanTrainer(settings, images, labels, held_out=held_out, strategy=strategy)
    _tell_devices(settings, strategy.num_replicas_in_sync)
    served = fn_args.custom_config.get("served")
    start = find_start(settings.warm_start, served, trainer.lasting_variables())
    if start:
        trainer.begin_from(start)
    root = fn_args.custom_config.get("checkpoints")
    checkpoints = _checkpoints(root, trainer, images, labels) if root else None
    with _places(fn_args, strategy) as (model_dir, run_dir), stopping_on_signals(trainer):
        with RunLog(run_dir, trainer) as run_log:
            for progress in trainer.fit(checkpoints):
                run_log.record(progress)
            run_log.sample(trainer.step)
        export_generator(trainer.best.network, settings, model_dir)
        if is_chief(strategy):
            leave_state(model_dir, trainer.lasting_variables(), trainer.step, trainer.course)
    if checkpoints and is_chief(strategy):
        checkpoints.clear()


def _tell_devices(settings: TrainSettings, replicas: int) -> None:
    _progress_log.info(f"on {describe_devices(settings.precision, settings.xla, replicas)}")
    if has_idle_gpu():
        _progress_log.warning(
            "There is an NVIDIA driver, but TensorFlow finds no GPU and trains on the CPU: install "
            "CUDA's libraries with `GPU=1 make setup`, and see in the log what it says of GPUs."
        )


def _settings(fn_args: Any) -> TrainSettings:
    settings = TrainSettings.model_validate(fn_args.custom_config["train"])
    found = getattr(fn_args, "hyperparameters", None)
    if not found:
        return settings
    tuned = with_hyperparameters(settings, found["values"])
    _progress_log.info(f"of the search: {describe(settings, found['values'])}")
    return tuned


def _hold_out(
    settings: TrainSettings, images: np.ndarray, labels: np.ndarray, classifier: str | None
) -> tuple[np.ndarray, HeldOut | None]:
    """The rows to train on, and the digits held out, where there is use for them."""
    if not classifier or not settings.evaluations:
        return np.arange(len(images)), None
    trained, held_out = split_held_out(len(images), settings.validation_split, settings.seed)
    return trained, HeldOut(images[held_out], labels[held_out], FeatureExtractor(classifier))


def _checkpoints(
    root: str, trainer: GanTrainer, images: np.ndarray, labels: np.ndarray
) -> Checkpoints:
    begun = recipe(trainer.settings) | {"origin": trainer.course.origin}
    key = checkpoint_key(begun, images, labels)
    checkpoints = Checkpoints(root, key, trainer.variables())
    if not trainer.settings.resume:
        checkpoints.clear()
    return checkpoints


@contextlib.contextmanager
def _places(fn_args: Any, strategy: tf.distribute.Strategy) -> Iterator[tuple[str, str]]:
    """Folders for the model and the run's files; the chief's are kept."""
    if is_chief(strategy):
        yield fn_args.serving_model_dir, fn_args.model_run_dir
        return
    with tempfile.TemporaryDirectory() as folder:
        yield os.path.join(folder, "model"), os.path.join(folder, "run")
