"""The TFX Trainer's entry point for the GAN."""

import logging
import os
from typing import Any

import numpy as np
import tensorflow as tf

from mnist.records import load_split
from models.digit_classifier.features import FeatureExtractor
from models.gan.checkpoints import Checkpoints, checkpoint_key
from models.gan.devices import choose_strategy, describe_devices, has_idle_gpu, is_chief
from models.gan.export import export_generator
from models.gan.interruption import recipe, stopping_on_signals
from models.gan.run_log import RunLog
from models.gan.settings import TrainSettings
from models.gan.training import Training, prepare_training, train
from models.gan.tuning_settings import describe, with_hyperparameters
from models.gan.validation import ValidationSet, split_validation_set
from models.gan.warm_start import find_warm_start_state, write_final_state
from registry.layout import TRAINING_STATE, newest_version, version_address

_log = logging.getLogger("mnist_gan.progress")


def run_fn(fn_args: Any) -> None:
    """Trains the GAN on the train split and exports the averaged generator.

    Args:
      fn_args: TFX's FnArgs. `custom_config["settings"]` holds the fields of `TrainSettings`.
        `custom_config["checkpoints"]` is a folder or URI for the checkpoints of interrupted
        trainings; without it there are none. At the end they are removed or, with
        `custom_config["keep_checkpoints"]`, marked as finished. `custom_config["served"]` is a
        folder or URI with the served versions, for a warm start. `base_model` is the digit
        classifier for validation; without it the last averaged generator is exported.
        `hyperparameters` is the result of the Tuner, which replaces fields of `TrainSettings`.
        `serving_model_dir` receives the SavedModel, `model_run_dir` the files of `RunLog`; of
        several workers, only the first writes them.

    Raises:
      UserError: if the devices cannot train as the settings say.
      NonFiniteLossError: if the training diverges.
      InterruptedTrainingError: after SIGTERM or SIGINT.
      CheckpointError: if a checkpoint cannot be read or written.
      WarmStartError: if `train.warm_start` is `served` and the served version allows none.
    """
    settings = _settings(fn_args)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    # Before any device is used: the workers have to connect first.
    strategy = choose_strategy()

    # Training and validation set.
    images, labels = load_split(fn_args.train_files)
    rows, validation_set = _split(settings, images, labels, fn_args.base_model)
    images, labels = images[rows], labels[rows]

    # Initial state: random, or the state of the served model's training.
    training = prepare_training(
        settings, images, labels, validation_set=validation_set, strategy=strategy
    )
    _log_devices(settings, strategy.num_replicas_in_sync)
    served = _served_state(fn_args.custom_config.get("served") or "")
    variables = training.gan.warm_start_variables()
    state = find_warm_start_state(settings.warm_start, served, variables)
    if state:
        training.warm_start.begin_from(state)

    # Train, then export the best generator with the final state.
    root = fn_args.custom_config.get("checkpoints")
    checkpoints = _checkpoints(root, training, images, labels) if root else None
    with stopping_on_signals(training.stop):
        if not is_chief(strategy):
            for _ in train(training, checkpoints):
                pass
            return
        with RunLog(fn_args.model_run_dir, training) as run_log:
            for progress in train(training, checkpoints):
                run_log.record(progress)
            run_log.sample(training.step)
        export_generator(training.best.network, settings, fn_args.serving_model_dir)
        state_dir = os.path.join(fn_args.serving_model_dir, TRAINING_STATE)
        write_final_state(state_dir, variables, training.step, training.warm_start.lineage)
    if checkpoints:
        is_kept = fn_args.custom_config.get("keep_checkpoints")
        checkpoints.mark_finished() if is_kept else checkpoints.clear()


def _log_devices(settings: TrainSettings, replicas: int) -> None:
    _log.info(f"devices: {describe_devices(settings.precision, settings.xla, replicas)}")
    if has_idle_gpu():
        _log.warning(
            "There is an NVIDIA driver, but TensorFlow finds no GPU and trains on the CPU: install "
            "the CUDA libraries with `GPU=1 make setup`, and look for TensorFlow's own messages "
            "about GPUs in the log."
        )


def _settings(fn_args: Any) -> TrainSettings:
    settings = TrainSettings.model_validate(fn_args.custom_config["settings"])
    found = getattr(fn_args, "hyperparameters", None)
    if not found:
        return settings
    tuned = with_hyperparameters(settings, found["values"])
    _log.info(f"hyperparameters: {describe(settings, found['values'])}")
    return tuned


def _split(
    settings: TrainSettings, images: np.ndarray, labels: np.ndarray, classifier: str | None
) -> tuple[np.ndarray, ValidationSet | None]:
    """Returns the rows to train on, and the validation set if it is used."""
    if not classifier or not settings.evaluations:
        return np.arange(len(images)), None
    trained, validation = split_validation_set(
        len(images), settings.validation_split, settings.seed
    )
    extract = FeatureExtractor(classifier)
    return trained, ValidationSet(images[validation], labels[validation], extract)


def _served_state(serving_dir: str) -> tuple[int, str] | None:
    """The version that is served and the address of its training state; None for no version."""
    version = newest_version(serving_dir)
    if version is None:
        return None
    return version, os.path.join(version_address(serving_dir, version), TRAINING_STATE)


def _checkpoints(
    root: str, training: Training, images: np.ndarray, labels: np.ndarray
) -> Checkpoints:
    identity = recipe(training.settings) | {"origin": training.warm_start.lineage.origin}
    key = checkpoint_key(identity, images, labels)
    checkpoints = Checkpoints(root, key, training.variables())
    if not training.settings.resume:
        checkpoints.clear()
    return checkpoints
