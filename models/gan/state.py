"""The state of a GAN in training: networks, optimizers, moving average and step counters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from models.gan.devices import trains_on_cpu
from models.gan.fused_adam import FusedAdam
from models.gan.networks import build_discriminator, build_generator
from models.gan.settings import TrainSettings


class GanState:
    """Both networks, their optimizers, the generator's moving average and the step counters.

    Attributes:
      settings: the recipe.
      generator: from `build_generator`.
      discriminator: from `build_discriminator`.
      generator_optimizer: a Keras optimizer, under float16 within a `LossScaleOptimizer`.
      discriminator_optimizer: like `generator_optimizer`.
      ema: exponential moving averages (EMA) of the generator's trainable variables, float32.
      step: int64 scalar, updates in this training.
      total_steps: int64 scalar, updates since the weights were initialized. It is larger than
        `step` after a warm start.
    """

    def __init__(self, settings: TrainSettings, precision: str = "float32") -> None:
        """Creates all variables; has to be called within the strategy's scope.

        Args:
          settings: the recipe.
          precision: a Keras dtype policy, such as "mixed_bfloat16".
        """
        self.settings = settings
        self.generator = build_generator(settings, precision, cpu_gradients=trains_on_cpu())
        self.discriminator = build_discriminator(settings, self.generator, precision)
        self.ema = [
            tf.Variable(variable.numpy(), trainable=False)
            for variable in self.generator.trainable_variables
        ]
        # In float16 the gradients of an unscaled loss would underflow.
        scale_loss = precision == "mixed_float16"
        rate = settings.generator_learning_rate
        self.generator_optimizer = _build_optimizer(settings, rate, scale_loss)
        self.generator_optimizer.build(self.generator.trainable_variables)
        rate = settings.discriminator_learning_rate
        self.discriminator_optimizer = _build_optimizer(settings, rate, scale_loss)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.total_steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="total_steps")

    def set_learning_rates(self, scale: tf.Tensor) -> None:
        """Sets both learning rates to those of the settings times a float32 scalar."""
        for optimizer, rate in (
            (self.generator_optimizer, self.settings.generator_learning_rate),
            (self.discriminator_optimizer, self.settings.discriminator_learning_rate),
        ):
            inner = getattr(optimizer, "inner_optimizer", optimizer)
            inner.learning_rate.assign(rate * scale)

    def warm_start_variables(self) -> dict[str, tf.Variable]:
        """All variables but `step`, by name: what a warm start takes from another training."""
        return name_variables(
            {
                "generator": self.generator.variables,
                "discriminator": self.discriminator.variables,
                "generator_optimizer": self.generator_optimizer.variables,
                "discriminator_optimizer": self.discriminator_optimizer.variables,
                "ema": self.ema,
                "total_steps": [self.total_steps],
            }
        )

    def variables(self) -> dict[str, tf.Variable]:
        """All variables, by name."""
        return self.warm_start_variables() | name_variables({"step": [self.step]})


def name_variables(groups: Mapping[str, Sequence[Any]]) -> dict[str, tf.Variable]:
    """Names variables by their group and position, such as "generator_007".

    Args:
      groups: Keras or TensorFlow variables by group. A variable that occurs twice, such as a tied
        kernel, gets the first of its names alone.

    Returns:
      TensorFlow variables by name.
    """
    named: dict[str, tf.Variable] = {}
    seen: set[int] = set()
    for group, variables in groups.items():
        for position, variable in enumerate(variables):
            inner = variable.value if isinstance(variable, keras.Variable) else variable
            if id(inner) not in seen:
                seen.add(id(inner))
                named[f"{group}_{position:03d}"] = inner
    return named


def _build_optimizer(
    settings: TrainSettings, rate: float, scale_loss: bool
) -> keras.optimizers.Optimizer:
    builders: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
        "sgd": lambda: keras.optimizers.SGD(rate),
        "momentum": lambda: keras.optimizers.SGD(rate, momentum=settings.beta_1),
        "adam": lambda: FusedAdam(rate, settings.beta_1, settings.beta_2),
        "rmsprop": lambda: keras.optimizers.RMSprop(rate, rho=settings.beta_2),
    }
    optimizer = builders[settings.optimizer]()
    return keras.optimizers.LossScaleOptimizer(optimizer) if scale_loss else optimizer
