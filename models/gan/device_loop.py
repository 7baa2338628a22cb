"""Many updates per call from the host to the device."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from errors import UserError
from models.gan.batches import TrainingData
from models.gan.devices import choose_xla
from models.gan.state import GanState
from models.gan.update import SCALARS, update_networks


class NonFiniteLossError(UserError):
    """Training diverged: a loss or a logit is NaN or infinite."""

    exit_status = 1


class DeviceLoop:
    """Runs updates in a loop on the devices, with the learning rates and noise of the schedule.

    Attributes:
      function: the compiled loop, a `tf.function` of the number of updates (int32), the fraction of
        the budget used (float32) and a factor on both learning rates (float32).
    """

    def __init__(
        self,
        gan: GanState,
        data: TrainingData,
        strategy: tf.distribute.Strategy,
        update: Callable[[GanState, TrainingData, tf.Tensor], tf.Tensor] = update_networks,
    ) -> None:
        """Traces nothing yet.

        Args:
          gan: what is updated.
          data: the training images.
          strategy: over the devices.
          update: one update on one replica, see `update_networks`.

        Raises:
          ValueError: if several replicas are to be compiled by XLA.
        """
        self._gan = gan
        self._data = data
        self._strategy = strategy
        self._update = update
        # XLA compiles the loop too: a GPU finishes an update before the host launches the next.
        xla = choose_xla(gan.settings.xla, data.replicas)
        self.function = tf.function(self._run, jit_compile=xla or None)

    def run(self, steps: int, fraction: float) -> dict[str, float]:
        """Runs updates in one call.

        Args:
          steps: how many, 1 or more.
          fraction: of the budget used, 0..1, which sets the learning rates and the noise.

        Returns:
          Means of `SCALARS` over the updates, by name.

        Raises:
          NonFiniteLossError: if a mean is NaN or infinite.
        """
        means = self.function(tf.constant(steps), tf.constant(fraction, tf.float32)).numpy()
        scalars = dict(zip(SCALARS, means.tolist(), strict=True))
        if not np.isfinite(means).all():
            values = ", ".join(f"{name} {value:g}" for name, value in scalars.items())
            raise NonFiniteLossError(
                f"training diverged before step {int(self._gan.step.numpy())}: {values}",
                fix="lower train.generator_learning_rate and train.discriminator_learning_rate, "
                "raise train.r1_weight, or choose another train.loss",
            )
        return scalars

    def _run(self, steps: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
        gan, settings = self._gan, self._gan.settings
        # Constant learning rates, then linear decay over the second half of the budget.
        decay = 1.0 - settings.final_learning_rate_factor
        gan.set_learning_rates(1.0 - decay * tf.clip_by_value(2.0 * fraction - 1.0, 0.0, 1.0))
        noise_std = settings.instance_noise * (1.0 - fraction)
        total = tf.zeros([len(SCALARS)])
        done = tf.constant(0)
        while done < steps:  # Not tf.range: XLA would compile the loop again for each length.
            scalars = self._strategy.run(self._update, [gan, self._data, noise_std])
            total += self._strategy.reduce("MEAN", scalars, axis=None)
            gan.step.assign_add(1)
            gan.total_steps.assign_add(1)
            done += 1
        return total / tf.cast(steps, tf.float32)
