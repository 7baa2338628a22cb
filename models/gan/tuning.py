"""The TFX Tuner's entry point: a search for settings with a lower FID after the same time.

Each trial is a short training with its own settings, evaluated at its end on the validation set.
The first trial has the current settings, so the result is never worse than they are, as measured.

The state of a search is one file, written after each trial and renamed into place:

    <checkpoints>/tune/<key>/search.json    the oracle and the trials that have ended
                             trials/        checkpoints of the running trial

KerasTuner's own persistence (`overwrite=False`) is not used: it opens the folder with TensorFlow's
file system, which has no s3://; it writes its files in place, so that a killed search may leave
them truncated; and it does not save the state of the Bayesian oracle's random numbers. Its files
go to the folder of the execution and are never read.

An interrupted search resumes with the interrupted trial and the same choices; a trial that has
ended does not run again. The folder stays after the search, because TFX records the result later,
and a search with more `tune.trials` continues from it. `train.resume=false` starts a new search.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.errors import FailedTrialError, FatalRuntimeError
from keras_tuner.oracles import BayesianOptimizationOracle, RandomSearchOracle
from pydantic import ValidationError
from tfx import v1 as tfx

import storage
from errors import UserError
from mnist.records import load_split
from models.digit_classifier.features import FeatureExtractor
from models.gan.checkpoints import Checkpoints, checkpoint_key
from models.gan.device_loop import NonFiniteLossError
from models.gan.devices import choose_strategy, is_chief
from models.gan.interruption import recipe, stopping_on_signals
from models.gan.settings import TrainSettings
from models.gan.training import prepare_training, train
from models.gan.tuning_settings import (
    SPACE,
    LogRange,
    TuneSettings,
    describe,
    to_scalar,
    with_hyperparameters,
)
from models.gan.validation import ValidationSet, split_validation_set
from parsing import parse_json

_OBJECTIVE = "fid"
_RANDOM_TRIALS = 6  # before the Bayesian algorithm starts
_DRAWS = 100
_FILE = "search.json"

_progress_log = logging.getLogger("mnist_gan.progress")


class SearchError(UserError):
    """The search has no result, or its state cannot be saved."""


def tuner_fn(fn_args: Any) -> tfx.components.TunerFnResult:
    """Sets up the search, or resumes an interrupted one.

    Args:
      fn_args: TFX's FnArgs. `custom_config` holds under "train" the fields of `TrainSettings`,
        under "tune" those of `TuneSettings`, and under "checkpoints" a folder or URI for the state
        of the search. `base_model` is the digit classifier for the FID, `working_dir` the folder of
        KerasTuner's own files.

    Returns:
      The tuner. Its `search` raises SearchError if no trial has a result.
    """
    config = fn_args.custom_config
    train = TrainSettings.model_validate(config["train"])
    tune = TuneSettings.model_validate(config["tune"])
    first = tune.of_a_trial(train)
    if first.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = choose_strategy()
    images, labels = load_split(fn_args.train_files)
    oracle = _make_oracle(first, tune)
    identity = {
        "search": tune.model_dump(mode="json", exclude={"enabled", "trials"}),
        "space": oracle.hyperparameters.get_config(),
        "train": recipe(first),
        "classifier": _digest(fn_args.base_model),
        "version": keras_tuner.__version__,
    }
    tuner = _GanTuner(
        oracle,
        first,
        (images, labels),
        extractor=FeatureExtractor(fn_args.base_model),
        state_dir=f"{config['checkpoints'].rstrip('/')}/tune/"
        f"{checkpoint_key(identity, images, labels)}",
        working_dir=fn_args.working_dir,
        strategy=strategy,
    )
    return tfx.components.TunerFnResult(tuner=tuner, fit_kwargs={})


class _CurrentSettingsFirst:
    """A mixin for KerasTuner's oracles: the current settings first, then only valid settings."""

    # Whether the values of a trial are valid settings.
    is_valid: Callable[[dict[str, Any]], bool]

    def populate_space(self: Any, trial_id: str) -> dict[str, Any]:
        """See `keras_tuner.Oracle`."""
        if not self.trials:
            values = {entry.name: entry.default for entry in self.hyperparameters.space}
            return {"status": TrialStatus.RUNNING, "values": values}
        found = super().populate_space(trial_id)  # type: ignore[misc]
        for _ in range(_DRAWS):
            values = found["values"]
            if values is None or (self.is_valid(values) and not self._duplicate(values)):
                break
            values = self._random_values()
            status = TrialStatus.RUNNING if values else TrialStatus.STOPPED
            found = {"status": status, "values": values}
        return found


