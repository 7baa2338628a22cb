"""What is kept of old runs, and the removal of the rest; needs neither TFX nor TensorFlow.

ML Metadata keeps the rows of every run, so that `status` stays true. An artifact whose files are
removed is marked DELETED there first, so that TFX's cache no longer answers with it.
"""

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_metadata
from ml_metadata.proto import metadata_store_pb2

from pipeline.local import history
from pipeline.local.metadata import Database
from pipeline.local.paths import Places, UsageError
from pipeline.settings.sections import Settings
from registry.layout import list_versions, version_dir
from registry.local import leftovers, remove_leftovers

_Artifact = metadata_store_pb2.Artifact
_UNFINISHED = (
    _Artifact.PENDING,
    _Artifact.ABANDONED,
    _Artifact.DELETED,
    _Artifact.MARKED_FOR_DELETION,
)
_DAY = 86_400.0
_CHECKPOINT_DAYS = 7  # of an interrupted training; a later one rarely has the same data
_GIB = 2**30
# A version that was pushed is restored from the copy that its run kept, so the last stay at hand.
_ALWAYS = 1


@dataclass(frozen=True)
class Removal:
    """Something to be removed.

    Attributes:
      kind: artifacts, orphans, checkpoints, reports, logs or temporary.
      path: a folder or a file in the output folder.
      reason: why, in words.
      size: bytes.
      artifact: its id in ML Metadata; None where there is none to be marked.
    """

    kind: str
    path: Path
    reason: str
    size: int
    artifact: int | None = None


@dataclass
class _Run:
    """A run with the artifacts that it made or took from the cache."""

    record: history.RunRecord
    artifacts: set[int] = field(default_factory=set)
    executions: set[int] = field(default_factory=set)


def plan(settings: Settings, places: Places) -> list[Removal]:
    """Lists what is to go; to be called by whoever holds the folder's lock.

    Raises:
      UsageError: when the database cannot be relied on; nothing must be removed then.
    """
    found = [*_beside_artifacts(settings, places)]
    found += [
        _removal("temporary", Path(path), "a push that was cut off")
        for path in leftovers(places.versions)
    ]
    if places.database.exists():
        _check(places.database)
        store = history.open_store(places.database)
        found += _artifacts(settings, places, store)
    return [each for each in found if _is_inside(places.root, each.path)]


def remove(places: Places, removals: Iterable[Removal]) -> int:
    """Removes what `plan` lists: first in ML Metadata, then on the disk.

    Cut off in between, it leaves folders that nothing names, which the next plan lists as orphans.

    Returns:
      The bytes that are free now.
    """
    listed = list(removals)
    gone = [each.artifact for each in listed if each.artifact is not None]
    if gone:
        store = history.open_store(places.database)
        artifacts = store.get_artifacts_by_id(gone)
        for artifact in artifacts:
            artifact.state = _Artifact.DELETED
        store.put_artifacts(artifacts)
    for each in listed:
        if each.path.is_relative_to(places.serving):
            remove_leftovers(each.path.parent)
        elif each.path.is_dir() and not each.path.is_symlink():
            shutil.rmtree(each.path)
        else:
            each.path.unlink(missing_ok=True)
    return sum(each.size for each in listed)


def _check(database: Database) -> None:
    """Raises UsageError for a file that SQLite cannot read."""
    found = database.damage()
    if found:
        raise UsageError(
            f"the database is damaged ({found}), so what is needed is not known, and nothing is "
            "removed",
            str(database),
            "run the pipeline, which sets the database aside",
        )


def _artifacts(
    settings: Settings, places: Places, store: ml_metadata.MetadataStore
) -> Iterator[Removal]:
    known = {artifact.id: artifact for artifact in store.get_artifacts()}
    tails = {_tail(places, artifact.uri): artifact for artifact in known.values()}
    folders = list(_folders(places))
    if folders and not any(tail in tails for _, tail in folders):
        raise UsageError(
            f"the database {places.database} knows none of the artifacts in {places.artifacts}; is "
            "it the right one? Nothing is removed."
        )
    runs = _runs(store)
    sizes = {tails[tail].id: _size(folder) for folder, tail in folders if tail in tails}
    needed, dropped = _split(settings, places, runs, sizes)
    for folder, tail in folders:
        artifact = tails.get(tail)
        if artifact is None or artifact.state in _UNFINISHED:
            # What the last run left tells why it failed.
            if runs and int(folder.name) in runs[0].executions:
                continue
            number = artifact.id if artifact else None
            yield _removal("orphans", folder, "of a node that did not end", number)
        elif artifact.id not in needed:
            reason = dropped.get(artifact.id, "no run that is kept uses it")
            yield _removal("artifacts", folder, reason, artifact.id)
    for system in sorted(places.artifacts.glob("*/.system/*/*")):
        yield _removal("temporary", system, "TFX's own, of a run that is over")


