"""What time, hands and broken disks do to an output folder between runs, and what is made of it.

Needs neither TFX nor TensorFlow.
"""

import datetime
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from components.pusher.versions import (
    can_restore,
    is_intact,
    list_versions,
    read_history,
    restore,
    set_aside_damaged,
)
from pipeline.config import Settings
from pipeline.local import history
from pipeline.local.models import serving_dir
from pipeline.local.places import Places


def find_damage(settings: Settings, places: Places) -> str:
    """What a run can mend, in a sentence; "" for nothing."""
    lost = _why_lost(places)
    if lost:
        return lost
    base = serving_dir(settings)
    versions = list_versions(base)
    if versions and not is_intact(base, versions[-1]):
        return f"the files of version {versions[-1]} are not those that were pushed"
    gone, copy = push_that_is_gone(places) or (None, None)
    if gone and (can_restore(str(copy)) or not versions):
        return f"version {gone.name} was pushed and is gone"
    return ""


def mend(settings: Settings, places: Places) -> list[str]:
    """Sets aside what is damaged, so that a run can begin; to be called by whoever holds the lock.

    A version that was altered or deleted is pushed again from the copy that its run kept; where
    there is none, the version before it is served. A database that cannot be read takes the
    artifacts with it, which nothing else describes and whose folders a new one would use again.

    Returns:
      What was done, in sentences.
    """
    done, base = [], serving_dir(settings)
    lost = _why_lost(places)
    for version in set_aside_damaged(base):
        done.append(f"version {version} was altered since its push and is no longer served")
    if lost:
        aside = _set_aside(places)
        done.append(f"{lost}. It is in {aside} with the artifacts; the history begins anew.")
    gone, copy = push_that_is_gone(places) or (None, None)
    if gone and can_restore(str(copy)):
        made = restore(str(copy), str(gone.parent), int(gone.name))
        done.append(f"version {gone.name} was gone and is served again, as {made}")
    return done


def push_that_is_gone(places: Places) -> tuple[Path, Path] | None:
    """The last version that was pushed, if it is there no more, and the copy that its run kept.

    One that was retired or rolled back from is not missed. Of one that was restored, the restored
    one may be.
    """
    if not places.database.exists():
        return None
    pushed = history.pushed_models(places.database)
    if not pushed:
        return None
    (first, copy), base = pushed[-1], pushed[-1][0].parent
    events = read_history(str(base))
    number = int(first.name)
    for event in events:
        if event["event"] == "restore" and event["version"] == number:
            number = event["made"]
    left = [event.get("rolled_back_from", event["version"]) for event in events if _ends(event)]
    is_missed = not (base / str(number)).is_dir() and number not in left
    return (base / str(number), copy) if is_missed else None


def _ends(event: dict[str, Any]) -> bool:
    """Whether it put a version out of service on purpose."""
    return event["event"] in ("retire", "rollback")


def _why_lost(places: Places) -> str:
    """Why SQLite's file cannot be used, or that it is gone while its artifacts are there."""
    if places.database.url is not None:
        return ""
    file = places.database.file
    if not file.exists() or not file.stat().st_size:
        described = places.artifacts.is_dir() and any(places.artifacts.iterdir())
        return f"the database {file} is gone" if described else ""
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            [said] = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        said = str(error)
    return "" if said == "ok" else f"the database {file} is damaged ({said})"


def _set_aside(places: Places) -> Path:
    """Moves database and artifacts away; what was set aside before is removed."""
    folder = places.root / "set-aside"
    shutil.rmtree(folder, ignore_errors=True)
    aside = folder / datetime.datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    aside.mkdir(parents=True)
    for path in (places.artifacts, *places.root.glob(f"{places.database.file.name}*")):
        if path.exists():
            path.rename(aside / path.name)
    return aside
