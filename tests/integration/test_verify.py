"""`local_runner.py verify` against our own server: what was blessed, and each planted fault."""

import datetime
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from altering_proxy import Fault, grpc_proxy, rest_proxy
from evaluating import Run, TableGenerator
from PIL import Image, PngImagePlugin
from prometheus_client.parser import text_string_to_metric_families
from pytest_httpserver import HTTPServer
from running_server import ROOT, RunningServer, start, wait_for
from tfx.types import standard_artifacts
from werkzeug import Response

import storage
from components.pusher.executor import Executor
from errors import UserError
from models.gan.export import export_generator
from models.gan.image_mark import ImageMark
from models.gan.networks import build_generator
from models.gan.settings import TrainSettings
from pipeline.retraining.records import VERIFICATIONS, read_passes
from pipeline.settings.resolution import resolve
from pipeline.verifying import verify
from pipeline.verifying.checks import Blessed, Finding, compare, load_newest
from pipeline.verifying.endpoint import NoAnswerError, RestEndpoint, open_endpoint
from pipeline.verifying.verify import verify_and_report
from registry.layout import MODEL_CARD, PUSH_RECORD, VERIFICATION, newest_version, version_dir
from registry.push import push

COUNT = 128
ALL = {"version", "images", "digits", "marks", "fid", "conditional_accuracy"}


class MarkedTable(TableGenerator):
    """Draws real digits, as a very good generator would, and marks the files."""

    def __init__(self, images: np.ndarray) -> None:
        super().__init__(images)
        self._mark = ImageMark({"weights": hashlib.sha256(images.tobytes()).hexdigest()})

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, "seed"),
            tf.TensorSpec([None], tf.int64, "digit"),
        ]
    )
    def serve_png(self, seed: tf.Tensor, digit: tf.Tensor) -> dict[str, tf.Tensor]:
        drawn = self.generate_pixels(seed, digit)
        files = tf.map_fn(tf.io.encode_png, drawn["image"], fn_output_signature=tf.string)
        return {
            "image_bytes": self._mark.add(files, seed, drawn["digit"]),
            "digit": drawn["digit"],
        }


def save(images: np.ndarray, folder: Path) -> Path:
    table = MarkedTable(images)
    signatures = {
        "serving_default": table.serve_png,
        "generate_pixels": table.generate_pixels,
        "from_latent": table.from_latent,
    }
    tf.saved_model.save(table, str(folder), signatures=signatures)
    return folder


@pytest.fixture(scope="module")
def base(pools, inputs, tmp_path_factory) -> Path:
    """The registry, with one version, which was evaluated and pushed by the two components."""
    folder = tmp_path_factory.mktemp("run")
    save(pools["first"][0], folder / "Format-Serving")
    base = tmp_path_factory.mktemp("registry") / "digits"
    run = Run(folder, inputs, base, samples=COUNT, fid_samples=COUNT)
    assert run.blessed
    model, pushed = standard_artifacts.Model(), standard_artifacts.PushedModel()
    model.uri, pushed.uri = str(folder), str(folder / "pushed")
    destination = {"filesystem": {"base_directory": str(base)}}
    Executor().Do(
        {"model": [model], "model_blessing": [run.blessing]},
        {"pushed_model": [pushed]},
        {"push_destination": json.dumps(destination)},
    )
    return base


@pytest.fixture(scope="module")
def blessed(base) -> Blessed:
    return load_newest(str(base))


@pytest.fixture(scope="module")
def other(base, pools, tmp_path_factory) -> Path:
    """A copy of the registry with another generator above the first, pushed long ago."""
    folder = tmp_path_factory.mktemp("other")
    shutil.copytree(base, folder / "digits")
    version = push(save(pools["second"][0], folder / "model"), folder / "digits")
    path = folder / "digits" / str(version) / PUSH_RECORD
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"pushed_at": "2026-01-01T00:00:00Z"}))
    return folder / "digits"


@pytest.fixture(scope="module")
def serving(base) -> Iterator[RunningServer]:
    """Serves the first version, at most as many rows as `verify` requests at once."""
    running = start(base, "--set", "serve.max_rows=64")
    wait_for(running.is_ready)
    yield running
    assert running.stop() == 0


@pytest.fixture(params=["rest", "grpc"])
def address(request, serving) -> str:
    return serving.url if request.param == "rest" else f"grpc://{serving.grpc_address}"


def find(address: str, blessed: Blessed, seconds: float = 60.0) -> dict[str, Finding]:
    found, _ = compare(open_endpoint(address, "digits", seconds), blessed)
    return {finding.name: finding for finding in found}


