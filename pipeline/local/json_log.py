"""Log lines as JSON, one object each, with the run, span and node that they belong to."""

import contextlib
import logging
from collections.abc import Iterator
from typing import IO, Any

from pythonjsonlogger.json import JsonFormatter

from pipeline.local.console import PROGRESS_LOGGER

# The loggers that have handlers of their own.
_LOGGERS = ("", "tensorflow")


class _Formatter(JsonFormatter):
    """Formats a record as one object, and leaves out what is None."""

    def __init__(self, context: dict[str, Any]) -> None:
        """Takes fields that are read again for each line."""
        super().__init__(
            ["levelname", "name", "message"],
            timestamp="time",
            defaults={"event": "log"},
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "trace"},
        )
        self._context = context

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        line = log_data | self._context | {"level": log_data["level"].lower()}
        return {key: value for key, value in line.items() if value is not None}


def json_line(event: str, message: str, level: str = "info", **more: Any) -> str:
    """Returns one line: `time` in UTC, `level`, `event`, `message`, and `more` where not None."""
    record = {"event": event, "msg": message, "levelname": level, **more}
    return _Formatter({}).format(logging.makeLogRecord(record))


class JsonLog(logging.Handler):
    """Writes the events of a run as JSON lines.

    A NodeListener, and a logging handler for the progress lines of nodes.
    """

    def __init__(self, stream: IO[str], span: int) -> None:
        """Takes the stream to write to and the newest span of the run."""
        super().__init__(logging.INFO)
        self.context: dict[str, Any] = {"run": None, "span": span, "node": None}
        self._stream = stream

    def say(self, event: str, message: str, level: str = "info", **more: Any) -> None:
        """Writes one line; a `run` is kept for the lines that follow."""
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
        """Writes progress lines, and has all other handlers write JSON, until the block ends."""
        progress = logging.getLogger(PROGRESS_LOGGER)
        progress.setLevel(logging.INFO)
        others = [h for name in _LOGGERS for h in logging.getLogger(name).handlers]
        before = [(handler, handler.formatter) for handler in others]
        as_json = _Formatter(self.context)
        for handler in others:
            handler.setFormatter(as_json)
        progress.addHandler(self)
        try:
            yield
        finally:
            progress.removeHandler(self)
            for handler, formatter in before:
                handler.setFormatter(formatter)
