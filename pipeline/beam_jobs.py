"""Jobs of Beam on an engine end with the node that waits for them."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import requests
from apache_beam.runners.portability import flink_uber_jar_job_server, portable_runner

from surroundings import stop_signals

_CANCEL_SECONDS = 15.0
_wait_until_finish = portable_runner.PipelineResult.wait_until_finish


def prepare_jobs() -> None:
    """Has the signals that stop a node cancel the job that it waits for; Beam leaves it running."""
    portable_runner.PipelineResult.wait_until_finish = _wait
    flink_uber_jar_job_server.FlinkBeamJob.cancel = _cancel_flink_job


def _wait(result: Any, duration: int | None = None) -> Any:
    with _cancelled_by_signals(result):
        return _wait_until_finish(result, duration)


@contextlib.contextmanager
def _cancelled_by_signals(result: Any) -> Iterator[None]:
    before: dict[int, Any] = {}

    def cancel(number: int, frame: FrameType | None) -> None:
        # In a thread, for this one may hold a lock of gRPC's.
        canceling = threading.Thread(target=result.cancel, daemon=True)
        canceling.start()
        canceling.join(_CANCEL_SECONDS)
        signal.signal(number, before[number])
        signal.raise_signal(number)

    if threading.current_thread() is threading.main_thread():
        before = {each: signal.signal(each, cancel) for each in (*stop_signals(), signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _cancel_flink_job(job: Any) -> None:
    """Cancels a job by Flink's REST API; Beam 2.65 to 2.77 call an address that Flink lacks."""
    job.request(requests.patch, f"v1/jobs/{job._flink_job_id}", expected_status=202)
    job.delete_jar()
