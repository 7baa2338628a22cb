"""`local_runner.py serve` as a child process of tools and benchmarks."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[1]
DEFAULT_MODELS = ROOT / "outputs/serving/mnist_gan"
START_SECONDS = 120.0
EXIT_SECONDS = 60.0


class ServerProcess:
    """A running server.

    Attributes:
      models: folder of versions, named as the model.
      host: address that the server listens on.
      rest_port: port of the REST API.
      grpc_port: port of the gRPC API.
    """

    def __init__(
        self,
        models: Path,
        *arguments: str,
        descriptors: int = 1024,
    ) -> None:
        """Starts the server and reads its addresses; does not wait for a version to be loaded.

        Args:
          models: folder of versions, named as the model.
          *arguments: further arguments of `local_runner.py serve`.
          descriptors: limit of open file descriptors (`ulimit -n`); by default that of a shell.
        """
        command = [sys.executable, str(ROOT / "local_runner.py"), "serve", "--port", "0"]
        self.models = models
        self._log, log_path = tempfile.mkstemp()
        os.unlink(log_path)
        self._process = subprocess.Popen(
            [*command, "--grpc-port", "0", "--models-dir", str(models), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._observed = psutil.Process(self._process.pid)
        self._observed.rlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
        addresses = self._read_addresses()
        rest, grpc = httpx.URL(addresses["http"]), httpx.URL(addresses["grpc"])
        assert rest.port is not None
        assert grpc.port is not None
        self.host, self.rest_port, self.grpc_port = rest.host, rest.port, grpc.port

    def _read_addresses(self) -> dict[str, str]:
        """Reads the REST and the gRPC address, each of which ends a line of the server's stdout."""
        assert self._process.stdout is not None
        found: dict[str, str] = {}
        for line in self._process.stdout:
            scheme, separator, _ = line.split()[-1].partition("://") if line.strip() else ("",) * 3
            if separator:
                found[scheme] = line.split()[-1]
            if {"http", "grpc"} <= found.keys():
                return found
        raise self._has_ended()

    def _has_ended(self) -> SystemExit:
        status, last = self._process.wait(), b"\n".join(self.log().splitlines()[-10:]).decode()
        return SystemExit(f"the server ended with exit status {status}; its last lines:\n{last}")

    @property
    def url(self) -> str:
        """Base URL of the REST API, without a slash at its end."""
        return f"http://{self.host}:{self.rest_port}"

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.models.name

    def get(self, path: str, seconds: float = 10.0) -> httpx.Response:
        """Sends a GET to the REST API, past any proxy of the environment."""
        return httpx.get(self.url + path, timeout=seconds, trust_env=False)

    def wait_until_ready(self) -> None:
        """Returns when a version is loaded.

        Raises:
          SystemExit: if the server ends before, or no version is loaded in `START_SECONDS`.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.is_running():
                raise self._has_ended()
            with contextlib.suppress(httpx.TransportError):
                if self.get("/readyz").status_code == 200:
                    return
            time.sleep(0.1)
        raise SystemExit(f"no version was loaded within {START_SECONDS:g} s")

    def latent_dim(self) -> int:
        """Length of a row of the `latent` input, as the model's metadata says."""
        metadata = self.get(f"/v1/models/{self.name}/metadata").json()["metadata"]
        inputs = metadata["signature_def"]["signature_def"]["from_latent"]["inputs"]
        return int(inputs["latent"]["tensor_shape"]["dim"][1]["size"])

    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def log(self) -> bytes:
        """What the server has written to stderr so far."""
        return os.pread(self._log, os.fstat(self._log).st_size, 0)

    def rss_mib(self) -> float:
        """Resident memory of the server and its child processes, in MiB."""
        return sum(each.memory_info().rss for each in self._family()) / 2**20

    def cpu_seconds(self) -> float:
        """CPU time that the server has used so far."""
        times = [each.cpu_times() for each in self._family()]
        return sum(each.user + each.system for each in times)

    def descriptors(self) -> int:
        """Open file descriptors of the server."""
        return self._observed.num_fds()

    def threads(self) -> int:
        """Threads of the server."""
        return self._observed.num_threads()

    def _family(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self._observed, *self._observed.children(recursive=True)]
        return []

    def stop(self) -> float:
        """Sends SIGTERM and returns the seconds until the server ended.

        A server that has not ended after `EXIT_SECONDS` is killed; infinity is returned.
        """
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return float("inf")
        return time.monotonic() - began


@contextlib.contextmanager
def serving(models: Path, *arguments: str) -> Iterator[ServerProcess]:
    """Yields a server that has loaded a version, and stops it at the end."""
    server = ServerProcess(models, *arguments)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def newest_version(models: Path) -> Path:
    """Returns the folder of the newest version.

    Raises:
      SystemExit: if there is none.
    """
    names = [path.name for path in models.glob("*") if path.name.isascii()]
    numbers = [int(name) for name in names if name.isdecimal()]
    if not numbers:
        raise SystemExit(
            f"{models} holds no version of a model. Run the pipeline first, name another folder "
            "with --models-dir, or make an untrained generator with --untrained."
        )
    return models / str(max(numbers))


def export_untrained(folder: Path) -> Path:
    """Exports a generator with the default network and random weights as version 1 of a model.

    Returns:
      The models folder, `<folder>/mnist_gan`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from models.gan.export import export_generator
    from models.gan.networks import build_generator
    from models.gan.settings import TrainSettings

    recipe = TrainSettings()
    models = folder / "mnist_gan"
    export_generator(build_generator(recipe), recipe, str(models / "1"))
    return models


def exit_on_sigterm() -> None:
    """Makes SIGTERM end this process as an error does, so that its servers are stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def raise_descriptor_limit() -> None:
    """Raises this process's own limit of open file descriptors to what the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
