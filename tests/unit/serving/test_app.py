"""The routes of the REST API, with a stand-in for the model: what they answer and refuse."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving import batching
from serving.app import create_app
from serving.predicting import Predictor
from serving.requests import TensorSpec
from serving.settings import ServeSettings
from serving.watch import AVAILABLE, FAILED, VersionStatus, VersionWatch

PREDICT = "/v1/models/digits:predict"
ONE = b'{"inputs": {"seed": [1]}}'
JSON = {"Content-Type": "application/json"}
LOOPBACK, ANY = "127.0.0.1", "0.0.0.0"


class Model:
    """Gives seeds back, once it may."""

    number = 1
    card = None
    latent_dim = 6

    def __init__(self) -> None:
        self.signatures = {"serving_default": {"seed": TensorSpec(np.dtype(np.int64), (None,))}}
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.calls = 0

    def call(self, signature, inputs):
        self.calls += 1
        self.may_answer.wait(60)
        if (inputs["seed"] == 666).any():
            raise ZeroDivisionError("a defect of the model")
        return inputs

    def signature_def_json(self):
        return {"signature_def": {}}


@pytest.fixture
def model() -> Iterator[Model]:
    made = Model()
    yield made
    made.may_answer.set()


@pytest.fixture
def ask(model, tmp_path) -> Callable[..., Any]:
    """A function that runs `scenario(client)` with a client of an application."""

    def run(
        scenario: Callable[[httpx.AsyncClient], Awaitable[Any]],
        address: str = LOOPBACK,
        *,
        is_loaded: bool = True,
        **settings: Any,
    ) -> Any:
        served = model if is_loaded else None
        return asyncio.run(within(scenario, address, served, ServeSettings(**settings)))

    async def within(scenario, address, served, settings):
        versions = VersionWatch(tmp_path / "digits")
        versions.served = served
        predictor = Predictor("digits", versions, settings)
        transport = httpx.ASGITransport(create_app(predictor, address), raise_app_exceptions=False)
        with contextlib.closing(predictor):
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost", headers=JSON
            ) as client:
                try:
                    return await scenario(client)
                finally:
                    model.may_answer.set()

    return run


def require_error(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    content = json.loads(answer.text)
    assert list(content) == ["error"]
    return content["error"]


# Host names.


@pytest.mark.parametrize(
    ("host", "on_loopback", "where_named"),
    [
        ("localhost", True, False),
        ("LOCALHOST:8501", True, False),
        ("localhost.", True, False),
        ("127.0.0.1", True, False),
        ("127.0.0.1:8501", True, False),
        ("127.1.2.3", True, False),
        ("[::1]", True, False),
        ("[::1]:8501", True, False),
        ("evil.example", False, False),
        ("localhost.evil.example", False, False),
        ("127.0.0.1.evil.example:8501", False, False),
        ("localhost@evil.example", False, False),
        ("192.0.2.1", False, False),
        ("[2001:db8::1]", False, False),
        ("[::1", False, False),
        ("", False, False),
        (":8501", False, False),
        ("localhost:no port", False, False),
        ("digits.example", False, True),
        ("Digits.Example.:443", False, True),
        ("10.0.0.7:8501", False, True),
        ("[2001:db8::7]:8501", False, True),
    ],
)
def test_host_names(ask, host, on_loopback, where_named):
    async def statuses(client) -> set[int]:
        paths = ("/healthz", "/", "/v1/models/digits")
        answers = [await client.get(path, headers={"Host": host}) for path in paths]
        answers.append(await client.post(PREDICT, content=ONE, headers={"Host": host}))
        for answer in answers:
            assert answer.headers["x-content-type-options"] == "nosniff"
        return {answer.status_code for answer in answers}

    named = {"allowed_hosts": ("DIGITS.example", "10.0.0.7", "2001:db8::7")}
    for address in (LOOPBACK, "::1"):
        assert ask(statuses, address) == ({200} if on_loopback else {400})
    for address in (LOOPBACK, ANY):
        assert ask(statuses, address, **named) == ({200} if where_named else {400})


@pytest.mark.parametrize("host", ["localhost", "10.0.0.7:8501", "digits.example", "[2001:db8::7]"])
@pytest.mark.parametrize("address", [ANY, "::", "192.0.2.1"])
def test_where_others_may_reach_the_server_every_host_name_is_served(ask, host, address):
    answer = ask(lambda client: client.get("/healthz", headers={"Host": host}), address)
    assert answer.status_code == 200


def test_a_host_name_that_is_refused_is_named(ask):
    answer = ask(lambda client: client.get("/", headers={"Host": "evil.example" * 100}))
    error = require_error(answer, 400)
    assert "evil.example" in error
    assert "serve.allowed_hosts" in error
    assert len(error) < 300


# Requests.


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 415),
        ("text/plain; application/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=application/json", 415),
        ("application/jsonp", 415),
        ("", 415),
    ],
)
def test_a_body_has_to_be_declared_as_json(ask, model, content_type, status):
    headers = {"Content-Type": content_type}
    answer = ask(lambda client: client.post(PREDICT, content=ONE, headers=headers))
    if status == 200:
        assert answer.json() == {"outputs": [1]}
    else:
        require_error(answer, status)
    assert model.calls == (status == 200)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/about", 200),
        ("GET", "/", 200),
        ("GET", "/page.js", 200),
        ("GET", "/v1/models/digits", 200),
        ("GET", "/v1/models/digits/versions/1", 200),
        ("GET", "/v1/models/digits/versions/0001", 200),
        ("GET", "/v1/models/digits/metadata", 200),
        ("GET", "/v1/models/digits/versions/1/metadata", 200),
        ("POST", PREDICT, 200),
        ("POST", "/v1/models/digits/versions/1:predict", 200),
        ("GET", "/v1/models/digits/versions/2", 404),
        ("GET", f"/v1/models/digits/versions/{'9' * 18}", 404),
        ("GET", f"/v1/models/digits/versions/{'9' * 19}", 400),
        ("GET", f"/v1/models/digits/versions/{'9' * 5000}/metadata", 400),
        ("POST", f"/v1/models/digits/versions/{'9' * 20}:predict", 400),
        ("GET", "/v1/models/digits/versions/٣", 400),
        ("GET", "/v1/models/digits/versions/-1", 400),
        ("GET", "/v1/models/digits/versions/+1", 400),
        ("GET", "/v1/models/digits/versions/1_0", 400),
        ("GET", "/v1/models/digits/versions/1.0/metadata", 400),
        ("POST", "/v1/models/digits/versions/2:predict", 404),
        ("POST", "/v1/models/Digits:predict", 404),
        ("GET", "/v1/models/%00", 404),
        ("GET", "/v1/models/digits%2Fmetadata", 200),
        ("GET", "/v1/models/digits:predict", 400),
        ("POST", "/v1/models/digits:classify", 400),
        ("POST", "/v1/models/digits/labels/stable:predict", 400),
        ("TRACE", "/v1/models/digits", 400),
        ("GET", "/v1/", 400),
        ("GET", "/v1/models/" + "x" * 10_000, 404),
        ("GET", "/../app.py", 404),
        ("GET", "/%2e%2e/app.py", 404),
        ("GET", "/..%2fapp.py", 404),
        ("GET", "/page.js%00", 404),
        ("GET", "/" + "x" * 10_000, 404),
        ("GET", "/about/", 404),
        ("POST", "/about", 405),
        ("DELETE", "/", 405),
        ("CONNECT", "/v1/models/digits", 405),
    ],
)
def test_routes(ask, method, path, status):
    answer = ask(lambda client: client.request(method, path, content=ONE))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.status_code == status
    if status >= 400:
        assert len(require_error(answer, status)) < 500


def test_no_answer_leads_to_another_server(ask):
    async def locations(client):
        paths = ("//evil.example", "//evil.example/..", "/\\evil.example/", "/http://evil.example")
        urls = [httpx.URL("http://localhost", raw_path=path.encode()) for path in paths]
        answers = [await client.get(url) for url in urls]
        return [answer.headers.get("location") for answer in answers]

    assert ask(locations) == [None] * 4


def test_the_page_takes_nothing_from_elsewhere(ask):
    for path in ("/", "/page.js", "/page.css"):
        headers = ask(lambda client, path=path: client.get(path)).headers
        policy = dict(
            directive.split(" ", 1) for directive in headers["content-security-policy"].split("; ")
        )
        assert policy["default-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert headers["referrer-policy"] == "no-referrer"


def test_about_tells_every_version_and_its_failure(ask, model, monkeypatch):
    found = [VersionStatus(2, FAILED, "it is damaged"), VersionStatus(1, AVAILABLE)]
    monkeypatch.setattr(VersionWatch, "statuses", lambda self, version=None: found)
    about = ask(lambda client: client.get("/about"), max_rows=7).json()
    assert about == {
        "model": "digits",
        "version": 1,
        "versions": [
            {"version": 2, "state": "END", "error": "it is damaged"},
            {"version": 1, "state": "AVAILABLE", "error": ""},
        ],
        "card": None,
        "latent_dim": 6,
        "max_rows": 7,
    }
    status = ask(lambda client: client.get("/v1/models/digits")).json()
    assert status["model_version_status"][0] == {
        "version": "2",
        "state": "END",
        "status": {"error_code": "UNKNOWN", "error_message": "it is damaged"},
    }


def test_before_a_version_is_loaded_the_server_lives_and_is_not_ready(ask):
    async def scenario(client):
        answers = {
            path: await client.get(path)
            for path in ("/healthz", "/readyz", "/about", "/metrics", "/v1/models/digits", "/")
        }
        answers["predict"] = await client.post(PREDICT, content=ONE)
        return answers

    answers = ask(scenario, is_loaded=False)
    statuses = {path: answer.status_code for path, answer in answers.items()}
    assert statuses == {
        "/healthz": 200,
        "/readyz": 503,
        "/about": 200,
        "/metrics": 200,
        "/v1/models/digits": 404,
        "/": 200,
        "predict": 404,
    }
    assert answers["/about"].json()["version"] is None
    assert int(answers["/readyz"].headers["retry-after"]) > 0
    assert "mnist_gan_serve_version 0.0" in answers["/metrics"].text


# Busy.


def require_busy(answer: httpx.Response) -> str:
    assert int(answer.headers["retry-after"]) > 0
    return require_error(answer, 503)


async def begin(client: httpx.AsyncClient, model: Model, count: int) -> "list[asyncio.Task]":
    """Sends requests, of which those that find no worker wait."""
    drawing = min(count, batching._WORKERS) - model.calls
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(client.post(PREDICT, content=ONE)))
        while number < drawing and model.calls <= number:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    return tasks


def test_requests_over_the_bound_are_told_to_come_again_and_health_is_not(ask, model, monkeypatch):
    monkeypatch.setattr(batching, "MAX_WAITING", 2)
    model.may_answer.clear()

    async def scenario(client):
        asked = await begin(client, model, batching._WORKERS + 2)
        assert require_busy(await client.post(PREDICT, content=ONE))
        for path in ("/healthz", "/readyz", "/metrics", "/about"):
            assert (await client.get(path)).status_code == 200
        model.may_answer.set()
        answers = [*await asyncio.gather(*asked), await client.post(PREDICT, content=ONE)]
        assert [answer.json() for answer in answers] == [{"outputs": [1]}] * len(answers)

    ask(scenario)


def test_an_answer_that_does_not_come_is_not_waited_for(ask, model):
    model.may_answer.clear()
    answer = ask(lambda client: client.post(PREDICT, content=ONE), timeout_seconds=0.1)
    assert "0.1 s" in require_busy(answer)


def test_a_defect_of_the_model_tells_nothing_of_itself(ask):
    body = b'{"inputs": {"seed": [666]}}'
    error = require_error(ask(lambda client: client.post(PREDICT, content=body)), 500)
    assert "defect" not in error


def test_a_long_body_is_read_as_a_short_one(ask, model):
    content = {"inputs": {"seed": list(range(1000, 6000))}}
    answer = ask(lambda client: client.post(PREDICT, json=content), max_rows=5000)
    assert answer.json() == {"outputs": list(range(1000, 6000))}
    assert model.calls == -(-5000 // batching.BATCH_ROWS)


# Metrics.


def samples(text: str) -> dict[str, float]:
    return {
        sample.name.removeprefix("mnist_gan_serve_") + sample.labels.get("code", ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


def test_requests_and_images_are_counted(ask, model, monkeypatch):
    monkeypatch.setattr(batching, "MAX_WAITING", 0)

    async def scenario(client):
        await client.post(PREDICT, content=b"{")
        await client.post(PREDICT, json={"inputs": [1] * 8})
        await client.post("/v1/models/digits/versions/2:predict", content=ONE)
        await client.post(PREDICT, content=ONE)
        await client.post(PREDICT, json={"inputs": [1] * 70})
        await client.post(PREDICT, content=b'{"inputs": [666, 1]}' + b" " * 10_000)
        model.may_answer.clear()
        [gone] = await begin(client, model, 1)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        for path in ("/healthz", "/about", "/"):
            await client.get(path)
        return samples((await client.get("/metrics")).text)

    # No short request may wait: those are 503, and long ones are answered.
    found = ask(scenario, max_rows=100)
    counts = {name: value for name, value in found.items() if name.startswith("requests_total")}
    assert counts == {
        "requests_total400": 1,
        "requests_total404": 1,
        "requests_total503": 4,
        "requests_total200": 1,
    }
    assert (found["images_total"], found["version"]) == (70, 1)
