"""What lies beside a model in a version's folder: push record, model card, data statistics.

The files may be of another release, or changed by hand. A file that does not hold what a push
writes is read as if it were not there.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, ValidationError

import storage
from registry.layout import (
    DATA_STATISTICS,
    MODEL_CARD,
    PUSH_RECORD,
    STATISTICS_FILES,
    list_versions,
    version_address,
)

_LARGEST_BYTES = 16 << 20
_Folder = str | os.PathLike[str]


class Document(BaseModel):
    """JSON of which each field has the declared type; other fields are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)


def _require_inside(path: str) -> str:
    if os.path.isabs(path) or os.pardir in Path(path).parts:
        raise ValueError(f"{path} does not lie in the version's folder")
    return path


class PushRecord(Document):
    """What a push writes down about a version, `assets.extra/push.json`.

    Attributes:
      version: its number.
      pushed_at: when, in UTC.
      model_fingerprint: SHA-256 of the files of the model, without those added by the push.
      files: SHA-256 of each file but this one, by path relative to the version.
      copy_of: the version that a rollback or a repair pushed again as this one; None for a push by
        a run.
      reason: why it was pushed again; "" for a push by a run.
      run: id of the run that pushed it; "" where it is not known, or no run did.
      user: name of the user who ran the push; "" in records of earlier releases.
    """

    version: int
    pushed_at: AwareDatetime
    model_fingerprint: str
    files: dict[Annotated[str, AfterValidator(_require_inside)], str]
    copy_of: int | None = None
    reason: str = ""
    run: str = ""
    user: str = ""


class _Metric(Document):
    value: float | None = None


class _Data(Document):
    span: int | None = None
    fingerprint: str | None = None


class _Verification(Document):
    metrics: dict[str, float] = {}


class ModelCard(Document):
    """What other parts of the product read in a model card; see `model_card.py` for all of it.

    Attributes:
      data: `span`, the newest that the model was trained on, and `fingerprint` of the train split.
      metrics: each metric's `value`, by name.
      settings: of the run that made the model, by section.
      verification: `metrics` of the first samples, by name.
    """

    data: _Data = _Data()
    metrics: dict[str, _Metric] = {}
    settings: dict[str, dict[str, Any]] = {}
    verification: _Verification = _Verification()

    def metric(self, name: str) -> float | None:
        """The value of a metric; None where it was not measured."""
        return self.metrics.get(name, _Metric()).value


class _Span(Document):
    fingerprint: str


class _DataBehind(Document):
    spans: list[_Span]


_Document = TypeVar("_Document", bound=Document)


def read_record(version: _Folder) -> PushRecord | None:
    """Reads the push record of a version's folder; None where there is none that fits.

    Args:
      version: path or URI of the version's folder, or of a copy of it.
    """
    return read_document(PushRecord, version, PUSH_RECORD)


def read_card(version: _Folder) -> ModelCard:
    """Reads the model card of a version's folder; an empty one where there is none that fits."""
    return read_document(ModelCard, version, MODEL_CARD) or ModelCard()


def find_push(base: _Folder, run: str) -> int | None:
    """The newest version that a run pushed; None where it pushed none.

    Args:
      base: path or URI of the folder that is watched; it need not exist.
      run: its id.
    """
    for version in reversed(list_versions(base)):
        record = read_record(version_address(base, version))
        if record is not None and record.run == run:
            return version
    return None


def data_fingerprints(version: _Folder) -> list[str] | None:
    """The fingerprints of the spans behind a version; None where it does not say."""
    found = read_document(_DataBehind, version, os.path.join(DATA_STATISTICS, STATISTICS_FILES[-1]))
    return [span.fingerprint for span in found.spans] if found else None


def read_statistics(version: _Folder) -> dict[str, bytes] | None:
    """Reads the statistics of the data behind a version.

    Returns:
      Content by the names in `STATISTICS_FILES`; None where one of them is missing.
    """
    folder = os.path.join(os.fspath(version), DATA_STATISTICS)
    found = {name: storage.read_if_there(os.path.join(folder, name)) for name in STATISTICS_FILES}
    contents = {name: content for name, content in found.items() if content is not None}
    return contents if len(contents) == len(found) else None


def statistics_files(contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files to push with a model, by path relative to the version, for `read_statistics`."""
    return {os.path.join(DATA_STATISTICS, name): contents[name] for name in STATISTICS_FILES}


def parse(model: type[_Document], content: bytes | str) -> _Document | None:
    """Reads JSON; None for content that does not fit the model, or is no JSON."""
    try:
        return model.model_validate_json(content)
    except ValidationError:
        return None


def read_document(model: type[_Document], version: _Folder, path: str) -> _Document | None:
    """Reads JSON in a version's folder; None where the file is missing or does not fit."""
    content = storage.read_if_there(os.path.join(os.fspath(version), path), _LARGEST_BYTES)
    return None if content is None else parse(model, content)
