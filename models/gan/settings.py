"""Typed settings of the GAN's training, shared by the pipeline's configuration and `run_fn`."""

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Activation = Literal["relu", "leaky_relu", "elu"]
Augmentation = Literal["translation", "cutout", "brightness", "contrast"]
Loss = Literal["non_saturating", "minimax", "least_squares", "hinge", "wasserstein", "relativistic"]
_BCE = ("non_saturating", "minimax")


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
    deterministic: bool = Field(
        False, description="same weights from every run on the same device; needs max_steps alone"
    )
    batch_size: int = Field(
        16, ge=2, le=65_536, description="real digits per update, over all replicas together"
    )
    steps_per_call: int = Field(
        32, ge=1, le=10_000, description="updates per call from the host to the device"
    )
    report_seconds: float = Field(
        10.0, gt=0, le=3600, description="time between progress lines and scalars, seconds"
    )
    sample_seconds: float = Field(
        60.0, gt=0, le=86_400, description="time between sample grids, seconds"
    )
    histograms: bool = Field(False, description="histograms of the weights in TensorBoard")
    checkpoint_seconds: float = Field(
        60.0, gt=0, le=86_400, description="time between checkpoints, seconds"
    )
    resume: bool = Field(
        True, description="whether an interrupted training of the same settings and data goes on"
    )
    warm_start: Literal["none", "served", "auto"] = Field(
        "none",
        description="where weights, optimisers and average begin: none: drawn by the seed; served: "
        "those of the training that is being served; auto: the same, and drawn after all where "
        "these are worse at the first evaluation",
    )
    warm_learning_rate: float = Field(
        1.0, gt=0, le=1, description="share of both learning rates in a training so begun"
    )
    evaluations: int = Field(
        4, ge=0, le=10_000, description="FIDs on held-out digits over the budget; the best is kept"
    )
    holdout_share: float = Field(
        0.05, ge=0.01, le=0.5, description="share of the train split held out for those FIDs"
    )
    patience: int | None = Field(
        None, ge=1, le=10_000, description="evaluations without improvement before an early stop"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the networks' arithmetic; auto: what the GPU is made for"
    )
    xla: Literal["auto", "on", "off"] = Field(
        "auto", description="whether XLA compiles the update; auto: on GPUs"
    )

    conditional: bool = Field(True, description="whether both networks are told the digit")
    latent_dim: int = Field(64, ge=1, le=4096, description="size of the latent vector")
    latent: Literal["normal", "uniform"] = Field(
        "normal", description="latent distribution: N(0, 1) or U(-1, 1)"
    )
    sampling_width: float = Field(
        1.0,
        gt=0,
        le=2,
        description="how much wider than in training the latents are when a trained generator "
        "draws: above 1 its digits vary more, below less (the truncation trick, Brock et al. 2019)",
    )
    generator_channels: tuple[int, int, int] = Field(
        (96, 48, 8),
        description="generator's channels at 7x7, 14x14 and 28x28, each 1 or more; 0 for the last: "
        "from 14x14 straight to the picture",
    )
    discriminator_channels: tuple[int, int, int] = Field(
        (32, 64, 128), description="discriminator's channels at 14x14, 7x7 and 4x4, each 1 or more"
    )
    generator_activation: Activation = Field("relu", description="generator's activation")
    grey_views: bool = Field(
        False,
        description="whether the discriminator also sees pictures with near-black and near-white "
        "drawn apart",
    )
    generator_output: Literal["levels", "tanh"] = Field(
        "levels",
        description="generator's last activation: tanh, or whole grey levels from a black that is "
        "0 to a white of the picture's own, 252 to 255, as MNIST has them",
    )
    discriminator_activation: Activation = Field(
        "leaky_relu", description="discriminator's activation"
    )
    leaky_slope: float = Field(0.2, ge=0, lt=1, description="slope of the leaky ReLU below 0")
    initialisation: Literal["keras", "normal", "he"] = Field(
        "keras", description="weights: Keras' default (Glorot), N(0, 0.02), or He; biases are 0"
    )
    generator_normalisation: Literal["none", "batch"] = Field(
        "batch", description="generator's normalisation"
    )
    discriminator_normalisation: Literal["none", "batch", "spectral"] = Field(
        "none", description="discriminator's normalisation"
    )
    share_linear: bool = Field(
        False, description="the generator's first linear layer, transposed, ends the discriminator"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="discriminator's dropout rate")

    loss: Loss = Field("non_saturating", description="the pair of losses, see models/gan/losses.py")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="one-sided: real targets of BCE become 1 minus this"
    )
    instance_noise: float = Field(
        0.0,
        ge=0,
        le=2,
        description="standard deviation of noise on the discriminator's input, falling to 0",
    )
    auxiliary_weight: float = Field(
        0.2,
        ge=0,
        le=100,
        description="weight in both losses of the cross-entropy with which the discriminator tells "
        "the digit (Odena et al. 2017), when conditional",
    )
    augmentation: tuple[Augmentation, ...] = Field(
        (), description="differentiable augmentation of what the discriminator sees, in order"
    )
    r1_weight: float = Field(
        0.25, ge=0, le=1000, description="weight of the gradient penalty on real digits (R1)"
    )
    r2_weight: float = Field(
        0.0, ge=0, le=1000, description="weight of the gradient penalty on generated digits (R2)"
    )
    penalty_interval: int = Field(
        16, ge=1, le=1000, description="updates between R1 and R2 penalties, as much stronger"
    )
    interpolated_weight: float = Field(
        0.0, ge=0, le=1000, description="weight of WGAN-GP's penalty, on every update"
    )

    discriminator_steps: int = Field(
        1, ge=1, le=100, description="discriminator's updates per generator's update"
    )
    optimiser: Literal["sgd", "momentum", "adam", "rmsprop"] = Field(
        "adam", description="optimiser of both networks"
    )
    generator_learning_rate: float = Field(1e-3, gt=0, le=1, description="generator's rate")
    discriminator_learning_rate: float = Field(1e-3, gt=0, le=1, description="discriminator's rate")
    final_learning_rate: float = Field(
        0.02, gt=0, le=1, description="share of the rate left at the end; falls in the second half"
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
        "deterministic needs max_steps, and max_seconds=null: a time budget ends where the "
        "machine's pace has it end",
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
        lambda s: s.label_smoothing > 0 and s.loss not in _BCE,
        "label_smoothing applies to BCE, not to loss={loss}",
    ),
    (
        lambda s: (
            s.loss == "wasserstein"
            and not s.interpolated_weight
            and s.discriminator_normalisation != "spectral"
        ),
        "loss=wasserstein needs a discriminator of bounded slope: set interpolated_weight (10 in "
        "the paper) or discriminator_normalisation=spectral",
    ),
    (
        lambda s: (
            s.discriminator_normalisation == "batch"
            and max(s.r1_weight, s.r2_weight, s.interpolated_weight) > 0
        ),
        "discriminator_normalisation=batch makes a logit depend on the other digits of its batch, "
        "so a gradient penalty per digit is not what it says: set r1_weight, r2_weight and "
        "interpolated_weight to 0, or another discriminator_normalisation",
    ),
    (
        lambda s: s.share_linear and s.discriminator_normalisation == "spectral",
        "share_linear and discriminator_normalisation=spectral exclude each other: the shared "
        "weights would be scaled for one network and not for the other",
    ),
    (
        lambda s: s.patience is not None and not s.evaluations,
        "patience counts evaluations, and evaluations=0",
    ),
    (
        lambda s: s.warm_start == "auto" and s.evaluations < 2,
        "warm_start=auto judges the start at the first of the evaluations and has to have time "
        "left then: evaluations={evaluations} must be 2 or more",
    ),
)
