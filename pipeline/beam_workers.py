"""Beam's worker processes on this machine, and `python -m pipeline.beam_workers` on an engine.

On this machine they belong to `--direct_running_mode=multi_processing`. On an engine,
`--environment_type=PROCESS` starts a command on its machines, which Beam's images have and pip does
not: this module, as a program, is that command.
"""

import argparse
import os
import shlex
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
from apache_beam.portability import python_urns
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
)
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.portability.local_job_service import SubprocessSdkWorker
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import json_format, text_format

_PROVISION_SECONDS = 60.0
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
        # Beam does not quote the interpreter, whose path may have a space.
        if command.startswith(sys.executable):
            command = shlex.quote(sys.executable) + command.removeprefix(sys.executable)
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


def boot(arguments: list[str]) -> None:
    """Runs one worker: asks the engine what to do, as `/opt/apache/beam/boot` in Beam's images.

    Args:
      arguments: `--id` and `--provision_endpoint`; others are ignored.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    known, _ = parser.parse_known_args(arguments)
    with grpc.insecure_channel(known.provision_endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        info = service.GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(),
            metadata=[("worker_id", known.id)],
            timeout=_PROVISION_SECONDS,
        ).info
    os.environ.update(
        WORKER_ID=known.id,
        PIPELINE_OPTIONS=json_format.MessageToJson(info.pipeline_options),
        RUNNER_CAPABILITIES=" ".join(info.runner_capabilities),
        LOGGING_API_SERVICE_DESCRIPTOR=text_format.MessageToString(info.logging_endpoint),
        CONTROL_API_SERVICE_DESCRIPTOR=text_format.MessageToString(info.control_endpoint),
    )
    sdk_worker_main.main([])


if __name__ == "__main__":
    boot(sys.argv[1:])
