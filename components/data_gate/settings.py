"""What data may look like before a run stops: distances from the data behind what is served."""

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WarnDistances(_Section):
    """Distances from which on a run says so."""

    jensen_shannon: float | None = Field(
        0.03, ge=0, le=1, description="divergence of a scalar's histogram, bits; null: any"
    )
    l_infinity: float | None = Field(
        0.08, ge=0, le=1, description="largest change of a digit's share; null: any"
    )


class StopDistances(_Section):
    """Distances from which on a run stops and the span is quarantined."""

    jensen_shannon: float | None = Field(
        0.5, ge=0, le=1, description="divergence of a scalar's histogram, bits; null: any"
    )
    l_infinity: float | None = Field(
        0.3, ge=0, le=1, description="largest change of a digit's share; null: any"
    )


class DriftSettings(_Section):
    """New spans against the data behind the generator that is served."""

    warn: WarnDistances = WarnDistances()
    stop: StopDistances = StopDistances()


class GateSettings(_Section):
    """The gate between data and training."""

    drift: DriftSettings = DriftSettings()
    label_agreement: float | None = Field(
        0.6,
        ge=0,
        le=1,
        description="share of a new span's digits whose label has to be the label of the nearest "
        "class mean, and of the digits of any one label a share of 0.35; null: any",
    )
