"""Requests to the server, encoded once and sent many times, and a plain HTTP client."""

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PREDICT_METHOD = "/tensorflow.serving.PredictionService/Predict"
HEALTH_CHECK_METHOD = "/grpc.health.v1.Health/Check"
HEALTH_WATCH_METHOD = "/grpc.health.v1.Health/Watch"


def http_request(
    method: str, path: str, authority: str, body: bytes = b"", *, headers: Sequence[str] = ()
) -> bytes:
    """Encodes an HTTP/1.1 request; one with a body says that the body is JSON."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {authority}", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def post_head(path: str, authority: str, length: int) -> bytes:
    """Encodes the head of a POST of JSON whose body of `length` bytes follows separately."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {authority}", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def predict_body(signature: str, **columns: Sequence) -> bytes:
    """Encodes the JSON of a `:predict` request."""
    return json.dumps({"signature_name": signature, "inputs": columns}).encode()


def predict_message(model: str, signature: str, **columns: Sequence[int]) -> bytes:
    """Serializes a PredictRequest whose inputs are int64 columns; imports TensorFlow."""
    from tensorflow.core.framework import types_pb2
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, values in columns.items():
        request.inputs[name].dtype = types_pb2.DT_INT64
        request.inputs[name].tensor_shape.dim.add().size = len(values)
        request.inputs[name].int64_val.extend(values)
    return request.SerializeToString()


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpConnection:
    """One HTTP/1.1 connection of a well-behaved client."""

    def __init__(self, host: str, port: int) -> None:
        """Opens nothing yet."""
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.reopened = 0

    async def ask(self, request: bytes) -> Answer:
        """Sends a request and reads its answer.

        A server may close a connection that is kept alive at any time. If it closed this one
        before it sent any byte of the answer, the request is sent once more on a new connection,
        as HTTP clients do, and `reopened` counts that.

        Raises:
          OSError: if there is no answer; `EOFError` if it ends in the middle.
        """
        if self._streams is not None:
            with contextlib.suppress(OSError):
                answer = await self._ask(request)
                if answer is not None:
                    return answer
            self.reopened += 1
            self.close()
        self._streams = await asyncio.open_connection(*self._address)
        answer = await self._ask(request)
        if answer is None:
            raise ConnectionResetError("closed without an answer")
        return answer

    async def _ask(self, request: bytes) -> Answer | None:
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(request)
        answer = await read_answer(reader)
        if answer is None or answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    def close(self) -> None:
        """Closes the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def read_answer(reader: asyncio.StreamReader) -> Answer | None:
    """Reads one answer; None if the connection ended before its first byte.

    Raises:
      EOFError: if the connection ended after it.
    """
    first = await reader.readline()
    if not first:
        return None
    if not first.endswith(b"\n"):
        raise EOFError("the connection ended in a status line")
    status = int(first.split()[1])
    headers = {}
    while line := (await reader.readuntil(b"\n")).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        chunks = []
        while size := int((await reader.readline()).partition(b";")[0], 16):
            chunks.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return Answer(status, headers, b"".join(chunks))
    if "content-length" in headers:
        return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))
    return Answer(status, headers, await reader.read())