def failed(found: dict[str, Finding]) -> set[str]:
    assert set(found) == ALL
    return {name for name, finding in found.items() if not finding.passed}


def test_a_version_holds_what_it_is_verified_with(base, blessed):
    version = newest_version(base)
    assert blessed.version == version
    assert blessed.digits.shape == (COUNT,)
    folder = version_dir(base, version)
    files = {path.name for path in (folder / VERIFICATION).iterdir()}
    assert files == {"samples.npz", "classifier"}
    card = json.loads((folder / MODEL_CARD).read_text())
    assert card["verification"]["samples"] == COUNT
    # Here the evaluation has no more samples than the verification.
    assert blessed.metrics == {
        name: pytest.approx(card["metrics"][name]["value"])
        for name in ("fid", "conditional_accuracy")
    }


def test_what_was_blessed_passes(address, blessed):
    found = find(address, blessed)
    assert failed(found) == set()
    assert found["images"].text.startswith(f"{COUNT} of {COUNT} ")


@pytest.mark.parametrize("path", ["v1/models/digits", "v1/models/digits/"])
def test_an_address_with_the_name_of_the_model(path, serving, blessed):
    endpoint = open_endpoint(f"{serving.url}/{path}", "another", 60.0)
    assert endpoint.version() == blessed.version
    endpoint = open_endpoint(f"grpc://{serving.grpc_address}/digits", "another", 60.0)
    assert endpoint.version() == blessed.version


def test_an_older_version_in_service(address, base, other):
    found = find(address, load_newest(str(other)))
    old, new = newest_version(base), newest_version(other)
    assert found == {"version": ("version", f"{old} is served, the newest is {new}", False)}


def test_another_model_under_the_right_number(serving, blessed, base, other, tmp_path):
    copy = shutil.copytree(version_dir(base, blessed.version), tmp_path / str(blessed.version))
    shutil.copytree(version_dir(other, newest_version(other)), copy, dirs_exist_ok=True)
    found = find(serving.url, load_newest(str(tmp_path)))
    assert {name for name, finding in found.items() if not finding.passed} == {"images", "marks"}
    assert found["marks"].text == (
        f"0 of {COUNT} have the version's marks; the first other image differs in weights"
    )


def edit(png: bytes, change: Any, form: str = "PNG", marked: bool = True) -> bytes:
    """The image with other pixels, and the text chunks if it is still `marked`."""
    written, texts = io.BytesIO(), PngImagePlugin.PngInfo()
    with Image.open(io.BytesIO(png)) as image:
        for name, text in image.text.items() if marked else ():
            texts.add_text(name, text)
        pixels = change(np.asarray(image)).astype(np.uint8)
    Image.fromarray(pixels).save(written, form, **({"pnginfo": texts} if form == "PNG" else {}))
    return written.getvalue()


def altering(change: Any, **more: Any) -> Fault:
    return Fault(file=lambda png: edit(png, change, **more))


def same(pixels: np.ndarray) -> np.ndarray:
    return pixels


def noise(pixels: np.ndarray) -> np.ndarray:
    return np.random.default_rng(int(pixels.sum())).integers(0, 256, pixels.shape)


def round_otherwise(pixels: np.ndarray) -> np.ndarray:
    """Two pixels of three on another gray level, 0.8 root mean square."""
    return np.clip(pixels + np.resize([-1, 0, 1], pixels.shape), 0, 255)


# Each fault, and what has to find it; pixels that are rounded otherwise are no fault.
FAULTS: dict[str, tuple[Fault, set[str]]] = {
    "nothing": (altering(same), set()),
    "another rounding": (altering(round_otherwise), set()),
    "the next digit": (
        Fault(digit=lambda digit: (digit + 1) % 10),
        {"images", "digits", "marks", "conditional_accuracy"},
    ),
    "inverted": (altering(lambda pixels: 255 - pixels), {"images", "fid", "conditional_accuracy"}),
    "transposed": (altering(np.transpose), {"images", "fid", "conditional_accuracy"}),
    "shifted": (altering(lambda pixels: np.roll(pixels, 1, axis=1)), {"images"}),
    "two levels brighter": (altering(lambda pixels: np.minimum(pixels, 253) + 2), {"images"}),
    "noise": (altering(noise), {"images", "fid", "conditional_accuracy"}),
    "JPEG": (altering(same, form="JPEG"), {"images", "marks"}),
    "cut off": (Fault(file=lambda png: png[:40]), {"images", "marks", "fid"}),
    "stripped": (altering(same, marked=False), {"marks"}),
}
FEW = ("the next digit", "inverted")  # one alters requests, one answers
CASES = [
    *((api, name) for api in ("rest", "grpc") for name in FEW),
    *(pytest.param("rest", name, marks=pytest.mark.slow) for name in FAULTS if name not in FEW),
]