class _RandomOracle(_CurrentSettingsFirst, RandomSearchOracle):
    pass


class _BayesianOracle(_CurrentSettingsFirst, BayesianOptimizationOracle):
    def populate_space(self, trial_id: str) -> dict[str, Any]:
        # KerasTuner does not save this state, and a resumed search would choose other trials.
        self._random_state = np.random.RandomState(self.seed + len(self.trials))
        return super().populate_space(trial_id)


def _make_oracle(first: TrainSettings, tune: TuneSettings) -> keras_tuner.Oracle:
    arguments = {
        "objective": keras_tuner.Objective(_OBJECTIVE, "min"),
        "max_trials": tune.trials,
        "hyperparameters": _space(first, tune),
        "seed": tune.seed + 1,  # KerasTuner takes 0 for none
        "max_consecutive_failed_trials": tune.trials + 1,  # that is, any number of them
    }
    if tune.algorithm == "bayesian":
        oracle = _BayesianOracle(num_initial_points=_RANDOM_TRIALS, **arguments)
    else:
        oracle = _RandomOracle(**arguments)
    oracle.is_valid = lambda values: _is_valid(first, values)
    return oracle


def _space(first: TrainSettings, tune: TuneSettings) -> keras_tuner.HyperParameters:
    """The search space for KerasTuner; it contains the current values, as defaults."""
    space = keras_tuner.HyperParameters()
    for name in tune.parameters:
        options, current = SPACE[name], to_scalar(getattr(first, name))
        if isinstance(options, LogRange):
            low, high = min(options.low, current), max(options.high, current)
            space.Float(name, low, high, sampling="log", default=current)
        else:
            scalars = list(dict.fromkeys([*map(to_scalar, options), current]))
            choices = scalars if isinstance(current, str) else sorted(scalars)
            space.Choice(name, choices, default=current)
    return space


def _is_valid(first: TrainSettings, values: dict[str, Any]) -> bool:
    try:
        with_hyperparameters(first, values)
    except ValidationError:
        return False
    return True


