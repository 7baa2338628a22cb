"""The data of a run on this machine: where the digits come from, and which spans the run uses."""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from ml_metadata.errors import StatusError
from rich.console import Console

from mnist.quarantine import FILE_NAME, quarantine, read_quarantine
from mnist.source import DataSource, default_cache_dir, locate
from mnist.windows import Window, resolve_window
from pipeline.local import history
from pipeline.local.console import DownloadLine
from pipeline.local.metadata import DatabaseError
from pipeline.local.paths import OutputPaths
from pipeline.settings.resolution import Resolved

_MIRROR_SILENCE_SECONDS = 20.0
_MIRROR_ATTEMPTS = 3


class RunData(NamedTuple):
    """What a run reads: found once, and handed on to all that need it."""

    source: DataSource
    window: Window


def find_run_data(resolved: Resolved, paths: OutputPaths, screen: Console | None = None) -> RunData:
    """Finds the digits and the spans of a run; raises as `find_data` and `find_window` do."""
    source = find_data(resolved, screen)
    return RunData(source, find_window(resolved, paths, source.directory))


def find_data(resolved: Resolved, screen: Console | None = None) -> DataSource:
    """Finds the digits as the settings say; see `mnist.source.locate`."""
    data = resolved.settings.data
    is_local = data.dir is not None and "://" not in data.dir
    return locate(
        source=data.source,
        data_dir=os.path.abspath(data.dir) if data.dir and is_local else data.dir,
        cache_dir=Path(data.cache_dir) if data.cache_dir else default_cache_dir(),
        mirrors=data.mirrors,
        progress=DownloadLine(screen or Console()),
    )


def find_window(resolved: Resolved, paths: OutputPaths, directory: str) -> Window:
    """Finds the spans that a run would use, and quarantines those that can never be read.

    A span that the last run ingested is hashed and not read, for it can be read.

    Args:
      resolved: the settings.
      paths: of the output folder.
      directory: folder or URI of the data.

    Raises:
      SpanError, IdxError: as `resolve_window` does.
      QuarantineError: the quarantine cannot be read.
      OSError: the quarantine cannot be written.
    """
    data, address = resolved.settings.data, quarantine_file(paths)
    found = resolve_window(
        directory,
        span=data.span,
        window=data.window,
        settle_seconds=data.settle_seconds,
        quarantine=read_quarantine(address),
        known=_last_ingested(paths),
    )
    if found.damaged:
        quarantine(address, found.damaged, run="")
    return found


def quarantine_file(paths: OutputPaths) -> str:
    """Where the quarantined spans of an output folder are written down."""
    return str(paths.serving / FILE_NAME)


def _last_ingested(paths: OutputPaths) -> Collection[str]:
    """The fingerprints of the spans of the last run that ingested any.

    A store that cannot be read says nothing here: the run repairs or reports it.
    """
    with contextlib.suppress(DatabaseError, StatusError):
        record = history.last_run(paths.database, "MnistExampleGen")
        return record.data_content.split("+") if record else ()
    return ()