@pytest.mark.parametrize(("api", "name"), CASES)
def test_each_fault_is_found_for_what_it_is(api, name, serving, blessed):
    fault, expected = FAULTS[name]
    if api == "rest":
        proxied = rest_proxy(serving.url, fault)
    else:
        proxied = grpc_proxy(serving.grpc_address, fault)
    with proxied as address:
        found = find(address, blessed)
    assert failed(found) >= expected
    assert bool(failed(found)) is bool(expected)
    if name in ("JPEG", "cut off"):
        assert f"{COUNT} are no gray PNG" in found["images"].text
    if name == "stripped":
        assert failed(found) == {"marks"}
        assert all(key in found["marks"].text for key in ("weights", "XML:com.adobe.xmp"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nothing_listens(scheme):
    with pytest.raises(NoAnswerError) as error:
        open_endpoint(f"{scheme}://127.0.0.1:{free_port()}", "digits", 5.0).version()
    assert error.value.exit_status == 1


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_never_answers(scheme):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(NoAnswerError):
            open_endpoint(address, "digits", 0.5).version()


@pytest.mark.parametrize("url", ["ftp://host", "http://", "localhost:8501", "http://host:port", ""])
def test_an_address_that_is_none(url):
    with pytest.raises(UserError) as error:
        open_endpoint(url, "digits", 1.0)
    assert error.value.exit_status == 2


def test_an_unknown_model(address):
    with pytest.raises(NoAnswerError, match="unknown"):
        open_endpoint(address, "unknown", 60.0).version()


METADATA = {"model_spec": {"version": "1"}}
ROWS = {"image_bytes": [{"b64": ""}], "digit": [1]}


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (Response("busy", 503), "503: busy"),
        (Response("", 302, {"Location": "/"}), "302"),
        (Response("<html>Sign in</html>", content_type="text/html"), "<html>Sign in"),
        (Response('{"outputs": {"image_bytes": [1]}}'), "not TensorFlow Serving's"),
        (Response(json.dumps({"outputs": ROWS})), "1 images and 1 digits"),
        (Response(b" " * (5 << 20)), "4 MiB"),
    ],
)
def test_answers_that_are_none(response, message, httpserver: HTTPServer):
    httpserver.expect_request("/v1/models/digits/metadata").respond_with_json(METADATA)
    httpserver.expect_request("/v1/models/digits:predict").respond_with_response(response)
    endpoint = open_endpoint(httpserver.url_for(""), "digits", 10.0)
    assert endpoint.version() == 1
    with pytest.raises(NoAnswerError, match=message):
        endpoint.draw(np.arange(2), 0)


def test_an_answer_that_comes_too_slowly(httpserver: HTTPServer):
    def trickle() -> Iterator[bytes]:
        while True:
            yield b" "
            time.sleep(0.1)

    httpserver.expect_request("/v1/models/digits/metadata").respond_with_handler(
        lambda _: Response(trickle())
    )
    with pytest.raises(NoAnswerError, match="whole answer"):
        open_endpoint(httpserver.url_for(""), "digits", 0.5).version()


def settings_of(folder: Path) -> Any:
    values = {"output_dir": str(folder / "out"), "metrics.textfile": str(folder / "node.prom")}
    options = {key: (value, "the test") for key, value in values.items()}
    return resolve("smoke", environ={}, options=options).settings


def gauges(folder: Path) -> dict[str, float]:
    families = text_string_to_metric_families((folder / "node.prom").read_text())
    found = {each.name: each.samples[0].value for each in families if each.samples}
    prefix = "mnist_gan_last_verification_"
    return {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}


