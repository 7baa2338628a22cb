"""HTTP/2 frames and gRPC requests as bytes, for clients that a gRPC library would not let us write.

Only what a client sends. Header fields are written as HPACK literals, never indexed, so a request
is the same bytes on every connection and can be encoded once.
"""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
INITIAL_WINDOW_SIZE = 4
MAX_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
MAX_FRAME = 16_384
CANCEL = 8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Encodes one frame."""
    head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream)
    return head + payload


def client_start(window: int = DEFAULT_WINDOW) -> bytes:
    """Encodes what opens a connection: preface, settings and, if wanted, wider windows.

    Args:
      window: bytes of an answer that the server may send before the client has read any.
    """
    settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
    start = PREFACE + frame(SETTINGS, 0, 0, settings)
    if window > DEFAULT_WINDOW:
        start += window_update(window - DEFAULT_WINDOW)
    return start


def window_update(more: int) -> bytes:
    """Encodes that the server may send `more` bytes on the connection."""
    return frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", more))


def call_headers(stream: int, method: str, authority: str) -> bytes:
    """Encodes the HEADERS frame of a gRPC call, such as `/grpc.health.v1.Health/Check`."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(
        b"\0" + _string(name.encode()) + _string(value.encode()) for name, value in fields.items()
    )
    return frame(HEADERS, END_HEADERS, stream, block)


def message(content: bytes) -> bytes:
    """Puts gRPC's prefix, uncompressed and the length, before a serialized message."""
    return struct.pack(">BI", 0, len(content)) + content


def call(stream: int, method: str, authority: str, content: bytes) -> bytes:
    """Encodes a whole unary gRPC call: its headers and its message."""
    body = message(content)
    parts = [body[at : at + MAX_FRAME] for at in range(0, len(body), MAX_FRAME)]
    frames = [frame(DATA, 0, stream, part) for part in parts[:-1]]
    frames.append(frame(DATA, END_STREAM, stream, parts[-1]))
    return call_headers(stream, method, authority) + b"".join(frames)


def reset(stream: int) -> bytes:
    """Encodes that the client cancels a stream."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))


def _string(text: bytes) -> bytes:
    """Encodes an HPACK string of fewer than 127 bytes, without Huffman coding."""
    assert len(text) < 127
    return bytes([len(text)]) + text
