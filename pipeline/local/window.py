"""The spans of a run on this machine, with what the quarantine beside the served models says."""

from mnist.quarantine import FILE_NAME, QuarantineError, quarantine, read_quarantine
from mnist.windows import Window, resolve_window
from pipeline.config import Resolved
from pipeline.local.places import Places, UsageError


def quarantine_file(places: Places) -> str:
    """Where the quarantined spans of an output folder are written down."""
    return str(places.serving / FILE_NAME)


def find_window(resolved: Resolved, places: Places, directory: str) -> Window:
    """Finds the spans that a run would use, and quarantines those that can never be read.

    Args:
      resolved: the settings.
      places: of the output folder.
      directory: folder or URI of the data.

    Raises:
      SpanError, IdxError: as `resolve_window` does.
      UsageError: the quarantine cannot be read or written.
    """
    data, address = resolved.settings.data, quarantine_file(places)
    try:
        found = resolve_window(
            directory,
            span=data.span,
            window=data.window,
            settle_seconds=data.settle_seconds,
            quarantine=read_quarantine(address),
        )
        if found.damaged:
            quarantine(address, found.damaged, run="")
    except (QuarantineError, OSError) as error:
        raise UsageError(str(error)) from error
    return found
