"""Typed settings of the hyperparameter search, and its search space.

Importing this module imports no TensorFlow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.gan.settings import TrainSettings

Parameter = Literal[
    "generator_channels",
    "discriminator_channels",
    "latent_dim",
    "augmentation",
    "loss",
    "generator_learning_rate",
    "discriminator_learning_rate",
    "beta_1",
    "r1_weight",
    "batch_size",
    "ema_decay",
]
Scalar = str | int | float


@dataclass(frozen=True)
class LogRange:
    """Numbers from `low` to `high`, sampled uniformly on a logarithmic scale."""

    low: float
    high: float


# For each searched field of TrainSettings the values that are tried beside the current one.
SPACE: Mapping[Parameter, tuple[Any, ...] | LogRange] = {
    "generator_channels": ((64, 32, 0), (96, 48, 0), (128, 64, 0), (64, 32, 16), (128, 64, 32)),
    "discriminator_channels": ((16, 32, 64), (32, 64, 128), (48, 96, 192), (64, 128, 256)),
    "latent_dim": (32, 64, 128),
    "augmentation": ((), ("translation",), ("translation", "cutout")),
    # Not wasserstein: it needs spectral normalization or a gradient penalty, the others do not.
    "loss": ("non_saturating", "least_squares", "hinge", "relativistic"),
    "generator_learning_rate": LogRange(2e-4, 8e-3),
    "discriminator_learning_rate": LogRange(2e-4, 8e-3),
    "beta_1": (0.0, 0.25, 0.5, 0.7, 0.9),
    "r1_weight": (0.0, 0.05, 0.25, 1.0, 4.0),
    "batch_size": (16, 32, 64, 128, 256),
    "ema_decay": (0.99, 0.995, 0.998, 0.999),
}


class TuneSettings(BaseModel):
    """The hyperparameter search before the training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(
        False, description="whether to search first, and to train with the best settings"
    )
    trials: int = Field(
        12, ge=1, le=10_000, description="number of trials; the first has the current settings"
    )
    seconds: float | None = Field(
        60.0, gt=0, le=864_000, description="wall-clock budget of a trial, seconds; null: by steps"
    )
    steps: int | None = Field(
        None, ge=1, le=100_000_000, description="a trial's generator updates; null: by time alone"
    )
    algorithm: Literal["random", "bayesian"] = Field(
        "random", description="how trials are chosen; bayesian: by the FIDs so far, from trial 7"
    )
    parameters: tuple[Parameter, ...] = Field(
        get_args(Parameter),
        min_length=1,
        description="settings of train that are searched; the search space is in "
        "models/gan/tuning_settings.py",
    )

    @model_validator(mode="after")
    def _refuse_an_endless_trial(self) -> "TuneSettings":
        if self.seconds is None and self.steps is None:
            raise ValueError("seconds and steps are both null: no trial would ever end")
        return self

    def of_a_trial(self, train: TrainSettings) -> TrainSettings:
        """The settings of the first trial: the current ones, with a trial's budget.

        A trial is evaluated once, at its end, so that no trial wins by more evaluations.
        """
        budget = {
            "max_seconds": self.seconds,
            "max_steps": self.steps,
            "deterministic": train.deterministic and self.seconds is None,
            "evaluations": 1,
            "patience": None,
        }
        return TrainSettings.model_validate(train.model_dump() | budget)


def to_scalar(value: Any) -> Scalar:
    """Converts a setting's value to a scalar for KerasTuner, such as (96, 48, 0) to `96-48-0`."""
    return ("-".join(map(str, value)) or "none") if isinstance(value, tuple) else value


def with_hyperparameters(train: TrainSettings, values: Mapping[str, Scalar]) -> TrainSettings:
    """Replaces settings by hyperparameters.

    Args:
      train: the settings.
      values: scalars as from `to_scalar`, by the names of fields.

    Returns:
      The validated settings.

    Raises:
      ValidationError: for a value out of range, an unknown name, or an invalid combination.
    """
    replaced = {
        name: _from_scalar(value) if isinstance(getattr(train, name, None), tuple) else value
        for name, value in values.items()
    }
    return TrainSettings.model_validate(train.model_dump() | replaced)


def describe(train: TrainSettings, values: Mapping[str, Scalar]) -> str:
    """Describes the hyperparameters that differ from the settings."""
    changed = [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if value != to_scalar(getattr(train, name))
    ]
    return ", ".join(changed) or "the current settings"


def _from_scalar(text: Scalar) -> list[str]:
    return [] if text == "none" else str(text).split("-")
