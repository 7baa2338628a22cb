"""The training loop: updates, evaluations, checkpoints and progress until the budget is used."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from errors import UserError
from models.gan.averaged import AveragedGenerator
from models.gan.batches import TrainingData
from models.gan.budget import Budget, Interval
from models.gan.checkpoints import CheckpointError, Checkpoints
from models.gan.device_loop import DeviceLoop, NonFiniteLossError
from models.gan.devices import Workers, choose_precision
from models.gan.early_stopping import EarlyStopping
from models.gan.interruption import StopRequest
from models.gan.settings import TrainSettings
from models.gan.state import GanState, name_variables
from models.gan.validation import Validation, ValidationMetrics, ValidationSet
from models.gan.warm_start import TrainingLineage, WarmStart


class InterruptedTrainingError(UserError):
    """A training stopped on SIGTERM; its state is in a checkpoint if there is a folder for them."""

    exit_status = 143


@dataclass(frozen=True)
class Progress:
    """The progress of a training.

    Attributes:
      step: updates so far.
      seconds: of training so far, with tracing and evaluations, without the time that the caller
        takes between two reports.
      fraction: of the budget used, 0..1.
      steps_per_second: since the last report.
      scalars: means over the last call to the device: both losses and the mean logits.
      validation: metrics of the last evaluation; None before the first.
      start: what the training started from, see `TrainingLineage`.
    """

    step: int
    seconds: float
    fraction: float
    steps_per_second: float
    scalars: dict[str, float]
    validation: ValidationMetrics | None = None
    start: str = "cold"


@dataclass
class Training:
    """The parts of one training, for `train` to run.

    Attributes:
      settings: the recipe and the budget.
      gan: the networks, their optimizers and the EMA.
      device_loop: runs updates.
      workers: the processes that train together.
      validation: evaluates the averaged generator; None for no evaluations.
      early_stopping: the validation FIDs so far.
      warm_start: what the training started from.
      averaged: the generator with the EMA weights of the last evaluation or sample.
      best: the generator to export, once the training has ended.
      stop: a request to stop.
      resumed_step: updates before this process began, from a checkpoint.
    """

    settings: TrainSettings
    gan: GanState
    device_loop: DeviceLoop
    workers: Workers
    validation: Validation | None
    early_stopping: EarlyStopping
    warm_start: WarmStart
    averaged: AveragedGenerator
    best: AveragedGenerator
    stop: StopRequest
    resumed_step: int = 0

    @property
    def step(self) -> int:
        """Updates so far."""
        return int(self.gan.step.numpy())

    def variables(self) -> dict[str, tf.Variable]:
        """All variables that the rest of the training depends on, by name."""
        best = name_variables({"best": self.best.network.variables})
        return self.gan.variables() | best

    def generate(self, labels: np.ndarray) -> np.ndarray:
        """Generates an image per label int [n] with the current EMA weights, uint8 [n, 28, 28, 1].

        The latents are the same on every call.
        """
        self.averaged.set_weights(self.gan.ema)
        return self.averaged.generate(labels)


def prepare_training(
    settings: TrainSettings,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    validation_set: ValidationSet | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Training:
    """Copies the data to the devices and builds the parts of a training.

    Args:
      settings: the recipe and the budget.
      images: uint8 [n, 28, 28, 1].
      labels: int [n], 0..9.
      validation_set: for `settings.evaluations` evaluations; None for none.
      strategy: over the devices; None for one device.

    Raises:
      UserError: if the replicas cannot share a batch equally, or cannot be compiled by XLA.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if settings.batch_size % replicas:
        raise UserError(
            f"{replicas} replicas cannot share a batch equally",
            f"train.batch_size = {settings.batch_size}",
            f"choose a multiple of {replicas}",
        )
    with strategy.scope():
        data = TrainingData(settings, images, labels, replicas)
        gan = GanState(settings, choose_precision(settings.precision))
    validation = None
    if validation_set and settings.evaluations:
        validation = Validation(validation_set, settings.evaluations)
    return Training(
        settings=settings,
        gan=gan,
        device_loop=DeviceLoop(gan, data, strategy),
        workers=Workers(strategy),
        validation=validation,
        early_stopping=EarlyStopping(settings.patience),
        warm_start=WarmStart(settings.warm_start, gan.warm_start_variables()),
        averaged=AveragedGenerator(settings),
        best=AveragedGenerator(settings),
        stop=StopRequest(),
    )


