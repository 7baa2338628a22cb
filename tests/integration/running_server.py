"""`local_runner.py serve` as a process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
SECONDS = 120.0


@dataclass(frozen=True)
class RunningServer:
    """A server that listens, and its first two lines.

    Attributes:
      url: of the REST API, without a slash at the end.
      grpc_address: host and port.
    """

    process: subprocess.Popen
    url: str
    grpc_address: str

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it as Kubernetes does, or by another signal; returns its exit status."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


def start(base: Path, *arguments: str, command: tuple[str, ...] = ()) -> RunningServer:
    """Starts a server on free ports.

    Args:
      base: its folder of versions.
      arguments: further ones of `local_runner.py serve`.
      command: what to run instead of that; the folder comes last.
    """
    runner = (sys.executable, "local_runner.py", "serve", "--port", "0", *arguments)
    process = subprocess.Popen(
        [*(command or (*runner, "--models-dir")), str(base)],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    assert all(lines), process.wait()
    url, grpc_address = (line.split()[-1] for line in lines)
    return RunningServer(process, url.rstrip("/"), grpc_address.removeprefix("grpc://"))


def wait_for(condition: Callable[[], object]) -> None:
    """Fails where it does not come true."""
    ends = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.05)
