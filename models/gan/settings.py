"""Typed settings of the GAN's training, shared by the pipeline's configuration and `run_fn`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Activation = Literal["relu", "leaky_relu", "elu"]
Normalisation = Literal["none", "batch"]


class TrainSettings(BaseModel):
    """The recipe and the budget of one training; the defaults are the `default` preset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_seconds: float | None = Field(
        240.0, gt=0, le=864_000, description="wall-clock budget of the training, seconds"
    )
    max_steps: int | None = Field(
        None, ge=1, le=100_000_000, description="budget of generator updates; null: by time alone"
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of weights, batches and noise")
    batch_size: int = Field(64, ge=2, le=65_536, description="real digits per update")
    steps_per_call: int = Field(
        32, ge=1, le=10_000, description="updates per call from the host to the device"
    )
    report_seconds: float = Field(
        10.0, gt=0, le=3600, description="time between progress lines and scalars, seconds"
    )
    sample_seconds: float = Field(
        60.0, gt=0, le=86_400, description="time between sample grids, seconds"
    )

    conditional: bool = Field(True, description="whether both networks are told the digit")
    latent_dim: int = Field(64, ge=1, le=4096, description="size of the latent vector")
    latent: Literal["normal", "uniform"] = Field(
        "normal", description="latent distribution: N(0, 1) or U(-1, 1)"
    )
    generator_channels: tuple[int, int, int] = Field(
        (96, 48, 24), description="generator's channels at 7x7, 14x14 and 28x28, each 1 or more"
    )
    discriminator_channels: tuple[int, int, int] = Field(
        (32, 64, 128), description="discriminator's channels at 14x14, 7x7 and 4x4, each 1 or more"
    )
    generator_activation: Activation = Field("relu", description="generator's activation")
    discriminator_activation: Activation = Field(
        "leaky_relu", description="discriminator's activation"
    )
    leaky_slope: float = Field(0.2, ge=0, lt=1, description="slope of the leaky ReLU below 0")
    initialisation: Literal["keras", "normal", "he"] = Field(
        "keras", description="weights: Keras' default (Glorot), N(0, 0.02), or He; biases are 0"
    )
    generator_normalisation: Normalisation = Field("batch", description="generator's normalisation")
    discriminator_normalisation: Normalisation = Field(
        "none", description="discriminator's normalisation"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="discriminator's dropout rate")

    loss: Literal["non_saturating", "minimax", "least_squares", "hinge"] = Field(
        "non_saturating", description="the pair of losses, see models/gan/losses.py"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="one-sided: real targets of BCE become 1 minus this"
    )
    instance_noise: float = Field(
        0.0,
        ge=0,
        le=2,
        description="standard deviation of noise on the discriminator's input, falling to 0",
    )
    r1_weight: float = Field(0.25, ge=0, le=1000, description="weight of the R1 gradient penalty")
    r1_interval: int = Field(16, ge=1, le=1000, description="updates between R1 penalties")

    optimiser: Literal["sgd", "momentum", "adam", "rmsprop"] = Field(
        "adam", description="optimiser of both networks"
    )
    generator_learning_rate: float = Field(1e-3, gt=0, le=1, description="generator's rate")
    discriminator_learning_rate: float = Field(1e-3, gt=0, le=1, description="discriminator's rate")
    final_learning_rate: float = Field(
        0.1, gt=0, le=1, description="share of the rate left at the end; falls in the second half"
    )
    beta_1: float = Field(0.5, ge=0, lt=1, description="Adam's beta 1, or the momentum")
    beta_2: float = Field(0.99, ge=0, lt=1, description="Adam's beta 2, or RMSprop's rho")
    ema_decay: float = Field(
        0.998, ge=0, lt=1, description="decay per update of the generator's moving average"
    )

    @model_validator(mode="after")
    def _refuse_what_cannot_work(self) -> "TrainSettings":
        if self.max_seconds is None and self.max_steps is None:
            raise ValueError("max_seconds and max_steps are both null: training would never end")
        if min(*self.generator_channels, *self.discriminator_channels) < 1:
            raise ValueError("generator_channels and discriminator_channels must each be 1 or more")
        if self.label_smoothing and self.loss not in ("non_saturating", "minimax"):
            raise ValueError(f"label_smoothing applies to BCE, not to loss={self.loss}")
        return self
