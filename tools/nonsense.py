"""Requests to the REST API that no client should send, drawn at random."""

import json
import random
from typing import Any

from tools.serve_requests import http_request

LEAVES: tuple[Any, ...] = (
    *(0, 1, -1, 9, 10, 11, 2**31, 2**63 - 1, -(2**63), 2**63, 2**64, 10**400, 1.5, -0.0, 1e39),
    *(1e308, True, None, "", "7", "\0", "\ud800", {}, [], [[]], {"b64": "AA=="}, {"b64": 7}),
    *("../../etc/passwd", "x" * 10_000, [1, [2]], [[1, 2], [3]], float("nan"), float("inf")),
)
PATHS = (
    *("/v1/models/{m}:predict", "/v1/models/{m}", "/v1/models/{m}/versions/1:predict"),
    *("/v1/models/{m}/versions/99999999999999999999", "/v1/models/{m}/versions/-1:predict"),
    *("/v1/models/..%2f..%2fetc%2fpasswd", "/v1/models/%00:predict", "/v1/models/{m}:classify"),
    *("/../../../etc/passwd", "/%2e%2e/%2e%2e/local_runner.py", "/static/%00", "/" + "a" * 5_000),
    *("/v1/models/{m}/labels/x:predict", "/v1/models/", "/v1", "//", "/v1/models/{m}/metadata"),
)
KEYS = ("seed", "digit", "latent", "signature_name", "instances", "inputs", "b64", "", "\n")
SIGNATURES = ("serving_default", "generate_pixels", "from_latent", "no", 7, None)


def draw_request(draw: random.Random, model: str, authority: str) -> bytes:
    """Encodes a request, mostly a POST to `:predict`."""
    path = draw.choice(PATHS) if draw.random() < 0.2 else PATHS[0]
    method = draw.choice(["POST"] * 8 + ["GET", "PUT"])
    return http_request(method, path.format(m=model), authority, draw_body(draw))


def draw_body(draw: random.Random) -> bytes:
    """Draws a body: JSON of the wrong shape, damaged JSON, or noise."""
    signature = draw.choice(SIGNATURES)
    columns = {key: draw_value(draw) for key in ("seed", "digit")}
    content = draw.choice(
        [
            {"signature_name": signature, "inputs": columns},
            {"signature_name": signature, "instances": [columns] * draw.randrange(4)},
            {"inputs": draw_value(draw), "instances": draw_value(draw)},
            {"instances": [{"seed": 1, "digit": 1}] * draw.choice([1, 5_000])},
            draw_value(draw),
        ]
    )
    body = json.dumps(content).encode()
    if draw.random() < 0.3:
        cut = draw.randrange(len(body))
        body = body[:cut] + draw.randbytes(draw.randrange(4)) + body[cut + 1 :]
    return draw.choice([body, body, body, b"", b"[" * 100_000, draw.randbytes(200)])


def draw_value(draw: random.Random, depth: int = 0) -> Any:
    """Draws a JSON value, nested at most five deep."""
    roll = draw.random()
    if depth > 4 or roll < 0.6:
        return draw.choice(LEAVES)
    if roll < 0.8:
        return [draw_value(draw, depth + 1) for _ in range(draw.randrange(5))]
    return {draw.choice(KEYS): draw_value(draw, depth + 1) for _ in range(draw.randrange(4))}
