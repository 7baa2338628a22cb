"""`local_runner.py serve` as a process, with generators that nobody trained."""

import base64
import concurrent.futures
import contextlib
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image
from running_server import ROOT, start, wait_for
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from serving.settings import MAX_BODY_BYTES

PREDICT = "/v1/models/digits:predict"
TWO = {"instances": [{"seed": 1, "digit": 7}, {"seed": 2, "digit": -1}]}


@pytest.fixture
def served(server) -> Iterator[httpx.Client]:
    """A client of the REST API."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def error_of(answer: httpx.Response) -> str:
    content = answer.json()
    assert set(content) == {"error"}
    return content["error"]


def test_pictures_are_those_of_the_saved_model(served, exported):
    [first, second] = served.post(PREDICT, json=TWO).json()["predictions"]
    signature = tf.saved_model.load(str(exported)).signatures["serving_default"]
    drawn = signature(seed=tf.constant([1, 2], tf.int64), digit=tf.constant([7, -1], tf.int64))
    assert [first["digit"], second["digit"]] == drawn["digit"].numpy().tolist()
    images = [base64.b64decode(row["image_bytes"]["b64"]) for row in (first, second)]
    assert images == drawn["image_bytes"].numpy().tolist()
    assert np.asarray(Image.open(io.BytesIO(images[0]))).shape == (28, 28)


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
    ("method", "path", "code", "message"),
    [
        ("GET", "/v1/models/no", 404, "Could not find any versions of model no"),
        ("GET", "/v1/models/digits/versions/4", 404, "Could not find version 4"),
        ("GET", "/v1/models/no/metadata", 404, "Servable not found for request: Latest(no)"),
        ("GET", "/v1/models/digits/versions/4/metadata", 404, "Specific(digits, 4)"),
        ("POST", "/v1/models/digits", 400, "Malformed request: POST /v1/models/digits"),
        ("GET", "/%2e%2e/%2e%2e/app.py", 404, ""),
        ("GET", "/%00", 404, ""),
    ],
)
def test_what_is_not_there_in_tensorflow_servings_words(served, method, path, code, message):
    answer = served.request(method, path)
    assert answer.status_code == code
    assert message in error_of(answer)


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
    many = {"inputs": {"seed": [1] * 101, "digit": [1] * 101}}
    answer = served.post(PREDICT, json=many)
    assert (answer.status_code, "at most 100" in error_of(answer)) == (400, True)
    for content in (b" " * (MAX_BODY_BYTES + 1), iter([b" " * (1 << 20)] * 5)):
        headers = {"Content-Type": "application/json"}
        answer = served.post(PREDICT, content=content, headers=headers)
        assert (answer.status_code, str(MAX_BODY_BYTES) in error_of(answer)) == (413, True)


def test_a_latent_of_any_size_gives_an_image_or_is_refused(served):
    for size in (1.0, 1e6, 1e38, -3e38):
        inputs = {"latent": [[size, -size] * 3], "digit": [1]}
        answer = served.post(PREDICT, json={"signature_name": "from_latent", "inputs": inputs})
        assert answer.status_code in {200, 400}
        if answer.status_code == 200:
            assert np.abs(np.array(answer.json()["outputs"]["image"], float)).max() <= 1
        else:
            assert "row 0" in error_of(answer)


@pytest.mark.slow
def test_connections_that_ask_nothing_shut_nobody_out(tmp_path, add_version):
    """With as few descriptors as a shell may allow, and one line per kind of trouble."""
    add_version(tmp_path, 3)
    limited = ("bash", "-c", 'ulimit -n 64; exec "$0" "$@" 2>"$LOG"', sys.executable)
    log = tmp_path / "log"
    command = ("env", f"LOG={log}", *limited, "local_runner.py", "serve", "--port", "0")
    running = start(tmp_path, command=(*command, "--models-dir"))
    body = json.dumps(TWO)
    head = f"POST /v1/models/{tmp_path.name}:predict HTTP/1.1\r\nHost: localhost\r\n"
    kinds = [b"", b"GET /healthz HTTP/1.1\r\nX: ", f"{head}Content-Length: 100\r\n\r\n[".encode()]
    with contextlib.ExitStack() as held:
        for number in range(200):
            holding = held.enter_context(socket.create_connection(running.address))
            with contextlib.suppress(ConnectionError):
                holding.sendall(kinds[number % 3])
        for path in ("/healthz", "/metrics", "/about"):
            assert httpx.get(running.url + path, timeout=60).status_code == 200
        wait_for(running.is_ready)
        url = f"{running.url}/v1/models/{tmp_path.name}:predict"
        headers = {"Content-Type": "application/json"}
        assert httpx.post(url, content=body, headers=headers).status_code == 200
    assert running.stop() == 0
    assert len(log.read_text().splitlines()) < 50


@pytest.mark.slow
def test_versions_come_go_and_break_while_requests_are_answered(tmp_path, add_version):
    base = tmp_path / "digits"
    base.mkdir()
    add_version(base, 1)
    running = start(base)
    wait_for(running.is_ready)
    with httpx.Client(base_url=running.url, timeout=60) as client:
        stop = False

        def ask() -> list[int]:
            codes = []
            with httpx.Client(base_url=running.url, timeout=60) as own:
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
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models-dir", "nowhere"], "nowhere"),
        (["--host", "no.such.host.invalid"], "where: no.such.host.invalid"),
        (["--port", "0", "--grpc-port", "{taken}"], "--grpc-port"),
        (["--set", "serve.max_rows=0"], "serve.max_rows"),
    ],
)
def test_what_it_cannot_serve_is_said_in_a_line(tmp_path, exported, arguments, message):
    base = tmp_path / "digits"
    shutil.copytree(exported, base / "1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        given = [argument.format(taken=port) for argument in arguments]
        process = subprocess.run(
            [sys.executable, "local_runner.py", "serve", "--models-dir", str(base), *given],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert message in process.stderr
    assert len(process.stderr.splitlines()) <= 5


def test_its_own_openapi_names_every_route(served):
    document = json.loads(served.get("/openapi.json").text)
    assert "/v1/models/{name}:predict" in document["paths"]
    assert {"/healthz", "/readyz", "/metrics", "/about"} <= set(document["paths"])


# How it ends.

HANGING = """
import sys, threading
from pathlib import Path
from serving import server, watch
from serving.settings import ServeSettings
watch._load = lambda directory: threading.Event().wait()
settings = ServeSettings(timeout_seconds=2)
server.serve(Path(sys.argv[1]), settings, host="127.0.0.1", port=0, grpc_port=0)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_it_ends_while_it_starts(tmp_path, add_version, monkeypatch, number):
    (tmp_path / "tmp").mkdir()
    add_version(tmp_path / "digits", 1)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    inherited = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    running = start(tmp_path / "digits")
    signal.signal(number, inherited)
    assert running.stop(number) == 0
    assert list((tmp_path / "tmp").iterdir()) == []


