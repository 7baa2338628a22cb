"""Requests that the server of digits does not read, or for which it has no time."""

import asyncio
import gzip
import json
import threading
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
from serving.codec import TensorSpec

from serving.app import create_app
from serving.settings import ServeSettings
from serving.watch import VersionWatch

PREDICT = "/v1/models/digits:predict"
ONE = b'{"inputs": {"seed": [1]}}'


class Model:
    """Gives seeds back, once it may."""

    number = 1

    def __init__(self) -> None:
        self.signatures = {"serving_default": {"seed": TensorSpec(np.dtype(np.int64), (None,))}}
        self.may_answer = threading.Event()

    def call(self, signature, inputs):
        self.may_answer.wait(60)
        return inputs


@pytest.fixture
def model():
    made = Model()
    yield made
    made.may_answer.set()


def client_of(model, tmp_path, **limits) -> httpx.AsyncClient:
    (tmp_path / "1").mkdir()
    versions = VersionWatch(tmp_path, 1, load=lambda directory: model)
    versions.look()
    app = create_app("digits", versions, ServeSettings(**limits))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://digits")


async def body_that_comes(begun: asyncio.Event, may_end: asyncio.Event) -> AsyncIterator[bytes]:
    begun.set()
    yield ONE[:5]
    await may_end.wait()
    yield ONE[5:]


def require_busy(answer: httpx.Response, told: str) -> None:
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert json.loads(answer.text) == {"error": told}


def test_a_request_that_arrives_counts_as_one_that_waits(model, tmp_path):
    model.may_answer.set()

    async def ask() -> None:
        async with client_of(model, tmp_path, max_waiting=2) as client:
            may_end, arriving = asyncio.Event(), []
            for _ in range(2):
                begun = asyncio.Event()
                body = body_that_comes(begun, may_end)
                arriving.append(asyncio.create_task(client.post(PREDICT, content=body)))
                await begun.wait()
            require_busy(
                await client.post(PREDICT, content=ONE), "2 requests wait already; try again"
            )
            assert (await client.get("/healthz")).status_code == 200
            may_end.set()
            answers = [*await asyncio.gather(*arriving), await client.post(PREDICT, content=ONE)]
            assert [answer.json() for answer in answers] == [{"outputs": [1]}] * 3

    asyncio.run(ask())


def test_an_answer_that_does_not_come_is_not_waited_for(model, tmp_path):
    async def ask() -> None:
        async with client_of(model, tmp_path, timeout_seconds=0.1, workers=1) as client:
            require_busy(await client.post(PREDICT, content=ONE), "not answered within 0.1 s")
            model.may_answer.set()

    asyncio.run(ask())


def test_a_compressed_body_is_refused_in_words(model, tmp_path):
    async def ask() -> httpx.Response:
        async with client_of(model, tmp_path) as client:
            headers = {"Content-Encoding": "gzip"}
            return await client.post(PREDICT, content=gzip.compress(ONE), headers=headers)

    answer = asyncio.run(ask())
    assert answer.status_code == 400
    assert answer.json() == {"error": "Content-Encoding 'gzip' is not supported"}