def train(training: Training, checkpoints: Checkpoints | None = None) -> Iterator[Progress]:
    """Trains until the budget is used or early stopping ends it.

    Yields the progress at intervals and after each evaluation.

    At the end `training.best` is the averaged generator with the lowest validation FID or, without
    evaluations, the last one.

    Args:
      training: from `prepare_training`.
      checkpoints: of this training, to resume it from and to save it to; None for none.

    Raises:
      NonFiniteLossError: if a loss is NaN or infinite.
      InterruptedTrainingError: after the call to the device in which a stop was requested.
      CheckpointError: if a checkpoint cannot be read or written.
    """
    settings, workers, early_stopping = training.settings, training.workers, training.early_stopping

    # Resume from the newest checkpoint.
    budget = Budget(settings, _restore(training, checkpoints))
    checkpoint_interval = Interval(budget, settings.checkpoint_seconds)
    report_interval = Interval(budget, settings.report_seconds)
    reported_step = training.step
    steps = budget.first_steps()
    [fraction] = workers.agree(budget.fraction(training.step))

    while fraction < 1.0 and not early_stopping.should_stop:
        # Update both networks, many times per call to the device.
        started = budget.seconds
        scalars = _run_updates(training, budget, steps, fraction)
        steps = budget.next_steps(steps, budget.seconds - started)

        # Agree with the other workers on what comes next.
        fraction, steps, stop = workers.agree(
            budget.fraction(training.step), steps, training.stop.requested
        )

        # Evaluate the averaged generator and keep the best one.
        evaluated = False
        if training.validation and training.validation.is_due(fraction):
            _evaluate(training, training.validation, fraction)
            budget.reserved_seconds = training.validation.seconds
            evaluated = True
        ended = fraction >= 1.0 or early_stopping.should_stop

        # Save a checkpoint.
        if not ended and (stop or checkpoint_interval.is_over()):
            _save(training, checkpoints, budget.seconds)
            checkpoint_interval.restart()
        if stop and not ended:
            kept = "run again to resume it" if checkpoints else "no checkpoint was kept"
            raise InterruptedTrainingError(f"training stopped at step {training.step}; {kept}")

        # Report progress.
        if ended or evaluated or report_interval.is_over():
            steps_per_second = (training.step - reported_step) / report_interval.restart()
            reported_step = training.step
            progress = Progress(
                step=reported_step,
                seconds=budget.seconds,
                fraction=fraction,
                steps_per_second=steps_per_second,
                scalars=scalars,
                validation=training.validation.metrics if training.validation else None,
                start=training.warm_start.lineage.start,
            )
            with budget.paused():
                yield progress

    if not early_stopping.fids:
        training.best.set_weights(training.gan.ema)


def _run_updates(
    training: Training, budget: Budget, steps: int, fraction: float
) -> dict[str, float]:
    """Runs updates; falls back to a cold start if a warm one diverges before its evaluation."""
    loop, warm_start = training.device_loop, training.warm_start
    try:
        return loop.run(budget.clip_steps(steps, training.step), fraction)
    except NonFiniteLossError as error:
        if not warm_start.may_fall_back or training.early_stopping.fids:
            raise
        warm_start.fall_back(training.step, str(error).partition(".")[0])
    return loop.run(budget.clip_steps(steps, training.step), fraction)


def _evaluate(training: Training, validation: Validation, fraction: float) -> None:
    """Evaluates the averaged generator, keeps it if it is the best, and checks a warm start."""
    metrics = validation.evaluate(fraction, training.generate)
    # Machines may round differently, and have to make the same decisions.
    fid, relative_fid = training.workers.agree(metrics.fid, metrics.relative_fid)
    validation.metrics = dataclasses.replace(metrics, fid=fid, relative_fid=relative_fid)
    if training.early_stopping.add(fid):
        training.best.network.set_weights(training.averaged.network.get_weights())
    if len(training.early_stopping.fids) == 1:
        reason = training.warm_start.compare(relative_fid)
        if reason and fraction < 1.0:
            training.warm_start.fall_back(training.step, reason)
            training.early_stopping.reset()


def _restore(training: Training, checkpoints: Checkpoints | None) -> float:
    """Restores the newest checkpoint; returns the seconds of training before it."""
    if not checkpoints:
        return 0.0
    found = checkpoints.restore()
    [step] = training.workers.agree(float(training.step))
    if step != training.step:
        raise CheckpointError(
            f"this worker resumes the training at step {training.step}, and others at another step",
            checkpoints.directory,
            "name a folder that all workers share",
        )
    if not found:
        return 0.0
    training.resumed_step, extra = found
    training.early_stopping.reset(extra["fids"])
    training.warm_start.lineage = TrainingLineage(**extra["lineage"])
    if training.validation:
        training.validation.done = extra["evaluations"]
    return extra["seconds"]


def _save(training: Training, checkpoints: Checkpoints | None, seconds: float) -> None:
    if checkpoints and training.workers.is_chief:
        extra = {
            "seconds": seconds,
            "fids": training.early_stopping.fids,
            "evaluations": training.validation.done if training.validation else 0,
            "lineage": dataclasses.asdict(training.warm_start.lineage),
        }
        checkpoints.save(training.step, extra)