def test_it_ends_while_a_version_hangs(tmp_path, add_version):
    add_version(tmp_path, 1)
    running = start(tmp_path, command=(sys.executable, "-c", HANGING))
    about = f"{running.url}/about"
    wait_for(lambda: [v["state"] for v in httpx.get(about).json()["versions"]] == ["LOADING"])
    assert httpx.get(f"{running.url}/readyz").status_code == 503
    assert running.stop() == 0


@pytest.mark.slow
def test_it_ends_whatever_clients_hold(tmp_path, add_version):
    add_version(tmp_path, 1)
    running = start(tmp_path, "--set", "serve.timeout_seconds=1")
    wait_for(running.is_ready)
    asked = {"signature_name": "from_latent", "inputs": {"latent": [[0] * 6] * 1024}}
    asked["inputs"]["digit"] = [1] * 1024
    body = json.dumps(asked).encode()
    head = f"POST /v1/models/{tmp_path.name}:predict HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    kinds = [b"", b"GET /healthz HTTP/1.1\r\nX: ", head.encode() + b"{", head.encode() + body]
    with contextlib.ExitStack() as held:
        for kind in kinds:
            held.enter_context(socket.create_connection(running.address)).sendall(kind)
        channel = held.enter_context(grpc.insecure_channel(running.grpc_address))
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        states = (response.status for response in watched)
        assert health_pb2.HealthCheckResponse.SERVING in states  # after NOT_SERVING, maybe
        assert running.stop() == 0
