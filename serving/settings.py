"""The limits of the server that a user sets, and those that are constants."""

from pydantic import BaseModel, ConfigDict, Field

MAX_BODY_BYTES = 4 << 20
IDLE_SECONDS = 75.0  # longer than the 60 s for which common load balancers keep a connection


class ServeSettings(BaseModel):
    """How much one client, and all clients together, may ask of the server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_rows: int = Field(1024, ge=1, le=100_000, description="images per request")
    max_connections: int = Field(
        512,
        ge=1,
        le=100_000,
        description="open REST connections; one more closes the connection whose client has kept "
        "the server waiting longest",
    )
    timeout_seconds: float = Field(
        20.0,
        gt=0,
        le=3600,
        description="longest time for a request to arrive, for its answer to be computed, and for "
        "64 KiB of the answer to be taken by the client",
    )
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="host names that REST requests may name, without port; empty: on a loopback "
        "address only localhost and loopback addresses, on any other address every name",
    )
