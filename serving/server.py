"""`local_runner.py serve`: from a folder of versions to a listening server."""

import asyncio
import ctypes
import gc
import importlib
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from errors import UserError
from registry.layout import list_versions
from serving import log
from serving.app import create_app
from serving.http1 import HttpServer, Limits
from serving.predicting import Predictor
from serving.settings import IDLE_SECONDS, MAX_BODY_BYTES, ServeSettings
from serving.watch import VersionWatch
from surroundings import leave, stop_signals

_log = logging.getLogger(__name__)
_GRACE_SECONDS = 1.0  # beyond the time that a request may take
_OTHER_FILES = 64  # descriptors beside the connections: libraries, logs, the model, gRPC
_GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_BODY_BYTES),
    ("grpc.max_send_message_length", -1),
    # No grpc.max_concurrent_streams: a call counts against it until Python has collected it, and an
    # error's traceback makes a cycle with it. The connection then refuses everything, for good.
    ("grpc.so_reuseport", 0),
    # A client that does not answer a ping within 10 s has gone, or reads nothing.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
)
_MAX_RPCS = 4096  # an open call whose message does not come counts, and has no deadline
_M_ARENA_MAX = -8  # malloc.h


class ServeError(UserError):
    """The server cannot start; the message says why."""


def serve(base: Path, settings: ServeSettings, *, host: str, port: int, grpc_port: int) -> None:
    """Serves the newest version in a folder until SIGTERM, SIGHUP or Ctrl-C.

    Requests that have begun are then answered, within `settings.timeout_seconds` and a second.

    Args:
      base: folder named as the model, which holds `<version>/`.
      settings: the limits.
      host: address to listen on.
      port: of the REST API and the page; 0 for any that is free.
      grpc_port: of the gRPC API; 0 for any that is free.

    Raises:
      ServeError: there is no version, or an address cannot be listened on.
    """
    _require_version(base)
    listening = _listen(host, port)
    # TensorFlow names every GPU library that is there twice; what goes wrong is raised anyway.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Beside a training on the same GPU.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    log.configure()
    sys.setswitchinterval(0.0005)
    _share_memory_pools()
    asyncio.run(_Serving(base, settings, listening, host, grpc_port).run())


class _Serving:
    """Both APIs over one `Predictor`."""

    def __init__(
        self,
        base: Path,
        settings: ServeSettings,
        listening: socket.socket,
        host: str,
        grpc_port: int,
    ) -> None:
        self._base = base
        self._listening = listening
        self._host = host
        self._grpc_port = grpc_port
        self._grace = settings.timeout_seconds + _GRACE_SECONDS
        self._versions = VersionWatch(base)
        self._predictor = Predictor(base.name, self._versions, settings)
        limits = Limits(
            connections=_connections(settings.max_connections),
            body_bytes=MAX_BODY_BYTES,
            seconds=settings.timeout_seconds,
            idle_seconds=IDLE_SECONDS,
        )
        app = create_app(self._predictor, listening.getsockname()[0])
        self._http = HttpServer(app, limits, self._predictor.metrics.count_refusal)

    async def run(self) -> None:
        stopping = asyncio.Event()
        for number in (*stop_signals(), signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        rpc = grpc.aio.server(options=_GRPC_OPTIONS, maximum_concurrent_rpcs=_MAX_RPCS)
        grpc_address = _bind_grpc(rpc, self._host, self._grpc_port)
        await self._http.start(self._listening)
        self._announce(grpc_address)
        loading = asyncio.create_task(self._load(rpc))
        await asyncio.wait(
            [asyncio.create_task(stopping.wait()), loading], return_when=asyncio.FIRST_COMPLETED
        )
        if loading.done():
            loading.result()
        await stopping.wait()
        loading.cancel()
        self._versions.stop()
        await asyncio.gather(self._http.stop(self._grace), self._stop_grpc(rpc))
        self._predictor.close()
        logging.shutdown()
        # A version on a hung mount, or an import that never ends, may hold a thread for ever.
        leave(0)

    async def _stop_grpc(self, rpc: grpc.aio.Server) -> None:
        """Lets predict requests end; streams without one, such as health watches, are cut."""
        ending = asyncio.create_task(rpc.stop(self._grace))
        while self._predictor.in_progress and not ending.done():
            await asyncio.sleep(0.05)
        await rpc.stop(_GRACE_SECONDS)
        await ending

    def _announce(self, grpc_address: str) -> None:
        address, port = self._listening.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        print(f"Loading {self._base}; the page and the REST API are at http://{shown}:{port}/")
        print(f"The gRPC API is at grpc://{grpc_address}", flush=True)

    async def _load(self, rpc: grpc.aio.Server) -> None:
        """Imports TensorFlow, and begins to load versions and to answer gRPC."""
        grpc_api = await asyncio.to_thread(importlib.import_module, "serving.grpc_api")
        # A full garbage collection stops every request while it walks TensorFlow's modules.
        gc.collect()
        gc.freeze()
        grpc_api.add_services(rpc, self._predictor)
        states = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(states, rpc)
        self._versions.start()
        await rpc.start()
        services = ("", grpc_api.PREDICTION_SERVICE, grpc_api.MODEL_SERVICE)
        await self._report_health(states, services)

    async def _report_health(
        self, states: health.aio.HealthServicer, services: tuple[str, ...]
    ) -> None:
        state = health_pb2.HealthCheckResponse.NOT_SERVING
        while True:
            for service in services:
                await states.set(service, state)
            if state == health_pb2.HealthCheckResponse.SERVING:
                return
            while self._versions.served is None:
                await asyncio.sleep(0.1)
            state = health_pb2.HealthCheckResponse.SERVING


def _share_memory_pools() -> None:
    """Lets all threads free memory into two pools of glibc instead of eight per core.

    Versions are loaded in threads of their own, and each pool keeps some 40 MiB of a version that
    is gone.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if set_option is not None:
        set_option(_M_ARENA_MAX, 2)


def _require_version(base: Path) -> None:
    try:
        versions = list_versions(base)
    except OSError as error:
        raise ServeError(f"cannot be listed: {error.strerror}", str(base)) from None
    if not versions:
        raise ServeError(
            "holds no version of a model, expected folders named by numbers",
            str(base),
            "push one with `python local_runner.py run`, or name another output folder with "
            "--output-dir",
        )


def _listen(host: str, port: int) -> socket.socket:
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # asyncio sets TCP_NODELAY only on sockets that name their protocol.
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServeError(
            f"cannot listen: {reason}", f"{host}, port {port}", "choose another --port or --host"
        ) from None
    return listening


def _bind_grpc(server: grpc.aio.Server, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    try:
        bound = server.add_insecure_port(f"{shown}:{port}")
    except RuntimeError:
        bound = 0
    if not bound:
        raise ServeError(
            "cannot listen for gRPC: the port is in use or not allowed",
            f"{host}, port {port}",
            "choose another --grpc-port",
        )
    return f"{shown}:{bound}"


def _connections(wanted: int) -> int:
    """How many connections fit the limit on open files, which is raised as far as it may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or hard - _OTHER_FILES >= wanted:
        return wanted
    room = max(8, hard - _OTHER_FILES)
    _log.warning(
        "at most %d connections instead of %d: the limit on open files (ulimit -n) is %d",
        room,
        wanted,
        hard,
    )
    return room
