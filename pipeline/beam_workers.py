"""Beam's worker processes on the machine of a node: `--direct_running_mode=multi_processing`."""

import os
import shlex
import sys
import threading
from pathlib import Path
from typing import Any

from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.portability.local_job_service import SubprocessSdkWorker

_ROOT = str(Path(__file__).parents[1])
# PR_SET_PDEATHSIG outlives exec. A worker would else wait for answers of a node that was killed.
_DYING_WITH_ITS_NODE = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execv("/bin/sh", ["sh", "-c", "exec " + sys.argv[1]])
"""


def prepare_workers() -> None:
    """Lets workers import the project from whichever folder, and a dead worker fail its node."""
    inherited = os.environ.get("PYTHONPATH", "")
    if _ROOT not in inherited.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_ROOT, inherited]))
    register = worker_handlers.WorkerHandler.register_environment
    register(python_urns.SUBPROCESS_SDK, bytes)(_WorkerHandler)


class _WorkerHandler(worker_handlers.SubprocessSdkWorkerHandler):
    """Answers in place of a worker that has ended, for which Beam's own handler waits for ever."""

    def start_worker(self) -> None:
        command = self._worker_command_line.decode()
        program = shlex.join([sys.executable, "-c", _DYING_WITH_ITS_NODE, command])
        self.worker = SubprocessSdkWorker(
            f"exec {program}".encode(), self.control_address, self.provision_info, self.worker_id
        )
        self.worker_thread = threading.Thread(name="run_worker", target=self._run)
        self.worker_thread.start()

    def _run(self) -> None:
        reason = "exit status 0"
        try:
            self.worker.run()
        except RuntimeError as error:
            reason = str(error)
        _answer_with_error(
            self.control_conn,
            f"a worker process of Beam ended before its work was done ({reason}); memory may have "
            "run out",
        )


def _answer_with_error(connection: Any, what: str) -> None:
    """Fails the requests that a worker has not answered, and all that come."""
    push = connection.push

    def refuse(request: Any) -> Any:
        future = push(request)
        if future is not None:  # as it is for the end of all requests
            future.set(_error(request.instruction_id, what))
        return future

    connection.push = refuse
    for name, future in list(connection._futures_by_id.items()):
        future.set(_error(name, what))


def _error(instruction_id: str, what: str) -> Any:
    return beam_fn_api_pb2.InstructionResponse(instruction_id=instruction_id, error=what)
