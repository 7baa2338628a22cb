"""`local_runner.py serve`: from a folder of versions to a listening server."""

import logging
import os
import socket
from pathlib import Path

import uvicorn

from serving.connections import BoundedConnection
from serving.settings import ServeSettings


class ServeError(Exception):
    """The server cannot start; the message says why."""


def serve(base: Path, settings: ServeSettings, *, host: str, port: int) -> None:
    """Serves the newest version in a folder until SIGTERM or Ctrl-C.

    Args:
      base: folder named as the model, which holds `<version>/`.
      settings: the limits.
      host: address to listen on.
      port: 0 for any that is free.

    Raises:
      ServeError: when there is no version, or the address cannot be listened on.
    """
    if not _has_version(base):
        raise ServeError(
            f"{base} holds no version of a model. Expected folders named by numbers, as a run of "
            "the pipeline pushes them: `python local_runner.py run`, or name the folder of "
            "another output with --output-dir."
        )
    listening = _listen(host, port, settings.idle_seconds)
    # It tells of every GPU library that is there twice; what goes wrong is raised anyway.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Beside a training on the same GPU.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    shown, at = listening.getsockname()[:2]
    where = f"http://{f'[{shown}]' if ':' in shown else shown}:{at}/"
    print(f"Loading {base}; the page and the API will be at {where}", flush=True)
    # TensorFlow takes seconds to import, and a mistake should be told before.
    from serving.app import create_app
    from serving.watch import VersionWatch

    class Connection(BoundedConnection):
        max_connections = settings.max_connections

    app = create_app(base.name, VersionWatch(base, settings.poll_seconds), settings)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.idle_seconds,
        timeout_graceful_shutdown=int(settings.timeout_seconds) + 1,
        h11_max_incomplete_event_size=64 << 10,
        http=Connection,
        backlog=128,  # so many are accepted at once before any is closed for want of room
        ws="none",
    )
    uvicorn.Server(config).run([listening])


def _has_version(base: Path) -> bool:
    try:
        return any(path.name.isdecimal() for path in base.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ServeError(f"{base} cannot be looked into: {error.strerror}.") from None


def _listen(host: str, port: int, idle_seconds: int) -> socket.socket:
    try:
        [(family, kind, _, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it: a client that takes nothing of its answer is dropped.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, idle_seconds * 1000)
        listening.bind(address)
    except OSError as error:
        raise ServeError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}. Choose another "
            "with --port or --host."
        ) from None
    listening.set_inheritable(True)
    return listening
