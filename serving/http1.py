"""An HTTP/1.1 server for an ASGI application, in which no client can hold up the others.

h11 parses and writes the protocol, asyncio carries the bytes. uvicorn, Hypercorn and aiohttp were
read first: their public options bound neither connections, nor the time that a head or a body takes
to arrive, nor answers that clients do not read, and they drop a client that closes its sending side
(`shutdown(SHUT_WR)`) before its answer. What is bounded here, see `Limits`:

- Connections. One more closes the connection whose client has kept the server waiting longest: for
  a head, for a body, or for an answer to be taken.
- Memory. Bodies that arrive and answers that clients have not taken count against a number of
  bytes; over it a body is refused, and the answer that has waited longest is dropped.
- Time. Each wait for a client has a deadline. Long bodies are read a few pieces per turn of the
  event loop, and few requests that a client sent before their predecessor was answered run at once,
  so that other clients have their turn between them.

The application sees whole requests and gives whole answers: it is called once the body is there.
"""

import asyncio
import contextlib
import http
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import h11

_log = logging.getLogger(__name__)
_READ_BYTES = 256 << 10  # whatever has arrived
_HEAD_READ_BYTES = 16 << 10  # h11 bounds a head only where it does not arrive in one piece
_BUFFERED_BYTES = (
    16 << 10
)  # of a connection that nothing reads from; asyncio holds up to twice that
_WRITE_BYTES = 64 << 10
_SEND_BUFFER_BYTES = 128 << 10  # of the kernel, which would hold up to 4 MiB that nobody counts
_HEAD_BYTES = 32 << 10
_MAX_CHUNKS = 8192  # of one body with Transfer-Encoding: chunked
_CHUNKS_IN_TURN = 64  # parsed before other connections have their turn
_BACKLOG = 128
_ACCEPTED_IN_TURN = 8
_LINGER_SECONDS = 2.0
_ARRIVING_SECONDS = 0.2  # in which a head that was sent before the server stopped is read
_RECEIVE_BUFFER_BYTES = 64 << 10  # of the kernel; one turn of the event loop reads all of it
_SMALL_BODY_BYTES = 64 << 10  # for which there is always room
_LONG_READS_IN_TURN = 4
_PIPELINED_IN_TURN = 8

Headers = list[tuple[bytes, bytes]]
Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """What clients may hold.

    Attributes:
      connections: open ones.
      body_bytes: longest body of a request.
      arriving_bytes: of all bodies that have not arrived whole.
      unread_bytes: of all answers that clients have not taken.
      seconds: for a body to arrive, and for 64 KiB of an answer to be taken.
      idle_seconds: for the head of a request to arrive, on a connection that has no request.
    """

    connections: int = 512
    body_bytes: int = 4 << 20
    arriving_bytes: int = 32 << 20
    unread_bytes: int = 128 << 20
    seconds: float = 20.0
    idle_seconds: float = 75.0


@dataclass
class _Answer:
    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""