class _GanTuner(BaseTuner):
    """Runs trials, logs their results, and saves the state of the search."""

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        first: TrainSettings,
        data: tuple[np.ndarray, np.ndarray],
        *,
        extractor: FeatureExtractor,
        state_dir: str,
        working_dir: str,
        strategy: tf.distribute.Strategy,
    ) -> None:
        super().__init__(oracle, directory=working_dir, project_name="tuner", overwrite=True)
        self._first = first
        self._images, self._labels = data
        self._rows, validation = split_validation_set(
            len(self._images), first.validation_split, first.seed
        )
        self._validation_set = ValidationSet(
            self._images[validation], self._labels[validation], extractor
        )
        self._state_dir = state_dir
        self._strategy = strategy
        if first.resume:
            self._restore()
        else:
            self._remove(state_dir)

    def on_search_begin(self) -> None:
        done = len(self.oracle.trials)
        if done:
            _progress_log.info(f"the search resumes after {done} trials; {self._best()}")

    def on_trial_begin(self, trial: Trial) -> None:
        _progress_log.info(f"{self._title(trial)} ...{self._so_far()}")

    def run_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Trains with the trial's settings.

        Raises:
          FailedTrialError: if these settings cannot be trained; the search continues.
          FatalRuntimeError: after any other error, which ends the search.
        """
        del args, kwargs
        try:
            return {_OBJECTIVE: self._measure(trial.hyperparameters.values)}
        except ValidationError as error:
            reasons = "; ".join(problem["msg"] for problem in error.errors())
            raise FailedTrialError(f"refused: {reasons}") from error
        except (NonFiniteLossError, tf.errors.ResourceExhaustedError) as error:
            raise FailedTrialError(str(error).splitlines()[0]) from error
        except FailedTrialError:
            raise
        except Exception as error:
            raise FatalRuntimeError(f"{self._title(trial)}: {error}") from error

    def on_trial_end(self, trial: Trial) -> None:
        super().on_trial_end(trial)
        self._save()
        ended = self.oracle.get_trial(trial.trial_id)
        result = f"FID {ended.score:.2f}" if _is_complete(ended) else _reason(ended)
        _progress_log.info(f"{self._title(ended)}: {result}{self._so_far()}")
        # Frees the graphs of this trial.
        keras.utils.clear_session()

    def on_search_end(self) -> None:
        if not self._completed():
            reasons = "; ".join(dict.fromkeys(map(_reason, self.oracle.trials.values())))
            raise SearchError(f"all {len(self.oracle.trials)} trials failed: {reasons}")
        _progress_log.info(self._best())
        self._remove(f"{self._state_dir}/trials")

    def _measure(self, values: dict[str, Any]) -> float:
        settings = with_hyperparameters(self._first, values)
        try:
            training = prepare_training(
                settings,
                self._images[self._rows],
                self._labels[self._rows],
                validation_set=self._validation_set,
                strategy=self._strategy,
            )
        except ValueError as error:  # a batch that the replicas cannot share
            raise FailedTrialError(f"refused: {error}") from error
        key = checkpoint_key(recipe(settings), self._images, self._labels)
        checkpoints = Checkpoints(f"{self._state_dir}/trials", key, training.variables())
        metrics = None
        with stopping_on_signals(training.stop):
            for progress in train(training, checkpoints):
                metrics = progress.validation
        if is_chief(self._strategy):
            checkpoints.clear()
        if metrics is None or not math.isfinite(metrics.fid):
            raise FailedTrialError("the validation FID is not finite")
        return metrics.fid

    def _completed(self) -> list[Trial]:
        return [trial for trial in self.oracle.trials.values() if _is_complete(trial)]

    def _title(self, trial: Trial) -> str:
        number = list(self.oracle.trials).index(trial.trial_id) + 1
        changed = describe(self._first, trial.hyperparameters.values)
        return f"trial {number} of {self.oracle.max_trials}: {changed}"

    def _so_far(self) -> str:
        return f"; {self._best()}" if self._completed() else ""

    def _best(self) -> str:
        completed = self._completed()
        if not completed:
            return "no trial has a FID"
        best = min(completed, key=lambda trial: trial.score)
        number = list(self.oracle.trials).index(best.trial_id) + 1
        changed = describe(self._first, best.hyperparameters.values)
        return f"best so far FID {best.score:.2f}, trial {number} ({changed})"

    def _save(self) -> None:
        if not is_chief(self._strategy):
            return
        content = {
            "oracle": self.oracle.get_state(),
            "trials": [trial.get_state() for trial in self.oracle.trials.values()],
        }
        try:
            storage.write(f"{self._state_dir}/{_FILE}", json.dumps(content).encode())
        except (OSError, tf.errors.OpError) as error:
            raise SearchError(
                f"cannot save the search: {error}",
                self._state_dir,
                "free some space or check the permissions, and start the same run again: it "
                "resumes from the last saved trial",
            ) from error

    def _restore(self) -> None:
        path = f"{self._state_dir}/{_FILE}"
        if not storage.exists(path):
            return
        try:
            content = parse_json(storage.read(path))
            trials = [Trial.from_state(state) for state in content["trials"]]
            state = content["oracle"]
        except (ValueError, LookupError, TypeError) as error:
            _progress_log.warning(f"starting a new search: {path} is damaged: {error}")
            return
        self.oracle.trials.update({trial.trial_id: trial for trial in trials})
        self.oracle.set_state(state)

    def _remove(self, folder: str) -> None:
        if is_chief(self._strategy):
            storage.remove(folder)


def _is_complete(trial: Trial) -> bool:
    return trial.status == TrialStatus.COMPLETED


def _reason(trial: Trial) -> str:
    """Why a trial failed: the last line of the traceback in KerasTuner's record."""
    lines = (trial.message or "").strip().splitlines() or ["it has no FID"]
    return lines[-1].partition("Error: ")[2] or lines[-1]


def _digest(directory: str) -> str:
    """SHA-256 over the weights of a SavedModel."""
    digest = hashlib.sha256()
    for name in storage.names_in(f"{directory}/variables"):
        digest.update(storage.read(f"{directory}/variables/{name}"))
    return digest.hexdigest()
