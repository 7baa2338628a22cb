"""Log lines as JSON, one object each, with what they belong to: run, span, node."""

import contextlib
import datetime
import json
import logging
from collections.abc import Iterator, Mapping
from typing import IO, Any

from pipeline.local.console import PROGRESS_LOGGER

# Those with handlers of their own.
_LOGGERS = ("", "tensorflow")


def json_line(event: str, message: str, level: str = "info", **more: Any) -> str:
    """One object: `time` in UTC, `level`, `event`, `message`, and more; None is left out."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    line = {"time": now, "level": level, "event": event, **more, "message": message}
    return json.dumps({key: value for key, value in line.items() if value is not None}, default=str)


class JsonLog(logging.Handler):
    """Writes what happens in a run as JSON lines.

    A NodeListener; as a logging handler it takes the progress lines of nodes.
    """

    def __init__(self, stream: IO[str], span: int) -> None:
        """Takes where to write and the newest span of the run."""
        super().__init__(logging.INFO)
        self.context: dict[str, Any] = {"run": None, "span": span, "node": None}
        self._stream = stream

    def say(self, event: str, message: str, level: str = "info", **more: Any) -> None:
        """Writes one line; a `run` given once holds from then on."""
        self.context.update(run=more.pop("run", self.context["run"]))
        self._stream.write(json_line(event, message, level, **self.context, **more) + "\n")
        self._stream.flush()

    def node_started(self, node_id: str, position: int, total: int) -> None:
        """See NodeListener."""
        self.context["node"] = node_id
        self.say("node started", f"{position} of {total}")

    def node_ended(self, node_id: str, seconds: float, *, cached: bool) -> None:
        """See NodeListener."""
        took = "unchanged, from the cache" if cached else f"took {seconds:.1f} s"
        self.say("node ended", took, seconds=round(seconds, 3), cached=cached)
        self.context["node"] = None

    def node_failed(self, node_id: str, seconds: float) -> None:
        """See NodeListener."""
        self.say("node failed", f"after {seconds:.1f} s", "error", seconds=round(seconds, 3))

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one progress line of the node that is running."""
        self.say("progress", record.getMessage(), record.levelname.lower())

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Takes the progress lines while it is open, and has all other handlers write JSON too."""
        progress = logging.getLogger(PROGRESS_LOGGER)
        progress.setLevel(logging.INFO)
        others = [h for name in _LOGGERS for h in logging.getLogger(name).handlers]
        before = [(handler, handler.formatter) for handler in others]
        for handler in others:
            handler.setFormatter(_JsonFormatter(self.context))
        progress.addHandler(self)
        try:
            yield
        finally:
            progress.removeHandler(self)
            for handler, formatter in before:
                handler.setFormatter(formatter)


class _JsonFormatter(logging.Formatter):
    """Makes a JSON line of a record, with what it belongs to."""

    def __init__(self, context: Mapping[str, Any]) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        """One line, tracebacks included."""
        trace = self.formatException(record.exc_info) if record.exc_info else None
        message, level = record.getMessage(), record.levelname.lower()
        more = {"logger": record.name, "trace": trace}
        return json_line("log", message, level, **self._context, **more)
