"""`serving.http1.HttpServer` on loopback, in a thread, and clients that send raw bytes."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import psutil

from serving.http1 import Application, HttpServer, Limits

SECONDS = 20.0  # after which a client that waits fails its test
PIECE = 64 << 10


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Client:
    """A connection: what is sent is up to the test, answers are parsed."""

    def __init__(self, address: tuple[str, int], receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(SECONDS)
        self.socket.connect(address)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def end_sending(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def answer(self, *, to_head: bool = False) -> Answer:
        """Reads one answer; EOFError where there is none, or not the whole."""
        line = self._file.readline()
        if not line.startswith(b"HTTP/1.1 "):
            raise EOFError(line)
        status = int(line.split()[1])
        headers = http.client.parse_headers(self._file)
        size = 0 if to_head or status < 200 else int(headers["content-length"])
        body = self._file.read(size)
        if len(body) < size:
            raise EOFError
        return Answer(status, headers, body)

    def rest(self) -> bytes:
        """Reads until the server closes the connection, or resets it."""
        with contextlib.suppress(ConnectionError):
            return self._file.read()
        return b""

    def is_dropped(self) -> bool:
        """Waits until the server closes the connection; whether no whole answer came before."""
        try:
            self.answer()
        except (EOFError, ConnectionError):
            return True
        return False

    def dribble(self, byte: bytes) -> None:
        """Sends a byte now and then, until the server closes the connection."""
        with contextlib.suppress(ConnectionError):
            while True:
                self.send(byte)
                time.sleep(0.02)


class LoopbackServer:
    """A server, as a context.

    Attributes:
      refused: statuses of the requests that the application never saw.
      defects: what reached the event loop's handler of exceptions.
    """

    def __init__(
        self,
        app: Application,
        limits: Limits,
        on_refusal: Callable[[int], None] | None = None,
    ) -> None:
        self.refused: list[int] = []
        self.defects: list[dict[str, Any]] = []
        self._server = HttpServer(app, limits, on_refusal or self.refused.append)
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listening.getsockname()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self.defects.append(context))
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> "LoopbackServer":
        self._thread.start()
        self.begin(self._server.start(self._listening)).result(SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.stop(0)
        self.begin(_wait_for_others()).result(2 * SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if error is None:
            assert not self.defects, self.defects

    def begin(self, work: Coroutine[Any, Any, Any]) -> "concurrent.futures.Future[Any]":
        """Runs a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def begin_to_stop(self, seconds: float) -> "concurrent.futures.Future[None]":
        """Stops in the background; when this returns, no more connections are accepted."""
        stopped = self.begin(self._server.stop(seconds))
        self.begin(asyncio.sleep(0)).result(SECONDS)
        return stopped

    def stop(self, seconds: float) -> None:
        self.begin_to_stop(seconds).result(seconds + SECONDS)

    @property
    def arriving_bytes(self) -> int:
        async def read() -> int:
            return self._server.arriving_bytes

        return self.begin(read()).result(SECONDS)

    def count_open(self) -> int:
        """Connections whose descriptor the server holds."""
        found = psutil.Process().net_connections("tcp")
        return sum(bool(each.raddr) and each.laddr.port == self.address[1] for each in found)

    @contextlib.contextmanager
    def client(self, receive_buffer: int | None = None) -> Iterator[Client]:
        with Client(self.address, receive_buffer) as client:
            yield client

    def connect(self, receive_buffer: int | None = None) -> Client:
        return Client(self.address, receive_buffer)


async def _wait_for_others() -> None:
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        _, left = await asyncio.wait(others, timeout=SECONDS)
        assert not left
    await asyncio.sleep(0.01)  # in which what is aborted is closed


def wait_until(condition: Callable[[], object]) -> None:
    """Fails where it does not come true."""
    ends = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.01)
