"""What lets a training be stopped and taken up: signals, and what makes it the same training."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

from models.gan.settings import TrainSettings
from models.gan.training import GanTrainer

# What can change between an interrupted training and the one that takes it up.
_WITHOUT_EFFECT = (
    "report_seconds",
    "sample_seconds",
    "checkpoint_seconds",
    "histograms",
    "resume",
)

_progress_log = logging.getLogger("mnist_gan.progress")


def recipe(settings: TrainSettings) -> dict[str, Any]:
    """The settings that have to be the same in a training that takes up an interrupted one."""
    return settings.model_dump(mode="json", exclude=set(_WITHOUT_EFFECT))


@contextlib.contextmanager
def stopping_on_signals(trainer: GanTrainer) -> Iterator[None]:
    """Has SIGTERM and SIGINT end the training at its next call, with a checkpoint.

    Only Python's main thread can be told of signals; elsewhere they keep their meaning.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        del frame
        trainer.stop_requested = True
        _progress_log.warning("%s: stopping", signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
