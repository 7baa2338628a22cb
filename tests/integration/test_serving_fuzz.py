"""Requests that no client should send, made from the server's own OpenAPI document."""

import base64
import json
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback_server import LoopbackServer, wait_until

from serving.app import create_app
from serving.http1 import Limits
from serving.loading import LoadedVersion
from serving.predicting import Predictor
from serving.settings import ServeSettings
from serving.watch import VersionWatch

# What an HTTP server may answer to any request, whatever its document says.
ALWAYS = {400, 404, 405, 413}
JSON_TYPE = {"Content-Type": "application/json"}

NUMBERS = (
    st.sampled_from([0, -1, 9, 10, 2**31, 2**63 - 1, -(2**63), 2**63, 2**64, 10**400, 1e39, 1e308])
    | st.integers()
    | st.floats()
)
LEAVES = (
    st.none()
    | st.booleans()
    | NUMBERS
    | st.text(max_size=20)
    | st.fixed_dictionaries({"b64": st.text(max_size=8) | NUMBERS})
    | st.binary(max_size=8).map(lambda raw: {"b64": base64.b64encode(raw).decode()})
)
NAMES = st.sampled_from(["seed", "digit", "latent", "instances", "inputs", "b64"])
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(NAMES | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=15,
)
SEEDS = st.lists(st.integers(-(2**63), 2**63 - 1) | LEAVES, max_size=25)
SIGNATURES = st.sampled_from(["serving_default", "generate_pixels", "from_latent", "no", ""]) | JSON
ROWS = st.fixed_dictionaries({}, optional={"seed": LEAVES, "digit": LEAVES, "latent": JSON})
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": SIGNATURES,
        "instances": st.lists(ROWS, max_size=25) | JSON,
        "inputs": st.fixed_dictionaries({"seed": SEEDS, "digit": SEEDS}) | JSON,
    },
)
BODIES = (
    (NEARLY | JSON).map(lambda content: json.dumps(content).encode())
    | st.binary(max_size=200)
    | st.sampled_from([b"", b"[" * 15_000, b'{"inputs":' * 1_500, b" " * 20_001])
)
NAME_PARTS = st.sampled_from(["digits", "..", "../../etc", "%00", "digits:predict", "labels"])
VERSIONS = st.sampled_from(["3", "4", "-1", "03", "9" * 19, "9" * 30, "٣", "3.0"])


@pytest.fixture(scope="module")
def client(tmp_path_factory, add_version) -> Iterator[httpx.Client]:
    """A client of a server in a thread of this process."""
    base = tmp_path_factory.mktemp("models") / "digits"
    base.mkdir()
    add_version(base, 3)
    versions = VersionWatch(base, load=LoadedVersion)
    versions.start()
    wait_until(lambda: versions.served)
    predictor = Predictor("digits", versions, ServeSettings(max_rows=20))
    app = create_app(predictor, "127.0.0.1")
    limits = Limits(body_bytes=20_000)
    with LoopbackServer(app, limits, predictor.metrics.count_refusal) as server:
        host, port = server.address
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=60) as found:
            yield found
    versions.stop()
    predictor.close()


@pytest.fixture(scope="module")
def operations(client) -> list[tuple[str, str, set[int]]]:
    """Method, path and documented status codes of each operation."""
    paths = client.get("/openapi.json").json()["paths"]
    found = [
        (method.upper(), path, {int(code) for code in operation["responses"]})
        for path, operations in paths.items()
        for method, operation in operations.items()
    ]
    assert len([path for _, path, _ in found if path.endswith(":predict")]) == 2
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_operation_answers_as_its_document_says(client, operations, data):
    predictions = [each for each in operations if each[1].endswith(":predict")]
    method, path, documented = data.draw(st.sampled_from(operations + 4 * predictions))
    name = data.draw(st.just("digits") | NAME_PARTS | st.text(min_size=1, max_size=12))
    version = data.draw(st.just("3") | VERSIONS | st.text(min_size=1, max_size=12))
    sent = data.draw(st.just(method) | st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]))
    address = path.replace("{name}", _quoted(name)).replace("{version}", _quoted(version))
    headers = data.draw(st.just(JSON_TYPE) | st.just({}))
    answer = client.request(sent, address, content=data.draw(BODIES), headers=headers)
    _require_plain_answer(answer, documented | ALWAYS if sent == method else ALWAYS | {200})


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=BODIES)
def test_any_body_is_answered_or_refused(client, body):
    answer = client.post("/v1/models/digits:predict", content=body, headers=JSON_TYPE)
    _require_plain_answer(answer, {200, 400, 413})


@settings(max_examples=50, deadline=None)
@given(path=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_path_is_answered(client, path):
    answer = client.get("/" + _quoted(path, safe="/:."))
    assert answer.status_code in {200, 307, *ALWAYS}


def test_it_still_draws_after_all_that(client):
    asked = {"inputs": {"seed": [1], "digit": [7]}}
    answer = client.post("/v1/models/digits:predict", json=asked)
    assert answer.json()["outputs"]["digit"] == [7]
    assert 'code="5' not in client.get("/metrics").text


def _quoted(text: str, safe: str = "") -> str:
    return quote(text.encode("utf-8", "replace"), safe=safe)


def _require_plain_answer(answer: httpx.Response, allowed: set[int]) -> None:
    assert answer.status_code in allowed, (answer.status_code, answer.text[:300])
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        assert list(answer.json()) == ["error"]
        assert len(answer.text) < 2_000
        assert "Traceback" not in answer.text
