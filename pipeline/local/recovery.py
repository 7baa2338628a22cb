"""Damage to an output folder between runs, found and repaired.

Needs neither TFX nor TensorFlow.
"""

import datetime
import os
import stat
from pathlib import Path

from pipeline.local import history
from pipeline.local.paths import Places
from registry.history import Event, read_history
from registry.integrity import can_restore, find_damaged
from registry.layout import list_versions, version_number
from registry.repair import LostVersion, repair


def find_damage(places: Places) -> str:
    """Finds what a run repairs; returns a sentence, "" for nothing."""
    why = _why_lost(places)
    if why:
        return why
    damaged = find_damaged(places.versions)
    if damaged:
        return f"the files of version {damaged[0]} are not those that were pushed"
    lost = lost_push(places)
    if lost and (can_restore(lost.copy) or not list_versions(places.versions)):
        return f"version {lost.version} was pushed and is gone"
    return ""


def repair_damage(places: Places) -> list[str]:
    """Repairs what `find_damage` finds; to be called by whoever holds the lock of the folder.

    A version that was altered or deleted is pushed again from the copy that its run kept, or else
    replaced as `registry/repair.py` says. A database that cannot be read takes the artifacts with
    it, which nothing else describes and whose folders a new one would use again.

    Returns:
      What was done, in sentences.
    """
    done, why = [], _why_lost(places)
    if why:
        aside = _set_aside(places)
        done.append(f"{why}. It is in {aside} with the artifacts; the history begins anew.")
    done += map(_describe, repair(places.versions, lost_push(places)))
    remaining = find_damaged(places.versions)
    if remaining:
        done.append(
            f"version {remaining[0]} was altered since its push, and nothing can replace it before "
            "this run pushes a model"
        )
    return done


def lost_push(places: Places) -> LostVersion | None:
    """The last version that a run pushed, where it is not served any more though it should be.

    A version that was retired or rolled back from is not lost. In place of a version that was
    restored, the restored one may be lost.
    """
    if not places.database.exists():
        return None
    base = places.versions
    pushed = [
        (version_number(folder.name), copy)
        for folder, copy in history.pushed_models(places.database)
        if folder.parent.name == base.name
    ]
    version, copy = pushed[-1] if pushed else (None, places.root)
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


def _why_lost(places: Places) -> str:
    """Why SQLite's file is of no use, or that it is gone while its artifacts are there."""
    database = places.database
    if database.url is not None:
        return ""
    if _is_gone(database.file):
        described = places.artifacts.is_dir() and any(places.artifacts.iterdir())
        return f"the database {database} is gone" if described else ""
    found = database.damage()
    return f"the database {database} is damaged ({found})" if found else ""


def _is_gone(file: Path) -> bool:
    try:
        status = file.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISREG(status.st_mode) and not status.st_size


def _set_aside(places: Places) -> Path:
    """Moves database and artifacts into a new folder; those set aside earlier stay."""
    folder = places.root / "set-aside"
    folder.mkdir(exist_ok=True)
    now = datetime.datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    aside, count = folder / now, 1
    while os.path.lexists(aside):
        count += 1
        aside = folder / f"{now}-{count}"
    aside.mkdir()
    for path in (*places.database.files(), places.artifacts):
        if os.path.lexists(path):
            path.rename(aside / path.name)
    return aside
