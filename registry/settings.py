"""The settings of a push."""

from pydantic import BaseModel, ConfigDict, Field


class PushSettings(BaseModel):
    """Where a blessed generator goes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_name: str = Field(
        "mnist_gan",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="folder under serving/ and the model's name in TensorFlow Serving",
    )
    keep_versions: int | None = Field(
        30,
        ge=2,
        le=10_000,
        description="older versions beyond so many are removed with a push; null: none are. Not on "
        "object stores",
    )