def test_record_metrics_and_webhook(serving, base, other, tmp_path, httpserver, monkeypatch):
    posted: list[dict[str, Any]] = []

    def take(request: Any) -> Response:
        posted.append(request.get_json())
        return Response("ok")

    httpserver.expect_request("/hook").respond_with_handler(take)
    monkeypatch.setenv("RETRAIN_WEBHOOK_URL", httpserver.url_for("/hook"))
    settings = settings_of(tmp_path)
    right = open_endpoint(serving.url, "digits", 60.0)
    report, _, error = verify_and_report(right, str(base), settings)
    assert (report.outcome, report.failed, error) == ("as blessed", [], None)
    assert posted == []
    ok = gauges(tmp_path)
    assert (ok["as_blessed"], ok["fid"]) == (1.0, pytest.approx(report.fid))

    report, _, error = verify_and_report(right, str(other), settings)
    assert (report.outcome, report.version, error) == ("worse", newest_version(other), None)
    assert report.failed == ["version"]
    assert gauges(tmp_path)["as_blessed"] == 0.0

    nobody = open_endpoint(f"http://127.0.0.1:{free_port()}", "digits", 5.0)
    report, _, error = verify_and_report(nobody, str(base), settings)
    assert (report.outcome, type(error)) == ("no answer", NoAnswerError)
    assert "fid" not in gauges(tmp_path)

    report, _, error = verify_and_report(right, str(tmp_path / "none"), settings)
    assert report.outcome == "not started"
    assert error is not None
    assert error.exit_status == 2
    outcomes = ["worse", "no answer", "not started"]
    assert [each["outcome"] for each in posted] == outcomes
    assert posted[0]["text"].startswith(f"MNIST GAN: worse (verified {serving.url})")
    assert posted[0]["failed"] == read_passes(tmp_path / "out", VERIFICATIONS)[1].report.failed
    recorded = [each.report.outcome for each in read_passes(tmp_path / "out", VERIFICATIONS)]
    assert recorded == ["as blessed", *outcomes]
    assert read_passes(tmp_path / "out") == []


class LateEndpoint(RestEndpoint):
    """A server that still serves the version before when it is asked first."""

    asked = 0

    def version(self) -> int:
        self.asked += 1
        return super().version() - (self.asked == 1)


def test_a_server_that_loads_a_new_version_late(serving, base, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(verify, "_PAUSE_SECONDS", 0.1)
    version = newest_version(base)
    path = shutil.copytree(base, tmp_path / "digits") / str(version) / PUSH_RECORD
    now = datetime.datetime.now(datetime.timezone.utc)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pushed_at": now.isoformat()}))
    late = LateEndpoint(serving.url, f"{serving.url}/v1/models/digits", 60.0)
    report, _, _ = verify_and_report(late, str(tmp_path / "digits"), settings_of(tmp_path))
    assert (report.outcome, late.asked) == ("as blessed", 3)
    assert f"version: {version - 1} is served" in capsys.readouterr().err


def test_a_version_of_an_earlier_release_and_one_that_was_altered(base, serving, tmp_path):
    version = version_dir(base, newest_version(base))
    copy = shutil.copytree(version, tmp_path / "digits" / version.name)
    shutil.rmtree(copy / VERIFICATION)
    with pytest.raises(UserError, match="not those that were pushed"):
        load_newest(str(copy.parent))
    (copy / PUSH_RECORD).unlink()
    blessed = load_newest(str(copy.parent))
    assert blessed.digits.shape == (2000,)
    found = find(serving.url, blessed)
    assert set(found) == {"version", "images", "digits", "marks", "metrics"}
    assert all(finding.passed for finding in found.values())
    assert found["metrics"].text.startswith("not compared")


def test_a_registry_in_an_object_store(base, blessed, serving, s3_bucket):
    for path in storage.files_in(str(base)):
        storage.write(f"{s3_bucket}/digits/{path}", (base / path).read_bytes())
    found = find(serving.url, load_newest(f"{s3_bucket}/digits"))
    assert failed(found) == set()


@pytest.mark.slow
def test_a_generator_that_takes_no_digit(tmp_path):
    recipe = TrainSettings(conditional=False, latent_dim=6, generator_channels=(8, 6, 4))
    export_generator(build_generator(recipe), recipe, str(tmp_path / "model"))
    push(tmp_path / "model", tmp_path / "digits")
    blessed = load_newest(str(tmp_path / "digits"))
    assert (blessed.digits == -1).all()
    assert blessed.images.readable.all()


def run(*arguments: str, output_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "local_runner.py", "verify", *arguments],
        cwd=ROOT,
        env={**os.environ, "MNIST_GAN_OUTPUT_DIR": str(output_dir)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_exit_statuses_and_the_terminal(serving, base, other, tmp_path):
    right = run(serving.url, "--models-dir", str(base), output_dir=tmp_path)
    assert (right.returncode, right.stderr) == (0, "")
    assert right.stdout.splitlines()[-1] == "As blessed"
    wrong = run(f"grpc://{serving.grpc_address}", "--models-dir", str(other), output_dir=tmp_path)
    assert (wrong.returncode, wrong.stderr) == (3, "")
    assert "✗ version: " in wrong.stdout
    address = f"http://127.0.0.1:{free_port()}"
    none = run(address, "--models-dir", str(base), output_dir=tmp_path)
    assert none.returncode == 1
    assert none.stderr.startswith("error: ConnectError")
    assert len(none.stderr.splitlines()) <= 5
