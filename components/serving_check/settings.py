"""The settings of ServingCheck."""

from pydantic import BaseModel, ConfigDict, Field


class ServingCheckSettings(BaseModel):
    """The trial of an exported model before it may be pushed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory_gib: float = Field(
        4.0,
        gt=0,
        le=10_000,
        description="resident memory for loading and calling the model, with TensorFlow's own, GiB",
    )
    max_latency_ms: float = Field(
        1000.0, gt=0, le=3_600_000, description="time for one image, milliseconds"
    )
