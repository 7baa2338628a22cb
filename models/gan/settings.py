"""Typed settings of the GAN's training, shared by the pipeline's configuration and `run_fn`.

Importing this module imports no TensorFlow.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.gan.losses import LOSSES

if TYPE_CHECKING:
    Loss = str
else:
    Loss = Literal[tuple(LOSSES)]

Activation = Literal["relu", "leaky_relu", "elu"]
Augmentation = Literal["translation", "cutout", "brightness", "contrast"]


class TrainSettings(BaseModel):
    """The recipe and the budget of one training; the defaults are the `default` preset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_seconds: float | None = Field(
        240.0, gt=0, le=864_000, description="wall-clock budget of the training, seconds"
    )
    max_steps: int | None = Field(
        None, ge=1, le=100_000_000, description="budget of generator updates; null: by time alone"
    )
    seed: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="seed of weights, batches, noise and the choice of trials",
    )
    deterministic: bool = Field(
        False, description="same weights from every run on the same device; needs max_steps alone"
    )
    batch_size: int = Field(
        32, ge=2, le=65_536, description="real images per update, over all replicas together"
    )
    steps_per_execution: int = Field(
        32, ge=1, le=10_000, description="updates per call from the host to the device, as in Keras"
    )
    report_seconds: float = Field(
        10.0, gt=0, le=3600, description="time between progress lines and scalars, seconds"
    )
    checkpoint_seconds: float = Field(
        60.0, gt=0, le=86_400, description="time between checkpoints, seconds"
    )
    resume: bool = Field(
        True, description="whether to resume an interrupted training of the same settings and data"
    )
    warm_start: Literal["none", "served", "auto"] = Field(
        "none",
        description="initial state of networks, optimizers and moving average: none: random, from "
        "the seed; served: the final state of the served model's training; auto: as served, with a "
        "fallback to random where the first evaluation is worse than a cold start's was",
    )
    evaluations: int = Field(
        4,
        ge=0,
        le=10_000,
        description="validation FIDs over the budget; the best generator is kept",
    )
    validation_split: float = Field(
        0.05, ge=0.01, le=0.5, description="share of the train split used as validation set"
    )
    patience: int | None = Field(
        None, ge=1, le=10_000, description="evaluations without a lower FID before early stopping"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the networks' arithmetic; auto: the fastest on the GPU"
    )
    xla: Literal["auto", "on", "off"] = Field(
        "auto", description="whether XLA compiles the update; auto: on GPUs"
    )

    conditional: bool = Field(True, description="whether both networks take the label as input")
    latent_dim: int = Field(64, ge=1, le=4096, description="size of the latent vector")
    latent: Literal["normal", "uniform"] = Field(
        "normal", description="latent distribution: N(0, 1) or U(-1, 1)"
    )
    latent_scale: float = Field(
        1.0,
        gt=0,
        le=2,
        description="factor on the latents when a trained generator samples: above 1 for more "
        "diversity, below 1 for less (the truncation trick, Brock et al. 2019)",
    )
    generator_channels: tuple[int, int, int] = Field(
        (96, 48, 8),
        description="generator's channels at 7x7, 14x14 and 28x28, each 1 or more; 0 for the last: "
        "from 14x14 straight to the image",
    )
    discriminator_channels: tuple[int, int, int] = Field(
        (32, 64, 128), description="discriminator's channels at 14x14, 7x7 and 4x4, each 1 or more"
    )
    generator_activation: Activation = Field("relu", description="generator's activation")
    log_intensity_channels: bool = Field(
        False,
        description="whether the discriminator has two more input channels: the logarithms of "
        "the distances from black and from white",
    )
    generator_output: Literal["levels", "tanh"] = Field(
        "levels",
        description="generator's last activation: tanh, or whole gray levels from black, 0, to "
        "each image's own white, 252 to 255, as in MNIST",
    )
    discriminator_activation: Activation = Field(
        "leaky_relu", description="discriminator's activation"
    )
    initializer: Literal["keras", "normal", "he"] = Field(
        "keras", description="weights: Keras' default (Glorot), N(0, 0.02), or He; biases are 0"
    )
    generator_normalization: Literal["none", "batch"] = Field(
        "batch", description="generator's normalization"
    )
    discriminator_normalization: Literal["none", "batch", "spectral"] = Field(
        "none", description="discriminator's normalization"
    )
    tie_projection: bool = Field(
        False,
        description="the discriminator's last hidden layer is the transposed first "
        "linear layer of the generator",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="discriminator's dropout rate")

    loss: Loss = Field(
        "non_saturating", description="losses of both networks, see models/gan/losses.py"
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
    auxiliary_loss_weight: float = Field(
        0.2,
        ge=0,
        le=100,
        description="weight in both losses of the discriminator's classification cross-entropy "
        "(AC-GAN, Odena et al. 2017), when conditional",
    )
    augmentation: tuple[Augmentation, ...] = Field(
        (), description="differentiable augmentation of what the discriminator sees, in order"
    )
    r1_weight: float = Field(
        0.25, ge=0, le=1000, description="weight of the gradient penalty on real images (R1)"
    )
    r2_weight: float = Field(
        0.0, ge=0, le=1000, description="weight of the gradient penalty on fake images (R2)"
    )
    penalty_interval: int = Field(
        16, ge=1, le=1000, description="updates between R1 and R2 (lazy regularization)"
    )
    gradient_penalty_weight: float = Field(
        0.0, ge=0, le=1000, description="weight of WGAN-GP's gradient penalty, in every update"
    )

    discriminator_steps: int = Field(
        1, ge=1, le=100, description="discriminator's updates per generator's update"
    )
    optimizer: Literal["sgd", "momentum", "adam", "rmsprop"] = Field(
        "adam", description="optimizer of both networks"
    )
    generator_learning_rate: float = Field(1e-3, gt=0, le=1, description="generator's rate")
    discriminator_learning_rate: float = Field(1e-3, gt=0, le=1, description="discriminator's rate")
    final_learning_rate_factor: float = Field(
        0.02,
        gt=0,
        le=1,
        description="final factor on both rates, after a linear decay over the second half",
    )
    beta_1: float = Field(0.5, ge=0, lt=1, description="Adam's beta 1, or the momentum")
    beta_2: float = Field(0.99, ge=0, lt=1, description="Adam's beta 2, or RMSprop's rho")
    ema_decay: float = Field(
        0.998, ge=0, lt=1, description="decay per update of the generator's moving average"
    )

    @model_validator(mode="after")
    def _refuse_what_cannot_work(self) -> "TrainSettings":
        for is_wrong, reason in _CONFLICTS:
            if is_wrong(self):
                raise ValueError(reason.format(**dict(self)))
        return self


_CONFLICTS: tuple[tuple[Callable[[TrainSettings], bool], str], ...] = (
    (
        lambda s: s.max_seconds is None and s.max_steps is None,
        "max_seconds and max_steps are both null: training would never end",
    ),
    (
        lambda s: s.deterministic and (s.max_steps is None or s.max_seconds is not None),
        "deterministic needs max_steps, and max_seconds=null: the last step of a time budget "
        "depends on the machine's speed",
    ),
    (
        lambda s: (
            min(*s.generator_channels[:2], *s.discriminator_channels) < 1
            or s.generator_channels[2] < 0
        ),
        "generator_channels and discriminator_channels must each be 1 or more, but for the last of "
        "generator_channels, which may be 0",
    ),
    (
        lambda s: s.label_smoothing > 0 and not LOSSES[s.loss].smooths_labels,
        "label_smoothing applies to cross-entropy, not to loss={loss}",
    ),
    (
        lambda s: (
            s.loss == "wasserstein"
            and not s.gradient_penalty_weight
            and s.discriminator_normalization != "spectral"
        ),
        "loss=wasserstein needs a Lipschitz discriminator: set gradient_penalty_weight (10 in "
        "the paper) or discriminator_normalization=spectral",
    ),
    (
        lambda s: (
            s.discriminator_normalization == "batch"
            and max(s.r1_weight, s.r2_weight, s.gradient_penalty_weight) > 0
        ),
        "discriminator_normalization=batch makes a logit depend on the other images of its batch, "
        "so a gradient penalty per image is undefined: set r1_weight, r2_weight and "
        "gradient_penalty_weight to 0, or another discriminator_normalization",
    ),
    (
        lambda s: s.tie_projection and s.discriminator_normalization == "spectral",
        "tie_projection and discriminator_normalization=spectral exclude each other: the tied "
        "weights would be scaled in one network and not in the other",
    ),
    (
        lambda s: s.patience is not None and not s.evaluations,
        "patience counts evaluations, and evaluations=0",
    ),
    (
        lambda s: s.warm_start == "auto" and s.evaluations < 2,
        "warm_start=auto compares the first evaluation with a cold start's and needs budget left "
        "after it: evaluations={evaluations} must be 2 or more",
    ),
)
