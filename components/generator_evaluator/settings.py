"""Typed settings of the evaluation."""

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bounds(_Section):
    """The values a figure may take; null: no bound on that side."""

    min: float | None = Field(None, description="lowest value that passes")
    max: float | None = Field(None, description="highest value that passes")

    def holds(self, value: float) -> bool:
        """Whether a value keeps to both bounds; NaN never does."""
        above = self.min is None or value >= self.min
        below = self.max is None or value <= self.max
        return above and below and value == value

    def __str__(self) -> str:
        bounds = [("at least", self.min), ("at most", self.max)]
        return " and ".join(f"{word} {value:g}" for word, value in bounds if value is not None)


class Thresholds(_Section):
    """Bounds that a generator must keep to be blessed, by figure."""

    fid: Bounds = Field(Bounds(), description="Frechet distance to the eval split")
    fid_ratio: Bounds = Field(
        Bounds(max=10.0), description="that distance as a multiple of real training digits' own"
    )
    agreement: Bounds = Field(
        Bounds(min=0.95), description="share of samples seen as the digit that was asked for"
    )


class EvaluationSettings(_Section):
    """How a generator is measured."""

    samples: int = Field(10_000, ge=100, le=1_000_000, description="generated digits measured")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="first seed of the samples")
    resamples: int = Field(50, ge=2, le=10_000, description="bootstrap draws behind an interval")
    thresholds: Thresholds = Thresholds()
