"""Damage to an output folder between runs, found and repaired.

Needs neither TFX nor TensorFlow.
"""

import datetime
import os
from pathlib import Path

from pipeline.local import history
from pipeline.local.paths import OutputPaths
from registry.history import Event, read_history
from registry.integrity import can_restore, find_damaged
from registry.layout import list_versions, version_number
from registry.repair import LostVersion, repair


def find_damage(paths: OutputPaths) -> str:
    """Finds what a run repairs; returns a sentence, "" for nothing."""
    why = _why_lost(paths)
    if why:
        return why
    damaged = find_damaged(paths.versions)
    if damaged:
        return f"the files of version {damaged[0]} are not those that were pushed"
    lost = lost_push(paths)
    if lost and (can_restore(lost.copy) or not list_versions(paths.versions)):
        return f"version {lost.version} was pushed and is gone"
    return ""


def repair_damage(paths: OutputPaths) -> list[str]:
    """Repairs what `find_damage` finds; to be called by whoever holds the lock of the folder.

    A version that was altered or deleted is pushed again from the copy that its run kept, or else
    replaced as `registry/repair.py` says. A database that cannot be read takes the artifacts with
    it, which nothing else describes and whose folders a new one would use again.

    Returns:
      What was done, in sentences.
    """
    done, why = [], _why_lost(paths)
    if why:
        aside = _set_aside(paths)
        done.append(f"{why}. It is in {aside} with the artifacts; a new history begins.")
    done += map(_describe, repair(paths.versions, lost_push(paths)))
    remaining = find_damaged(paths.versions)
    if remaining:
        done.append(
            f"version {remaining[0]} was altered since its push, and nothing can replace it before "
            "this run pushes a model"
        )
    return done


def lost_push(paths: OutputPaths) -> LostVersion | None:
    """The last version that a run pushed, where it is not served any more though it should be.

    A version that was retired or rolled back from is not lost. In place of a version that was
    restored, the restored one may be lost.
    """
    if not paths.database.exists():
        return None
    base = paths.versions
    pushed = [
        (version_number(folder.name), copy)
        for folder, copy in history.pushed_models(paths.database)
        if folder.parent.name == base.name
    ]
    version, copy = pushed[-1] if pushed else (None, paths.root)
    ended = set()
    for event in read_history(base):
        if event.event == "restore" and event.version == version:
            version = event.made
        elif event.event in ("retire", "rollback"):
            ended.add(event.version)
    if version is None or version in ended:
        return None
    is_served = version in list_versions(base) and version not in find_damaged(base)
    return None if is_served else LostVersion(version, copy)


def _describe(event: Event) -> str:
    if event.event == "restore":
        return f"version {event.version} was altered or gone and is served again, as {event.made}"
    return f"version {event.version} was {event.reason}"


def _why_lost(paths: OutputPaths) -> str:
    """Why SQLite's file is of no use, or that it is gone while its artifacts are there."""
    database = paths.database
    if database.url is not None:
        return ""
    if not database.exists():
        described = paths.artifacts.is_dir() and any(paths.artifacts.iterdir())
        return f"the database {database} is gone" if described else ""
    found = database.damage()
    return f"the database {database} is damaged ({found})" if found else ""


def _set_aside(paths: OutputPaths) -> Path:
    """Moves database and artifacts into a new folder; those set aside earlier stay."""
    folder = paths.root / "set-aside"
    folder.mkdir(exist_ok=True)
    now = datetime.datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    aside, count = folder / now, 1
    while os.path.lexists(aside):
        count += 1
        aside = folder / f"{now}-{count}"
    aside.mkdir()
    for path in (*paths.database.files(), paths.artifacts):
        if os.path.lexists(path):
            path.rename(aside / path.name)
    return aside