def _split(
    settings: Settings, places: Places, runs: list[_Run], sizes: dict[int, int]
) -> tuple[set[int], dict[int, str]]:
    """The artifacts that are needed, and for each other one of a run why it is not."""
    retention = settings.retention
    base = places.versions
    served = {str(version_dir(base, version)) for version in list_versions(base)}
    needed, dropped = set[int](), dict[int, str]()
    optional: list[tuple[_Run, str]] = []
    pushes = [run for run in runs if run.record.pushed_version]
    fixed = [*runs[:_ALWAYS], *pushes[:_ALWAYS]]
    fixed += [run for run in runs if run.record.blessed is not None][:_ALWAYS]
    for position, run in enumerate(runs):
        if run in fixed or run.record.pushed_destination in served:
            needed |= run.artifacts
        elif retention.runs is not None and position >= retention.runs:
            optional.append((run, f"older than the last {retention.runs} runs"))
        else:
            optional.append((run, ""))
    used = sum(sizes.get(number, 0) for number in needed)
    for run, reason in optional:
        more = sum(sizes.get(number, 0) for number in run.artifacts - needed)
        if not reason and retention.gib is not None and used + more > retention.gib * _GIB:
            reason = f"beyond {retention.gib:g} GiB of artifacts"
        if reason:
            dropped.update(dict.fromkeys(run.artifacts, reason))
        else:
            needed |= run.artifacts
            used += more
    return needed, dropped


def _runs(store: ml_metadata.MetadataStore) -> list[_Run]:
    """All runs, newest first."""
    found = []
    contexts = sorted(store.get_contexts_by_type("pipeline_run"), key=lambda c: c.id)
    for context in reversed(contexts):
        run = _Run(history.read_run_of(store, context))
        run.executions = {e.id for e in store.get_executions_by_context(context.id)}
        if run.executions:
            events = store.get_events_by_execution_ids(sorted(run.executions))
            run.artifacts = {event.artifact_id for event in events}
        found.append(run)
    return found


def _folders(places: Places) -> Iterator[tuple[Path, str]]:
    """Each artifact's folder, `<node>/<key>/<execution>`, and its name below the pipeline root."""
    for path in sorted(places.artifacts.glob("[!.]*/[!.]*/*")):
        if path.name.isdecimal():
            yield path, path.relative_to(places.artifacts).as_posix()


def _tail(places: Places, uri: str) -> str:
    """An artifact's place below the pipeline root, also where the output folder was moved since."""
    root = f"{places.artifacts}{os.sep}"
    parts = uri.removeprefix(root).strip(os.sep).split(os.sep)
    return "/".join(parts[:3] if uri.startswith(root) else parts[-3:])


def _beside_artifacts(settings: Settings, places: Places) -> Iterator[Removal]:
    """Old checkpoints, reports and logs; never the newest of each."""
    checkpoints = [path for path in places.checkpoints.glob("*") if path.is_dir()]
    checkpoints.sort(key=_changed, reverse=True)
    for path in checkpoints[1:]:
        if time.time() - _changed(path) > _CHECKPOINT_DAYS * _DAY:
            yield _removal("checkpoints", path, f"older than {_CHECKPOINT_DAYS} days")
    last = settings.retention.reports
    if last is None:
        return
    reports = sorted((p for p in places.reports.glob("*") if p.is_dir()), reverse=True)
    logs = sorted((p for p in places.logs.glob("*.log") if p.is_file()), reverse=True)
    for kind, found in (("reports", reports), ("logs", logs)):
        for path in found[last:]:
            yield _removal(kind, path, f"older than the last {last}")


def _removal(kind: str, path: Path, reason: str, artifact: int | None = None) -> Removal:
    return Removal(kind, path, reason, _size(path), artifact)


def _size(path: Path) -> int:
    """Bytes of a file or of all files in a folder; links count as themselves."""
    inside = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    return sum(each.lstat().st_size for each in inside or [path])


def _changed(path: Path) -> float:
    """When a folder's newest file, or the file, was changed."""
    inside: list[Any] = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    return max(each.lstat().st_mtime for each in [path, *inside])


def _is_inside(root: Path, path: Path) -> bool:
    """Whether a path lies in the output folder with no link on the way out of it."""
    return path.parent.resolve().is_relative_to(root.resolve())


def collect_after_run(settings: Settings, places: Places) -> str:
    """Removes what the settings do not keep; by whoever holds the lock. Returns one line or ""."""
    removals = plan(settings, places)
    # TFX leaves temporary files after each run: not worth a line.
    told = [each for each in removals if each.kind != "temporary"]
    remove(places, removals)
    return f"retention removed {describe(told)}" if told else ""


def describe(removals: list[Removal]) -> str:
    """How many, and how much."""
    if not removals:
        return "nothing"
    count = len(removals)
    things = "file or folder" if count == 1 else "files and folders"
    return f"{count} {things}, {in_units(sum(each.size for each in removals))}"


def in_units(size: int) -> str:
    """Bytes in words, for example `1.5 MiB`."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
