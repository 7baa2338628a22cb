"""Logs that a client cannot flood."""

import logging
import time

_INTERVAL_SECONDS = 10.0
_MAX_KEYS = 256


class OncePerInterval(logging.Filter):
    """Passes the first record of each call site in an interval, and counts the others.

    A record's call site is its logger, file and line. The next record that passes says how many
    were left out.
    """

    def __init__(self, seconds: float = _INTERVAL_SECONDS) -> None:
        """Takes the length of the interval, seconds."""
        super().__init__()
        self._seconds = seconds
        self._seen: dict[tuple[str, str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        key = (record.name, record.pathname, record.lineno)
        now = time.monotonic()
        last, left_out = self._seen.get(key, (float("-inf"), 0))
        if now - last < self._seconds and record.levelno >= logging.WARNING:
            self._seen[key] = (last, left_out + 1)
            return False
        if len(self._seen) >= _MAX_KEYS:
            self._seen.clear()
        self._seen[key] = (now, 0)
        if left_out:
            record.msg = f"{record.msg} (and {left_out} more like it)"
        return True


def is_not_of_a_lost_client(record: logging.LogRecord) -> bool:
    """Whether a record is none of grpcio's for an answer whose client has gone.

    grpcio logs a traceback (`ExecuteBatchError`) where a connection ends while its answer is sent.
    """
    error_type = record.exc_info[0] if record.exc_info else None
    return getattr(error_type, "__name__", "") != "ExecuteBatchError"


def configure() -> None:
    """Writes INFO and above to stderr, a warning or an error once per interval and call site."""
    handler = logging.StreamHandler()
    handler.addFilter(is_not_of_a_lost_client)
    handler.addFilter(OncePerInterval())
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", handlers=[handler], force=True
    )
