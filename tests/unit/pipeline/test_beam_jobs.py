"""A signal that stops a node cancels its job; the engine is a server with Flink's REST answers."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ANSWERS = {
    "GET /v1/config": (200, {"flink-version": "1.19.3"}),
    "POST /v1/jars/upload": (200, {"filename": "/tmp/flink-web/ab_beam.jar", "status": "success"}),
    "POST /v1/jars/ab_beam.jar/run": (200, {"jobid": "cd"}),
    "GET /v1/jobs/cd/execution-result": (200, {"status": {"id": "IN_PROGRESS"}}),
    "PATCH /v1/jobs/cd": (202, {}),
    "DELETE /v1/jars/ab_beam.jar": (200, {}),
}
FAILED = {
    "GET /v1/jobs/cd/execution-result": (200, {"status": {"id": "COMPLETED"}}),
    "GET /v1/jobs/cd": (200, {"jid": "cd", "state": "FAILED"}),
    "GET /v1/jobs/cd/exceptions": (
        200,
        {
            "all-exceptions": [
                {
                    "exception": "org.apache.flink.runtime.JobException: Recovery is suppressed\n"
                    "Caused by: java.util.concurrent.TimeoutException: no slots\n\tat a.B.c(D)",
                    "timestamp": 1,
                }
            ]
        },
    ),
}
NODE = """
import sys
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from pipeline.beam_errors import explain
from pipeline.beam_jobs import prepare_jobs
from pipeline.settings.beam import BeamSettings
from surroundings import prepare
flags = prepare()
prepare_jobs()
settings = BeamSettings(pipeline_args=flags)
try:
    with beam.Pipeline(options=PipelineOptions(settings.arguments())) as pipeline:
        _ = pipeline | beam.Create([1])
except RuntimeError as error:
    sys.exit(explain(error, settings).what)
"""


class Flink:
    """A JobManager's REST port.

    Attributes:
      seen: methods and paths, in turn.
      running: set once somebody asks for the job's state.
    """

    def __init__(self, answers: dict[str, tuple[int, dict]]) -> None:
        self.seen: list[str] = []
        self.running = threading.Event()
        flink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = f"{self.command} {self.path}"
                flink.seen.append(request)
                status, content = answers.get(request, (404, {"errors": ["Not found."]}))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())
                if request.endswith("/execution-result"):
                    flink.running.set()

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def flink(request: pytest.FixtureRequest) -> Iterator[Flink]:
    started = Flink(ANSWERS | getattr(request, "param", {}))
    yield started
    started.close()


@pytest.fixture
def node(flink: Flink, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that waits for a job on Flink."""
    with zipfile.ZipFile(tmp_path / "beam.jar", "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", "")
    flags = [
        "--runner=FlinkRunner",
        f"--flink_master={flink.address}",
        "--flink_submit_uber_jar",
        f"--flink_job_server_jar={tmp_path / 'beam.jar'}",
        "--environment_type=PROCESS",
        "--environment_options=process_command=/bin/true",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", NODE, *flags], env=environment, stderr=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def test_a_stopped_node_cancels_its_job_and_removes_its_jar(
    flink: Flink, node: subprocess.Popen[str]
) -> None:
    assert flink.running.wait(60)
    node.send_signal(signal.SIGTERM)
    assert node.wait(20) == 128 + signal.SIGTERM
    assert {"PATCH /v1/jobs/cd", "DELETE /v1/jars/ab_beam.jar"} <= set(flink.seen)


@pytest.mark.parametrize("flink", [FAILED], indirect=True)
def test_a_failed_job_is_explained_by_its_innermost_cause(
    flink: Flink, node: subprocess.Popen[str]
) -> None:
    _, printed = node.communicate(timeout=60)
    assert node.returncode == 1
    assert printed.splitlines()[-1] == "TimeoutException: no slots"