class _RefusedError(Exception):
    """A request is refused before the application sees it, and the connection closed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        headers = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")]
        if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", b"1"))
        body = json.dumps({"error": message}).encode()
        self.answer = _Answer(status, [*headers, (b"connection", b"close")], body)


class HttpServer:
    """Listens, and holds the connections to their limits.

    Attributes:
      stopping: no new request is answered.
      arriving_bytes: of bodies that have not arrived whole.
      unread_bytes: of answers that clients have not taken.
      long_reads: turns to read a piece of a long body.
      pipelined: turns to answer a request that was sent before its predecessor was answered.
    """

    def __init__(
        self, app: Application, limits: Limits, on_refusal: Callable[[int], None] = lambda _: None
    ) -> None:
        """Makes a server that does not listen yet.

        Args:
          app: an ASGI application; only its HTTP side is used, without a lifespan.
          limits: what clients may hold.
          on_refusal: called with the status of each request that the application never sees.
        """
        self.app = app
        self.limits = limits
        self.on_refusal = on_refusal
        self.stopping = False
        self.arriving_bytes = self.unread_bytes = 0
        self.long_reads = asyncio.Semaphore(_LONG_READS_IN_TURN)
        self.pipelined = asyncio.Semaphore(_PIPELINED_IN_TURN)
        self._open: set[_Connection] = set()
        self._listener: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        """Accepts connections on a bound socket."""
        self._listener = await asyncio.start_server(
            self._converse, sock=listening, backlog=_ACCEPTED_IN_TURN, limit=_BUFFERED_BYTES
        )
        # Both are inherited by the connections.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        # asyncio accepts `backlog` connections in one turn of its loop, and listens for as many.
        listening.listen(_BACKLOG)

    async def stop(self, seconds: float) -> None:
        """Accepts no more connections, and closes those without the whole head of a request.

        Requests whose head has arrived are answered, for up to so many seconds.
        """
        self.stopping = True
        ends = time.monotonic() + seconds
        if self._listener is not None:
            self._listener.close()
        await asyncio.sleep(min(_ARRIVING_SECONDS, seconds))
        for connection in [each for each in self._open if each.is_idle]:
            connection.close()
        while self._open and time.monotonic() < ends:
            await asyncio.sleep(0.05)
        for connection in list(self._open):
            connection.abort()

    def drop_unread(self) -> None:
        """Closes the connections whose clients read slowest, until their answers fit."""
        if self.unread_bytes <= self.limits.unread_bytes:
            return
        unread = [each for each in self._open if each.unread_bytes]
        excess = sum(each.unread_bytes for each in unread) - self.limits.unread_bytes
        for connection in sorted(unread, key=lambda each: each.waits_since):
            if excess <= 0:
                return
            excess -= connection.unread_bytes
            self._drop(connection)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        self._open.add(connection)
        if len(self._open) > self.limits.connections:
            self._drop(min(self._open, key=lambda each: each.waits_since))
        try:
            await connection.run()
        finally:
            self._open.discard(connection)

    def _drop(self, connection: "_Connection") -> None:
        self._open.discard(connection)
        connection.abort()


class _Connection:
    """One client's requests, one after the other.

    Attributes:
      waits_since: since when the server waits for this client, seconds of the monotonic clock;
        infinite while a request is being answered.
      is_idle: the head of the next request has not arrived whole.
      unread_bytes: of an answer that the client has not taken.
    """

    def __init__(
        self, server: HttpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.waits_since = time.monotonic()
        self.is_idle = True
        self.unread_bytes = 0
        self._server = server
        self._limits = server.limits
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        self._pipelines = False

    def close(self) -> None:
        """Closes the connection once the client has taken what was answered."""
        self._writer.close()

    def abort(self) -> None:
        """Closes the connection; what was not sent is lost."""
        transport = self._writer.transport
        # asyncio of Python 3.10 fails where the connection has been closed already.
        if transport.get_write_buffer_size() or not transport.is_closing():
            transport.abort()

    async def run(self) -> None:
        """Answers requests until the client or the server ends the connection."""
        self._writer.transport.set_write_buffer_limits(high=_WRITE_BYTES)
        # The client may have gone, or may not have kept to its time; neither is worth a line.
        with contextlib.suppress(OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            while await self._exchange():
                self._pipelines = bool(self._h11.trailing_data[0])
                self._h11.start_next_cycle()
            await self._linger()
            self.close()
            await asyncio.wait_for(self._writer.wait_closed(), self._limits.seconds)
        self.abort()

    async def _exchange(self) -> bool:
        """Answers one request; returns whether another may follow on this connection."""
        method = b""
        try:
            request = await asyncio.wait_for(self._read_head(), self._limits.idle_seconds)
            if request is None:
                return False
            method = request.method
            self.is_idle = False
            body = await self._read_body(request)
            self.waits_since = float("inf")
            async with self._server.pipelined if self._pipelines else contextlib.nullcontext():
                answer = await self._ask_application(request, body)
        except _RefusedError as error:
            answer = self._refuse(error)
        except h11.RemoteProtocolError as error:
            message = f"Malformed request: {error}"
            answer = self._refuse(_RefusedError(error.error_status_hint, message))
        self.waits_since = time.monotonic()
        await self._send(answer, is_head=method == b"HEAD")
        self.is_idle = True
        both = (self._h11.our_state, self._h11.their_state)
        return both == (h11.DONE, h11.DONE) and not self._server.stopping

    async def _read_head(self) -> h11.Request | None:
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        names = {name for name, _ in event.headers}
        if {b"content-length", b"transfer-encoding"} <= names:
            # Two servers may read two different bodies: RFC 9112, section 6.1.
            raise _RefusedError(400, "Content-Length and Transfer-Encoding exclude each other")
        if b"content-encoding" in names:
            raise _RefusedError(400, "Content-Encoding is not supported: send the body as it is")
        return event

    async def _read_body(self, request: h11.Request) -> bytes:
        declared = int(dict(request.headers).get(b"content-length", b"0"))
        if declared > self._limits.body_bytes:
            raise self._too_long()
        if declared > _SMALL_BODY_BYTES:
            self._require_room()
        if self._h11.they_are_waiting_for_100_continue:
            self._writer.write(
                self._h11.send(h11.InformationalResponse(status_code=100, headers=[]))
            )
        try:
            return await asyncio.wait_for(self._gather_body(), self._limits.seconds)
        except asyncio.TimeoutError:
            seconds = f"{self._limits.seconds:g} s"
            raise _RefusedError(408, f"the body did not arrive within {seconds}") from None

    async def _gather_body(self) -> bytes:
        body = bytearray()
        chunks = 0
        try:
            async for event in self._body_events():
                body += event.data
                chunks += event.chunk_start
                self._server.arriving_bytes += len(event.data)
                if len(body) > self._limits.body_bytes:
                    raise self._too_long()
                if chunks > _MAX_CHUNKS:
                    raise _RefusedError(400, f"the body has more than {_MAX_CHUNKS} chunks")
                if len(body) > _SMALL_BODY_BYTES:
                    self._require_room()
                    await self._take_turn()
                elif event.chunk_start and chunks % _CHUNKS_IN_TURN == 0:
                    await asyncio.sleep(0)
        finally:
            self._server.arriving_bytes -= len(body)
        return bytes(body)

    def _require_room(self) -> None:
        if self._server.arriving_bytes > self._limits.arriving_bytes:
            raise _RefusedError(503, "too many bytes of request bodies arrive; try again")

    async def _take_turn(self) -> None:
        """Waits until few others have read a piece of a long body in this turn of the loop."""
        async with self._server.long_reads:
            await asyncio.sleep(0)

    async def _body_events(self) -> AsyncIterator[h11.Data]:
        while True:
            event = await self._next_event(_READ_BYTES)
            if isinstance(event, h11.EndOfMessage):
                return
            if not isinstance(event, h11.Data):
                raise ConnectionResetError
            yield event

    def _refuse(self, error: _RefusedError) -> _Answer:
        self._server.on_refusal(error.answer.status)
        return error.answer

    def _too_long(self) -> _RefusedError:
        return _RefusedError(413, f"the body is longer than {self._limits.body_bytes} bytes")

    async def _next_event(self, read_bytes: int = _HEAD_READ_BYTES) -> Any:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(await self._reader.read(read_bytes))
        return event

    async def _ask_application(self, request: h11.Request, body: bytes) -> _Answer:
        answer = _Answer(500)
        parts: list[bytes] = []
        messages: list[dict[str, Any]] = [{"type": "http.request", "body": body}]
        # That the client leaves is noticed by what writes to it.
        disconnected: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        async def receive() -> dict[str, Any]:
            return messages.pop() if messages else await disconnected

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status, answer.headers = message["status"], list(message["headers"])
            else:
                parts.append(message.get("body", b""))

        try:
            await self._server.app(_scope(request, self._writer), receive, send)
        except Exception:
            _log.exception("a request failed")
        answer.body = b"".join(parts)
        return answer

    async def _send(self, answer: _Answer, *, is_head: bool) -> None:
        names = {name.lower() for name, _ in answer.headers}
        headers = [*answer.headers, (b"date", formatdate(usegmt=True).encode())]
        if b"content-length" not in names:
            headers.append((b"content-length", str(len(answer.body)).encode()))
        if self._server.stopping and b"connection" not in names:
            headers.append((b"connection", b"close"))
        reason = http.HTTPStatus(answer.status).phrase.encode()
        head = h11.Response(status_code=answer.status, headers=headers, reason=reason)
        written = self._h11.send(head) or b""
        body = b"" if is_head else answer.body
        self.unread_bytes = len(body)
        self._server.unread_bytes += len(body)
        try:
            self._server.drop_unread()
            await self._write(written, body)
        finally:
            self._server.unread_bytes -= len(body)
            self.unread_bytes = 0

    async def _write(self, written: bytes, body: bytes) -> None:
        for start in range(0, len(body), _WRITE_BYTES):
            piece = h11.Data(data=body[start : start + _WRITE_BYTES])
            written += self._h11.send(piece) or b""
            self._writer.write(written)
            written = b""
            await self._drain()
        self._writer.write(written + (self._h11.send(h11.EndOfMessage()) or b""))
        await self._drain()

    async def _drain(self) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError
        if self._writer.transport.get_write_buffer_size() > _WRITE_BYTES:
            await asyncio.wait_for(self._writer.drain(), self._limits.seconds)

    async def _linger(self) -> None:
        """Ends the sending side and reads what still arrives, so that the answer is not lost.

        Closing a socket with unread bytes in it resets the connection: RFC 9112, section 9.6.
        """
        if self._writer.can_write_eof():
            self._writer.write_eof()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._read_to_end(), _LINGER_SECONDS)

    async def _read_to_end(self) -> None:
        while await self._reader.read(_READ_BYTES):
            await self._take_turn()


def _scope(request: h11.Request, writer: asyncio.StreamWriter) -> dict[str, Any]:
    """The request as ASGI has it; HEAD is GET, whose body is not sent."""
    path, _, query = request.target.partition(b"?")
    method = request.method.decode("ascii")
    peer = writer.get_extra_info("peername") or ("", 0)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode("ascii"),
        "method": "GET" if method == "HEAD" else method,
        "scheme": "http",
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": list(request.headers),
        "client": peer[:2],
        "server": writer.get_extra_info("sockname")[:2],
    }
