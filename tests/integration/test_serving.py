"""`local_runner.py serve` as a process, with generators that nobody trained."""

import base64
import concurrent.futures
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import tensorflow as tf
from google.protobuf import json_format
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from models.gan.export import export_generator
from models.gan.networks import build_generator
from models.gan.settings import TrainSettings

ROOT = Path(__file__).parents[2]
LIMITS = ("max_rows=40", "max_body_bytes=5000", "poll_seconds=0.1", "timeout_seconds=2")
PREDICT = "/v1/models/digits:predict"
TWO = {"instances": [{"seed": 1, "digit": 7}, {"seed": 2, "digit": -1}]}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A SavedModel as runs push it."""
    recipe = TrainSettings(latent_dim=6, generator_channels=(8, 6, 4))
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_generator(build_generator(recipe), recipe, str(folder))
    return folder


@pytest.fixture(scope="module")
def add_version(exported) -> Callable[..., Path]:
    """A function that adds a version in one step, as the pusher does; damaged, if asked."""

    def add(base: Path, number: int, *, damaged: bool = False) -> Path:
        incoming = base / f".incoming-{number}"
        shutil.copytree(exported, incoming)
        if damaged:
            [weights] = (incoming / "variables").glob("*.data-*")
            os.truncate(weights, 100)
        return incoming.rename(base / str(number))

    return add


def start(base: Path, *arguments: str) -> tuple[subprocess.Popen, str]:
    sets = [part for limit in LIMITS for part in ("--set", f"serve.{limit}")]
    process = subprocess.Popen(
        [
            sys.executable,
            "local_runner.py",
            "serve",
            "--models-dir",
            str(base),
            "--port",
            "0",
            *sets,
            *arguments,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1].rstrip("/")
    return process, address


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(1200):
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("it did not happen")


@pytest.fixture(scope="module")
def served(tmp_path_factory, add_version) -> Iterator[httpx.Client]:
    """A client of a server of version 3."""
    base = tmp_path_factory.mktemp("models") / "digits"
    base.mkdir()
    add_version(base, 3)
    process, address = start(base)
    with httpx.Client(base_url=address, timeout=60) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        yield client
    process.terminate()
    assert process.wait() in (0, -signal.SIGTERM)


def error_of(answer: httpx.Response) -> str:
    content = answer.json()
    assert set(content) == {"error"}
    return content["error"]


def test_pictures_are_those_of_the_saved_model(served, exported):
    [first, second] = served.post(PREDICT, json=TWO).json()["predictions"]
    signature = tf.saved_model.load(str(exported)).signatures["serving_default"]
    drawn = signature(seed=tf.constant([1, 2], tf.int64), digit=tf.constant([7, -1], tf.int64))
    assert [first["digit"], second["digit"]] == drawn["digit"].numpy().tolist()
    pictures = [base64.b64decode(row["image_bytes"]["b64"]) for row in (first, second)]
    assert pictures == drawn["image_bytes"].numpy().tolist()
    assert np.asarray(Image.open(io.BytesIO(pictures[0]))).shape == (28, 28)


def test_every_signature_in_rows_and_columns(served):
    seeded = {"seed": [1, 2, 3], "digit": [7, 8, 9]}
    latent = {"latent": np.eye(3, 6).tolist(), "digit": [1, 2, 3]}
    for signature, inputs in (("generate_pixels", seeded), ("from_latent", latent)):
        asked = {"signature_name": signature, "inputs": inputs}
        columns = served.post(PREDICT, json=asked).json()["outputs"]
        assert np.asarray(columns["image"]).shape == (3, 28, 28, 1)
        rows = [dict(zip(inputs, row, strict=True)) for row in zip(*inputs.values(), strict=True)]
        asked = {"signature_name": signature, "instances": rows}
        found = served.post("/v1/models/digits/versions/3:predict", json=asked).json()
        assert [row["image"] for row in found["predictions"]] == columns["image"]
    none = {"inputs": {"seed": [], "digit": []}}
    assert served.post(PREDICT, json=none).json()["outputs"] == {"digit": [], "image_bytes": []}


def test_status_and_metadata_are_tensorflow_servings_messages(served, exported):
    answer = served.get("/v1/models/digits").text
    status = json_format.Parse(answer, get_model_status_pb2.GetModelStatusResponse())
    [version] = status.model_version_status
    assert (version.version, version.state) == (3, version.AVAILABLE)
    assert served.get("/v1/models/digits/versions/3").text == answer
    metadata = served.get("/v1/models/digits/metadata").json()
    assert metadata["model_spec"] == {"name": "digits", "signature_name": "", "version": "3"}
    found = json_format.ParseDict(
        metadata["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap()
    )
    signatures = tf.saved_model.load(str(exported)).signatures
    assert set(found.signature_def) == set(signatures)
    seed = found.signature_def["serving_default"].inputs["seed"]
    assert (seed.dtype, [dim.size for dim in seed.tensor_shape.dim]) == (9, [-1])
    # TensorFlow Serving writes fields that have their default, and clients read them.
    definition = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert definition["inputs"]["seed"]["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}],
        "unknown_rank": False,
    }
    assert definition["method_name"] == "tensorflow/serving/predict"


@pytest.mark.parametrize(
    ("method", "path", "code", "told"),
    [
        ("GET", "/v1/models/no", 404, "Could not find any versions of model no"),
        ("GET", "/v1/models/digits/versions/4", 404, "Could not find version 4"),
        ("GET", "/v1/models/digits/versions/x", 400, "Malformed request"),
        ("GET", "/v1/models/no/metadata", 404, "Servable not found for request: Latest(no)"),
        ("POST", "/v1/models/digits/versions/4:predict", 404, "Specific(digits, 4)"),
        ("POST", "/v1/models/..%2f..%2fetc:predict", 400, "Malformed request: POST /v1/models/"),
        ("GET", "/v1/models/digits:predict", 400, "Malformed request: GET /v1/models/digits:pre"),
        ("POST", "/v1/models/digits", 400, "Malformed request: POST /v1/models/digits"),
        ("POST", "/v1/models/digits:classify", 400, "not :classify"),
        ("POST", "/v1/models/digits/versions/3:regress", 400, "not :regress"),
        ("POST", "/v1/models/digits/labels/best:predict", 400, "version label: best"),
        ("GET", "/v1/models/digits/labels/best", 400, "version label: best"),
        ("GET", "/v1/models", 400, "Missing model name"),
        ("GET", "/v1/nothing", 400, "Malformed request: GET /v1/nothing"),
        ("GET", "/%2e%2e/%2e%2e/app.py", 404, ""),
        ("GET", "/%00", 404, ""),
        ("PUT", "/v1/models/digits", 400, "Malformed request: PUT"),
        ("PUT", "/", 405, ""),
    ],
)
def test_what_is_not_there(served, method, path, code, told):
    answer = served.request(method, path)
    assert answer.status_code == code
    assert told in error_of(answer)


def test_the_models_own_refusal_comes_back_and_hurts_nobody_else(served):
    wrong = {"inputs": {"seed": [1, 2], "digit": [1, 11]}}
    bodies = [wrong if number % 5 == 0 else TWO for number in range(60)]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda body: served.post(PREDICT, json=body), bodies))
    for body, answer in zip(bodies, answers, strict=True):
        assert answer.status_code == (400 if body is wrong else 200)
    assert error_of(answers[0]) == "digit must be -1..9; row [1] has [11]"
    assert len({answer.text for answer in answers[1:5]}) == 1


def test_limits(served):
    many = {"inputs": {"seed": [1] * 41, "digit": [1] * 41}}
    answer = served.post(PREDICT, json=many)
    assert (answer.status_code, "at most 40" in error_of(answer)) == (400, True)
    answer = served.post(PREDICT, content=b" " * 5001)
    assert (answer.status_code, "5000 bytes" in error_of(answer)) == (413, True)
    answer = served.post(PREDICT, content=iter([b" " * 3000] * 2))
    assert answer.status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for(served):
    with socket.create_connection((served.base_url.host, served.base_url.port)) as slow:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
        slow.sendall(head.encode() + b"{")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_goes_is_no_defect(served):
    with socket.create_connection((served.base_url.host, served.base_url.port)) as going:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
        going.sendall(head.encode() + b"{")
    wait_for(lambda: 'requests_total{code="499"} 1.0' in served.get("/metrics").text)
    assert 'code="500"' not in served.get("/metrics").text


@pytest.fixture(scope="module")
def narrow(tmp_path_factory, add_version) -> Iterator[tuple[psutil.Process, tuple[str, int]]]:
    """A server of few connections, and where it listens."""
    base = tmp_path_factory.mktemp("narrow") / "digits"
    base.mkdir()
    add_version(base, 3)
    limits = (
        "max_connections=20",
        "idle_seconds=2",
        "max_waiting=20",
        "max_arriving_bytes=10000",
    )
    process, address = start(
        base, *(part for limit in limits for part in ("--set", f"serve.{limit}"))
    )
    wait_for(lambda: httpx.get(f"{address}/readyz").status_code == 200)
    url = httpx.URL(address)
    assert url.port is not None
    yield psutil.Process(process.pid), (url.host, url.port)
    process.terminate()
    assert process.wait() in (0, -signal.SIGTERM)


def count_open(server: psutil.Process) -> int:
    """Connections that the server has not closed."""
    return sum(each.status == psutil.CONN_ESTABLISHED for each in server.net_connections("tcp"))


def test_connections_that_ask_nothing_shut_nobody_out(narrow):
    server, address = narrow
    body = json.dumps(TWO).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with contextlib.ExitStack() as held:
        busy = held.enter_context(socket.create_connection(address))
        busy.sendall(head + body[:5])
        for number in range(90):
            holding = held.enter_context(socket.create_connection(address))
            if number % 3 == 0:
                holding.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
            if number % 3 == 1:
                holding.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert holding.recv(1000).startswith(b"HTTP/1.1 200 ")
        base = f"http://{address[0]}:{address[1]}"
        for path in ("/healthz", "/readyz", "/metrics"):
            assert httpx.get(base + path).status_code == 200
        assert count_open(server) <= 20
        assert httpx.post(base + PREDICT, json=TWO).status_code == 200
        busy.sendall(body[5:])
        assert busy.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_where_all_connections_are_busy_the_new_one_is_closed(narrow):
    _, address = narrow
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode()
    with contextlib.ExitStack() as held:
        busy = [held.enter_context(socket.create_connection(address)) for _ in range(20)]
        for each in busy:
            each.sendall(head + b"{")
        time.sleep(0.5)
        refused = held.enter_context(socket.create_connection(address))
        refused.settimeout(1)
        assert refused.recv(1000) == b""
        assert all(each.recv(1000).startswith(b"HTTP/1.1 408 ") for each in busy)


def test_long_bodies_that_arrive_have_a_bound_together_and_short_ones_go_on(narrow):
    _, address = narrow
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n".encode()
    with contextlib.ExitStack() as held:
        arriving = [held.enter_context(socket.create_connection(address)) for _ in range(4)]
        for each in arriving:
            each.sendall(head + b" " * 4900)
            time.sleep(0.1)
        refusal = arriving.pop().recv(1000)
        assert refusal.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in refusal.lower()
        assert b'{"error":"14700 bytes arrive already; try again"}' in refusal
        url = f"http://{address[0]}:{address[1]}{PREDICT}"
        assert httpx.post(url, json=TWO).status_code == 200
        for each in arriving:
            each.sendall(json.dumps(TWO).encode().ljust(100))
            assert each.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_head_that_comes_by_the_byte_is_not_waited_for(narrow):
    _, address = narrow
    began = time.monotonic()
    with socket.create_connection(address) as slow, contextlib.suppress(ConnectionError):
        slow.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        while time.monotonic() - began < 10:
            slow.sendall(b"x")
            time.sleep(0.1)
    assert 1.9 < time.monotonic() - began < 9


def test_an_answer_that_is_not_taken_is_not_kept(narrow):
    server, address = narrow
    body = json.dumps(
        {"signature_name": "generate_pixels", "inputs": {"seed": [1] * 40, "digit": [1] * 40}}
    )
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(address)
        deaf.sendall((head + body).encode() * 100)
        time.sleep(1)
        assert count_open(server) == 1
        wait_for(lambda: count_open(server) == 0)


def test_metrics_count_what_was_asked(served):
    def read() -> dict[str, float]:
        return {
            sample.name + str(sample.labels.get("code", "")): sample.value
            for family in text_string_to_metric_families(served.get("/metrics").text)
            for sample in family.samples
            if "le" not in sample.labels
        }

    before = read()
    served.post(PREDICT, json=TWO)
    served.post(PREDICT, content=b"{")
    after = read()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["mnist_gan_serve_requests_total200"] == 1
    assert grown["mnist_gan_serve_requests_total400"] == 1
    assert grown["mnist_gan_serve_pictures_total"] == 2
    assert after["mnist_gan_serve_version"] == 3


@pytest.mark.slow
def test_versions_come_go_and_break_while_requests_are_answered(tmp_path, add_version):
    base = tmp_path / "digits"
    base.mkdir()
    add_version(base, 1)
    process, address = start(base)
    with httpx.Client(base_url=address, timeout=60) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        stop = False

        def ask() -> list[int]:
            codes = []
            with httpx.Client(base_url=address, timeout=60) as own:
                while not stop:
                    codes.append(own.post(PREDICT, json=TWO).status_code)
            return codes

        def state(number: int) -> str:
            found = client.get("/about").json()["versions"]
            return next((each["state"] for each in found if each["version"] == number), "")

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(ask) for _ in range(2)]
            second = add_version(base, 2)
            wait_for(lambda: state(2) == "AVAILABLE")
            add_version(base, 3, damaged=True)
            wait_for(lambda: state(3) == "END")
            assert state(2) == "AVAILABLE"
            shutil.rmtree(second)
            wait_for(lambda: state(1) == "AVAILABLE")
            stop = True
            codes = [code for each in asking for code in each.result()]
        assert set(codes) == {200}
        status = client.get("/v1/models/digits/versions/3").json()["model_version_status"][0]
        assert status["status"]["error_code"] == "UNKNOWN"
        assert status["status"]["error_message"]
    process.terminate()
    assert process.wait() in (0, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--models-dir", "nowhere"], "holds no version of a model"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
        (["--set", "serve.max_rows=0"], "serve.max_rows"),
    ],
)
def test_what_it_cannot_serve_is_said_in_a_line(tmp_path, exported, arguments, told):
    base = tmp_path / "digits"
    shutil.copytree(exported, base / "1")
    process = subprocess.run(
        [sys.executable, "local_runner.py", "serve", "--models-dir", str(base), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert told in process.stderr
    assert "Traceback" not in process.stderr


def test_its_own_openapi_names_every_route(served):
    document = json.loads(served.get("/openapi.json").text)
    assert "/v1/models/{name}:predict" in document["paths"]
    assert {"/healthz", "/readyz", "/metrics", "/about"} <= set(document["paths"])
