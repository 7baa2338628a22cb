"""Where a version is from, read from its folder alone: no ML Metadata is needed.

What a version of an earlier release does not record is None.
"""

import os
from typing import Any, Literal

from pydantic import AwareDatetime, Field

import storage
from registry.errors import RegistryError
from registry.history import Event, read_history
from registry.integrity import is_intact
from registry.layout import (
    DATA_STATISTICS,
    MODEL_CARD,
    STATISTICS_FILES,
    TRAINING_STATE,
    list_versions,
    version_address,
)
from registry.records import Document, read_document, read_record


class Span(Document):
    """A span behind a version: its number, fingerprint and images by split."""

    span: int
    fingerprint: str
    train: int | None = None
    eval: int | None = None


class Start(Document):
    """What a training started from: in words, and the digest of a warm start's state."""

    start: str
    origin: str | None = None


class Metric(Document):
    """A metric with its 95 % interval and its real-data baseline."""

    title: str
    unit: str = ""
    value: float | None = None
    interval: tuple[float | None, float | None] | None = None
    floor: float | None = None


class Check(Document):
    """A bound that a metric was held against."""

    kind: str
    metric: str
    bound: str
    passed: bool


class Verdict(Document):
    """Whether the evaluation blessed the model, and a sentence per failed check."""

    blessed: bool
    reasons: list[str] = Field(default_factory=list)


class Recipe(Document):
    """The preset of a run, and the settings that differ from it, by dotted key."""

    preset: str
    changed: dict[str, Any]


class Data(Document):
    """Where the images are from, and the fingerprint of the train split."""

    source: str | None = None
    fingerprint: str | None = None


class Provenance(Document):
    """SHA-256 of the schema and of the files of the classifier."""

    schema_sha256: str | None = None
    classifier_sha256: str | None = None


class _Card(Document):
    created: str | None = None
    commit: str | None = None
    versions: dict[str, str] | None = None
    data: Data = Data()
    provenance: Provenance = Provenance()
    recipe: Recipe | None = None
    metrics: dict[str, Metric] | None = None
    verdict: Verdict | None = None
    checks: list[Check] | None = None
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)


class _DataBehind(Document):
    spans: list[Span]


class _Extra(Document):
    lineage: Start


class _Content(Document):
    extra: _Extra


class _State(Document):
    sha256: str
    content: _Content


class Lineage(Document):
    """What a version's folder and the history say of its origin; None: not recorded.

    Attributes:
      version: its number.
      state: `intact`, every file is as it was pushed; `altered`; or None without a push record.
      pushed_at: when, in UTC.
      user: who ran the push.
      run: the run that pushed it.
      copy_of: the version that a rollback or repair pushed again as this one.
      reason: why it was pushed again.
      model_fingerprint: SHA-256 of the model's files.
      spans: behind the model.
      data: source of the images and fingerprint of the train split.
      provenance: fingerprints of schema and classifier.
      classifier: its settings.
      commit: of the checkout that evaluated the model.
      packages: version by name.
      recipe: preset, and the settings that differ from it.
      start: what the training started from.
      parent: the version in the registry that holds the state of a warm start.
      evaluated_at: when, ISO 8601.
      verdict: of the evaluation.
      metrics: by name.
      checks: each bound.
      events: of the history that name the version, oldest first.
    """

    version: int
    state: Literal["intact", "altered"] | None = None
    pushed_at: AwareDatetime | None = None
    user: str | None = None
    run: str | None = None
    copy_of: int | None = None
    reason: str | None = None
    model_fingerprint: str | None = None
    spans: list[Span] | None = None
    data: Data = Data()
    provenance: Provenance = Provenance()
    classifier: dict[str, Any] | None = None
    commit: str | None = None
    packages: dict[str, str] | None = None
    recipe: Recipe | None = None
    start: Start | None = None
    parent: int | None = None
    evaluated_at: str | None = None
    verdict: Verdict | None = None
    metrics: dict[str, Metric] | None = None
    checks: list[Check] | None = None
    events: list[Event] = Field(default_factory=list)


def read_lineage(base: str | os.PathLike[str], version: int | None = None) -> Lineage:
    """Reads where a version is from.

    Args:
      base: path or URI of the folder that is watched.
      version: its number; None for the newest.

    Raises:
      RegistryError: there is no such version.
    """
    versions = list_versions(base)
    if version is None:
        version = max(versions, default=None)
    if version is None or version not in versions:
        name = "no version" if version is None else f"no version {version}"
        fix = "see `python local_runner.py models`"
        raise RegistryError(f"there is {name}", os.fspath(base), fix)
    folder = version_address(base, version)
    record = read_record(folder)
    card = read_document(_Card, folder, MODEL_CARD) or _Card()
    behind = read_document(_DataBehind, folder, os.path.join(DATA_STATISTICS, STATISTICS_FILES[-1]))
    start = read_start(folder)
    events = read_history(base) if storage.is_local(os.fspath(base)) else []
    pushed: dict[str, Any] = (
        {
            "state": "intact" if is_intact(folder) else "altered",
            "pushed_at": record.pushed_at,
            "user": record.user or None,
            "run": record.run or None,
            "copy_of": record.copy_of,
            "reason": record.reason or None,
            "model_fingerprint": record.model_fingerprint,
        }
        if record
        else {}
    )
    return Lineage(
        version=version,
        **pushed,
        spans=behind.spans if behind else None,
        data=card.data,
        provenance=card.provenance,
        classifier=card.settings.get("classifier"),
        commit=card.commit,
        packages=card.versions,
        recipe=card.recipe,
        start=start,
        parent=_find_parent(base, versions, start),
        evaluated_at=card.created,
        verdict=card.verdict,
        metrics=card.metrics,
        checks=card.checks,
        events=[each for each in events if version in (each.version, each.made, each.copy_of)],
    )


def read_start(folder: str) -> Start | None:
    """Reads what a training started from, beside its model; None where it is not recorded."""
    state = _read_state(folder)
    return state.content.extra.lineage if state else None


def _read_state(folder: str) -> _State | None:
    return read_document(_State, folder, os.path.join(TRAINING_STATE, "manifest.json"))


def _find_parent(
    base: str | os.PathLike[str], versions: list[int], start: Start | None
) -> int | None:
    """The oldest version with the state that a warm start began from; copies are newer."""
    if start is None or start.origin is None:
        return None
    for version in versions:
        state = _read_state(version_address(base, version))
        if state and state.sha256 == start.origin:
            return version
    return None
