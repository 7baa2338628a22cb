"""Stopping a training by a signal, and what has to be equal to resume it."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

from models.gan.settings import TrainSettings
from surroundings import stop_signals

# These may differ between an interrupted training and the one that resumes it.
_WITHOUT_EFFECT = (
    "report_seconds",
    "checkpoint_seconds",
    "resume",
)

_log = logging.getLogger("mnist_gan.progress")


class StopRequest:
    """Asks a training to stop after its current call to the device.

    Attributes:
      requested: whether it should.
    """

    def __init__(self) -> None:
        self.requested = False


def recipe(settings: TrainSettings) -> dict[str, Any]:
    """The settings that have to be equal in a training that resumes an interrupted one."""
    return settings.model_dump(mode="json", exclude=set(_WITHOUT_EFFECT))


@contextlib.contextmanager
def stopping_on_signals(stop: StopRequest) -> Iterator[None]:
    """Turns SIGTERM, SIGHUP and SIGINT within the block into a request to stop.

    Only Python's main thread can handle signals; in other threads nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        del frame
        stop.requested = True
        _log.warning("%s: stopping", signal.Signals(number).name)

    numbers = (*stop_signals(), signal.SIGINT)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
