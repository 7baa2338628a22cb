"""The limits of the server."""

from pydantic import BaseModel, ConfigDict, Field


class ServeSettings(BaseModel):
    """How much one request, and all of them together, may ask for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_rows: int = Field(1024, ge=1, le=100_000, description="pictures per request")
    max_body_bytes: int = Field(
        4 << 20, ge=1024, le=1 << 30, description="longest body of a request, bytes"
    )
    max_waiting: int = Field(
        256,
        ge=1,
        le=100_000,
        description="requests that may arrive or wait while others are answered",
    )
    max_arriving_bytes: int = Field(
        64 << 20,
        ge=0,
        le=1 << 40,
        description="bytes of bodies that may be arriving before one that is longer than its "
        "share, a max_waiting-th of this, is refused",
    )
    max_connections: int = Field(
        512,
        ge=1,
        le=100_000,
        description="open connections; beyond it the one that waits longest for a request is "
        "closed. More than max_waiting",
    )
    idle_seconds: int = Field(
        75,
        ge=1,
        le=3600,
        description="longest that a connection may be without a request whose head has come, or "
        "its client take nothing of an answer",
    )
    timeout_seconds: float = Field(
        20.0, gt=0, le=3600, description="longest that a request may take, to arrive or be answered"
    )
    batch_rows: int = Field(
        64, ge=1, le=100_000, description="rows of waiting requests that are drawn in one call"
    )
    workers: int = Field(2, ge=1, le=256, description="calls of the model at the same time")
    poll_seconds: float = Field(
        1.0, ge=0.05, le=3600, description="time between looks for another version"
    )
