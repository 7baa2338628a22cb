"""The training loop: many updates per host call, on data that stays on the device."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.gan.averaged import AveragedGenerator
from models.gan.checkpoints import CheckpointError, Checkpoints
from models.gan.devices import choose_precision, choose_xla, is_chief
from models.gan.held_out import HeldOut, Judgement, Patience
from models.gan.settings import TrainSettings
from models.gan.update import SCALARS, GanUpdate
from models.gan.warm_start import Course, Start

_CALL_SECONDS = 2.0
_log = logging.getLogger("mnist_gan.progress")


class NonFiniteLossError(RuntimeError):
    """Training diverged: a loss is NaN or infinite."""


class InterruptedTrainingError(RuntimeError):
    """Training was asked to stop, and stopped with its state in a checkpoint."""


@dataclass(frozen=True)
class Progress:
    """Where the training stands.

    Attributes:
      step: updates done so far.
      seconds: of training so far, with graph building and evaluations, without the time that the
        caller of `fit` takes between two intervals.
      fraction: of the budget used, 0..1.
      steps_per_second: over the last interval.
      scalars: means over the last host call: both losses and the mean logits.
      judgement: the last by held-out digits; None before the first.
      start: where the training began, in words.
    """

    step: int
    seconds: float
    fraction: float
    steps_per_second: float
    scalars: dict[str, float]
    judgement: Judgement | None = None
    start: str = "cold"


class GanTrainer:
    """A training: its networks, its budget, its evaluations and its checkpoints."""

    def __init__(
        self,
        settings: TrainSettings,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        held_out: HeldOut | None = None,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        """Puts the data on the devices and builds the networks.

        Args:
          settings: the recipe.
          images: uint8 [n, 28, 28, 1].
          labels: int [n], 0..9.
          held_out: judges the generator in between; None for no evaluations.
          strategy: over the devices; None for one device.

        Raises:
          ValueError: when the replicas cannot share a batch equally.
        """
        self.settings = settings
        self.stop_requested = False
        self._held_out = held_out if settings.evaluations else None
        self._strategy = strategy or tf.distribute.get_strategy()
        replicas = self._strategy.num_replicas_in_sync
        if settings.batch_size % replicas:
            raise ValueError(
                f"train.batch_size = {settings.batch_size} cannot be shared by {replicas} "
                f"replicas: choose a multiple of {replicas}"
            )
        with self._strategy.scope():
            self.update = GanUpdate(
                settings,
                images,
                labels,
                precision=choose_precision(settings.precision),
                replicas=replicas,
            )
        # With its loop: a GPU has done one update before the host has launched the next.
        xla = choose_xla(settings.xla, replicas)
        self._run_on_device = tf.function(self._run_updates, jit_compile=xla or None)
        self.average = AveragedGenerator(settings)
        self.best = AveragedGenerator(settings)
        self._patience = Patience(settings.patience)
        self._evaluated = 0
        self._evaluation_seconds = 0.0
        self._judgement: Judgement | None = None
        self.course = Course()
        self._cold_values: dict[str, np.ndarray] = {}

    @property
    def step(self) -> int:
        """Updates of the generator so far."""
        return int(self.update.step.numpy())

    def fit(self, checkpoints: Checkpoints | None = None) -> Iterator[Progress]:
        """Trains until the budget is used up, yielding after every interval and at the end.

        What to export is then `best`: the averaged generator at its lowest FID on the held-out
        digits, or at the end where there are no evaluations.

        Args:
          checkpoints: where to take up an interrupted training, and to keep this one's state.

        Raises:
          NonFiniteLossError: when a loss is no longer finite.
          InterruptedTrainingError: some time after `stop_requested` was set.
          CheckpointError: when a checkpoint cannot be read or written.
        """
        clock = _Clock(self._restore(checkpoints))
        saving = _Timer(clock, self.settings.checkpoint_seconds)
        reporting = _Timer(clock, self.settings.report_seconds)
        last_step = self.step
        steps = 1 if self.settings.max_seconds else self.settings.steps_per_execution
        [fraction] = self._agree(self._fraction(clock.seconds))
        while fraction < 1.0 and not self._patience.exhausted:
            called_at = clock.seconds
            scalars = self._run_or_go_cold(steps, fraction)
            steps = self._next_steps(steps, clock.seconds - called_at)
            fraction, steps, stop = self._agree(
                self._fraction(clock.seconds), steps, self.stop_requested
            )
            self._evaluate_if_due(fraction)
            ended = fraction >= 1.0 or self._patience.exhausted
            if not ended and (stop or saving.is_due()):
                self._save(checkpoints, clock.seconds)
                saving.restart()
            if stop and not ended:
                kept = "run again to take it up there" if checkpoints else "nothing was kept"
                raise InterruptedTrainingError(f"training was stopped at step {self.step}; {kept}")
            if ended or reporting.is_due():
                rate = (self.step - last_step) / reporting.restart()
                last_step = self.step
                progress = Progress(
                    last_step,
                    clock.seconds,
                    fraction,
                    rate,
                    scalars,
                    self._judgement,
                    self.course.start,
                )
                with clock.stopped():
                    yield progress
        if not self._patience.fids:
            self.best.set_weights(self.update.average)

    def sample(self, digits: np.ndarray) -> np.ndarray:
        """Draws a picture for each of the digits int [n] from the average, uint8 [n, 28, 28, 1].

        The latents are the same on every call.
        """
        self.average.set_weights(self.update.average)
        return self.average.draw(digits)

    def begin_from(self, start: Start) -> None:
        """Takes up where another training ended: its networks, optimizers and average.

        Args:
          start: from `find_start`, which has seen to it that it fits.
        """
        variables = self.lasting_variables()
        self._cold_values = {name: variable.numpy() for name, variable in variables.items()}
        _assign(variables, start.values)
        self.course = Course(
            start=f"warm from version {start.version}",
            origin=start.digest,
            is_warm=True,
            cold=start.cold,
        )

    def lasting_variables(self) -> dict[str, Any]:
        """What a later training can begin from, by name: what says nothing of this one's budget."""
        named = self.variables()
        return {name: named[name] for name in named if not name.startswith(("best_", "step_"))}

    def variables(self) -> dict[str, Any]:
        """All that the course of the training depends on, by name."""
        update = self.update
        groups = {
            "generator": update.generator.variables,
            "discriminator": update.discriminator.variables,
            "generator_optimizer": update.generator_optimizer.variables,
            "discriminator_optimizer": update.discriminator_optimizer.variables,
            "average": update.average,
            "best": self.best.network.variables,
            "step": [update.step],
            "age": [update.age],
        }
        named: dict[str, Any] = {}
        seen: set[int] = set()
        for group, variables in groups.items():
            for position, variable in enumerate(variables):
                inner = variable.value if isinstance(variable, keras.Variable) else variable
                # A variable that both networks share is one, and saved once.
                if id(inner) not in seen:
                    seen.add(id(inner))
                    named[f"{group}_{position:03d}"] = inner
        return named

    def _restore(self, checkpoints: Checkpoints | None) -> float:
        """Takes up the newest checkpoint; returns the seconds trained before it."""
        if not checkpoints:
            return 0.0
        found = checkpoints.restore()
        [step] = self._agree(float(self.step))
        if step != self.step:
            raise CheckpointError(
                f"this worker takes the training up at step {self.step}, and others elsewhere: "
                f"{checkpoints.directory} must be a folder that all of them see"
            )
        if not found:
            return 0.0
        _, extra = found
        self._patience = Patience(self.settings.patience, extra["fids"])
        self._evaluated = extra["evaluated"]
        self.course = Course(**extra["course"])
        return extra["seconds"]

    def _save(self, checkpoints: Checkpoints | None, seconds: float) -> None:
        if checkpoints and is_chief(self._strategy):
            extra = {
                "seconds": seconds,
                "fids": self._patience.fids,
                "evaluated": self._evaluated,
                "course": dataclasses.asdict(self.course),
            }
            checkpoints.save(self.step, extra)

    def _evaluate_if_due(self, fraction: float) -> None:
        due = int(fraction * self.settings.evaluations + 1e-9)
        if not self._held_out or due <= self._evaluated:
            return
        started = time.monotonic()
        self._evaluated = due
        asked = self._held_out.labels
        judgement = self._held_out.judge(self.sample(asked), asked)
        # Machines may round differently, and have to come to the same end.
        fid, relative = self._agree(judgement.fid, judgement.relative)
        self._judgement = dataclasses.replace(judgement, fid=fid, relative=relative)
        if self._patience.is_best(fid):
            self.best.network.set_weights(self.average.network.get_weights())
        self._evaluation_seconds = time.monotonic() - started
        if len(self._patience.fids) == 1:
            self._weigh_start(relative, fraction)

    def _weigh_start(self, relative: float, fraction: float) -> None:
        """Notes how good a cold start is by its first evaluation, or holds a warm one to that.

        Args:
          relative: of the first judgement.
          fraction: of the budget used.
        """
        course = self.course
        if not course.is_warm:
            self.course = dataclasses.replace(course, cold=relative)
        elif self.settings.warm_start == "auto" and course.cold is not None and fraction < 1.0:
            found = f"{relative:.3g} of the variance at the first evaluation"
            if relative <= course.cold:
                _log.info(f"{course.start}: {found}, where a cold start had {course.cold:.3g}")
            else:
                self._go_cold(f"{found}, where a cold start had {course.cold:.3g}")

    def _run_or_go_cold(self, steps: int, fraction: float) -> dict[str, float]:
        """`run_steps`; a warm start that diverges before it was judged is given up under `auto`."""
        try:
            return self.run_steps(steps, fraction)
        except NonFiniteLossError as error:
            is_judged = bool(self._patience.fids)
            if not self.course.is_warm or self.settings.warm_start != "auto" or is_judged:
                raise
            self._go_cold(str(error).partition(".")[0])
        return self.run_steps(steps, fraction)

    def _go_cold(self, reason: str) -> None:
        """Begins again with the weights that the seed draws and what is left of the budget."""
        before = self.course.start
        _assign(self.lasting_variables(), self._cold_values)
        self._patience = Patience(self.settings.patience)
        start = f"cold at step {self.step}, since {before} gave {reason}"
        self.course = dataclasses.replace(self.course, start=start, is_warm=False, cold=None)
        _log.warning(f"{before}: {reason}; the rest of the budget goes to a cold start")

    def _fraction(self, seconds: float) -> float:
        by_time = 0.0
        if self.settings.max_seconds:
            # Leaves time for the last evaluation.
            budget = max(self.settings.max_seconds - self._evaluation_seconds, 1e-6)
            by_time = seconds / budget
        by_step = self.step / self.settings.max_steps if self.settings.max_steps else 0.0
        return min(max(by_time, by_step), 1.0)

    def _next_steps(self, steps: int, seconds: float) -> int:
        """Updates for the next call: `steps_per_execution`, or what fits into `_CALL_SECONDS`.

        Short calls keep a busy or slow machine from overrunning the budget; the count does not
        change what is computed, but for where in a call the learning rate is set.
        """
        if self.settings.max_seconds is None:
            return self.settings.steps_per_execution
        fitting = int(steps * _CALL_SECONDS / max(seconds, 1e-6))
        return min(max(fitting, 1), 4 * steps, self.settings.steps_per_execution)

    def _agree(self, *values: float) -> list[Any]:
        """The mean over all processes of what each of them has seen; of one process, its own."""
        if not isinstance(self._strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return list(values)
        replicas = self._strategy.num_replicas_in_sync
        total = self._total(tf.constant([float(v) for v in values], tf.float64)).numpy() / replicas
        return [type(value)(mean) for value, mean in zip(values, total, strict=True)]

    @tf.function
    def _total(self, values: tf.Tensor) -> tf.Tensor:
        return self._strategy.reduce("SUM", self._strategy.run(tf.identity, [values]), axis=None)

    def run_steps(self, steps: int, fraction: float) -> dict[str, float]:
        """Runs `steps` updates, at most to the end of the budget, in one call of the device.

        Args:
          steps: 1 or more.
          fraction: of the budget used, which sets the learning rates and the noise.

        Returns:
          Means of `SCALARS`, by name.

        Raises:
          NonFiniteLossError: when one of them is not finite.
        """
        if self.settings.max_steps:
            steps = min(steps, self.settings.max_steps - self.step)
        rate = self.settings.warm_learning_rate if self.course.is_warm else 1.0
        arguments = (tf.constant(fraction, tf.float32), tf.constant(rate, tf.float32))
        means = self._run_on_device(tf.constant(steps), *arguments).numpy()
        scalars = dict(zip(SCALARS, means.tolist(), strict=True))
        if not np.isfinite(means).all():
            found = ", ".join(f"{name} {value:g}" for name, value in scalars.items())
            raise NonFiniteLossError(
                f"training diverged before step {self.step}: {found}. Lower "
                "train.generator_learning_rate and train.discriminator_learning_rate, raise "
                "train.r1_weight, or choose another train.loss."
            )
        return scalars

    def _run_updates(self, steps: tf.Tensor, fraction: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        """Runs `steps` updates; returns the means of `SCALARS`, float32 [4]."""
        fall = 1.0 - self.settings.final_learning_rate
        self.update.set_rates(
            rate * (1.0 - fall * tf.clip_by_value(2.0 * fraction - 1.0, 0.0, 1.0))
        )
        deviation = self.settings.instance_noise * (1.0 - fraction)
        total = tf.zeros([len(SCALARS)])
        done = tf.constant(0)
        while done < steps:  # Not tf.range, for whose every length XLA would compile anew.
            scalars = self._strategy.run(self.update, [deviation])
            total += self._strategy.reduce("MEAN", scalars, axis=None)
            self.update.step.assign_add(1)
            self.update.age.assign_add(1)
            done += 1
        return total / tf.cast(steps, tf.float32)


def _assign(variables: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> None:
    for name, variable in variables.items():
        variable.assign(values[name])


class _Clock:
    """Seconds of a training that may have been interrupted."""

    def __init__(self, before: float) -> None:
        self._origin = time.monotonic() - before

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._origin

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Leaves out the time spent within."""
        since = time.monotonic()
        yield
        self._origin += time.monotonic() - since


class _Timer:
    """Says when an interval is over."""

    def __init__(self, clock: _Clock, interval: float) -> None:
        self._clock = clock
        self._interval = interval
        self._since = clock.seconds

    def is_due(self) -> bool:
        return self._clock.seconds - self._since >= self._interval

    def restart(self) -> float:
        """Begins an interval; returns the seconds since the last."""
        before, self._since = self._since, self._clock.seconds
        return self._since - before
