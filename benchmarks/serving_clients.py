"""Clients that load the server over REST and over gRPC, both equally plain.

Each client is one connection that sends a request, waits for its answer and sends the next. The
requests are encoded before the measurement, and of an answer only the status and the end are
looked for, so that the load generator takes as little CPU from the server over one API as over the
other. A gRPC library would take several times what an HTTP/1.1 client takes.
"""

import asyncio
import itertools
import json
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tools import http2
from tools.serve_process import ServerProcess
from tools.serve_requests import PREDICT_METHOD, http_request, predict_message

REQUESTS = 200


@dataclass(frozen=True)
class Load:
    """What a number of clients saw in some seconds.

    Attributes:
      rows: rows of the answers, per second.
      p50: median latency in ms.
      p99: 99th percentile of the latency in ms.
      cpu: share of one core that the clients took.
    """

    rows: float
    p50: float
    p99: float
    cpu: float


class Client(asyncio.Protocol):
    """One connection; subclasses say how a request is framed and where its answer ends."""

    def __init__(self, requests: Iterator[bytes], latencies: list[float]) -> None:
        """Sends the requests in turn and appends the seconds that each took."""
        self._requests = requests
        self._latencies = latencies
        self._buffer = bytearray()
        self._sent = 0.0
        self.failure = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the first request."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.start()
        self._send_next()

    def start(self) -> None:
        """Sends what goes before the first request."""

    def encode(self, request: bytes) -> bytes:
        """Frames a request."""
        return request

    def take_answer(self) -> bool:
        """Removes a whole answer from the buffer, if there is one."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Sends the next request when the answer is whole."""
        self._buffer += data
        if self.take_answer():
            self._latencies.append(time.perf_counter() - self._sent)
            self._send_next()

    def connection_lost(self, error: Exception | None) -> None:
        """Notes that the server closed the connection."""
        self.failure = self.failure or f"the server closed a connection ({error})"

    def fail(self, why: str) -> None:
        """Ends this client."""
        self.failure = why
        self.transport.abort()

    def _send_next(self) -> None:
        self._sent = time.perf_counter()
        self.transport.write(self.encode(next(self._requests)))


class RestClient(Client):
    """HTTP/1.1; expects answers with a Content-Length."""

    def take_answer(self) -> bool:
        """Looks for the status and for Content-Length bytes after the head."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._buffer[:end].lower()
        if head[9:12] != b"200":
            self.fail(self._buffer[:200].decode("latin-1"))
            return False
        [length] = re.findall(rb"content-length: *(\d+)", head)
        if len(self._buffer) < end + 4 + int(length):
            return False
        self._buffer.clear()
        return True


class GrpcClient(Client):
    """HTTP/2 with one stream at a time; a stream that ends with data is an answer."""

    def __init__(self, authority: str, requests: Iterator[bytes], latencies: list[float]) -> None:
        """Calls Predict with each request, a serialized message."""
        super().__init__(requests, latencies)
        self._authority = authority
        self._streams = itertools.count(1, 2)
        self._received = 0
        self._has_data = False

    def start(self) -> None:
        """Opens windows so wide that the server need not wait."""
        self.transport.write(http2.client_start(http2.MAX_WINDOW))

    def encode(self, request: bytes) -> bytes:
        """Opens a stream with the request as its message."""
        return http2.call(next(self._streams), PREDICT_METHOD, self._authority, request)

    def take_answer(self) -> bool:
        """Reads all whole frames."""
        ended = False
        while len(self._buffer) >= 9:
            high, low, kind, flags, _ = struct.unpack(">BHBBI", self._buffer[:9])
            size = (high << 16) + low
            if len(self._buffer) < 9 + size:
                break
            payload = bytes(self._buffer[9 : 9 + size])
            del self._buffer[: 9 + size]
            ended |= self._take_frame(kind, flags, payload)
        return ended

    def _take_frame(self, kind: int, flags: int, payload: bytes) -> bool:
        """Handles a frame; returns whether it ends an answer."""
        if kind == http2.DATA:
            self._has_data = True
            self._received += len(payload)
            if self._received > http2.MAX_WINDOW // 2:
                self.transport.write(http2.window_update(self._received))
                self._received = 0
        elif kind in (http2.PING, http2.SETTINGS) and not flags & http2.ACK:
            answer = payload if kind == http2.PING else b""
            self.transport.write(http2.frame(kind, http2.ACK, 0, answer))
        elif kind in (http2.RST_STREAM, http2.GOAWAY):
            self.fail(f"the server ended a stream: frame {kind}, {payload[:200]!r}")
        if kind not in (http2.DATA, http2.HEADERS) or not flags & http2.END_STREAM:
            return False
        if not self._has_data:
            self.fail(f"a call failed: {payload!r}")
        self._has_data = False
        return True


def draw_columns(rows: int) -> list[dict[str, list[int]]]:
    """Makes inputs of `serving_default` with seeds that differ between requests."""
    starts = range(0, REQUESTS * rows, rows)
    return [
        {
            "seed": list(range(start, start + rows)),
            "digit": [seed % 10 for seed in range(start, start + rows)],
        }
        for start in starts
    ]


def rest_clients(server: ServerProcess, rows: int) -> Callable[[list[float]], Client]:
    """Makes a function that makes clients of the REST API."""
    authority = f"{server.host}:{server.rest_port}"
    path = f"/v1/models/{server.name}:predict"
    requests = [
        http_request("POST", path, authority, json.dumps({"instances": by_row(columns)}).encode())
        for columns in draw_columns(rows)
    ]
    return lambda latencies: RestClient(cycle(requests), latencies)


def grpc_clients(server: ServerProcess, rows: int) -> Callable[[list[float]], Client]:
    """Makes a function that makes clients of the gRPC API."""
    authority = f"{server.host}:{server.grpc_port}"
    requests = [
        predict_message(server.name, "serving_default", **columns) for columns in draw_columns(rows)
    ]
    return lambda latencies: GrpcClient(authority, cycle(requests), latencies)


def by_row(columns: dict[str, list[int]]) -> list[dict[str, int]]:
    """Turns columns into rows."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def cycle(requests: Sequence[bytes]) -> Iterator[bytes]:
    """Repeats the requests."""
    return itertools.cycle(requests)


async def load(
    port: int,
    host: str,
    make_client: Callable[[list[float]], Client],
    *,
    clients: int,
    rows: int,
    seconds: float,
) -> Load:
    """Loads the server for some seconds.

    Raises:
      SystemExit: if any request is not answered well.
    """
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    cpu, began = time.process_time(), time.perf_counter()
    opened = [
        (await loop.create_connection(lambda: make_client(latencies), host, port))[1]
        for _ in range(clients)
    ]
    await asyncio.sleep(seconds)
    passed, answers = time.perf_counter() - began, sorted(latencies)
    cpu = time.process_time() - cpu
    failures = [client.failure for client in opened if client.failure]
    for client in opened:
        client.transport.abort()
    if failures:
        raise SystemExit(f"{len(failures)} of {clients} clients failed; the first: {failures[0]}")
    if not answers:
        raise SystemExit(f"no request was answered within {seconds:g} s; try a longer --seconds")
    return Load(
        rows=len(answers) * rows / passed,
        p50=1000 * answers[len(answers) // 2],
        p99=1000 * answers[int(0.99 * len(answers))],
        cpu=cpu / passed,
    )
