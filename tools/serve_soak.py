"""Runs `local_runner.py serve` for an hour while versions come and go and clients misbehave.

    python tools/serve_soak.py --minutes 60

Versions of one generator are added, damaged and removed beside entries that are no versions: files
and looping links named by numbers, a FIFO in place of a model. Well-behaved clients ask over REST
and gRPC; every answer to the same seed and digit has to be the same bytes. Other clients send
nonsense, and every half minute two clients repeat one of the attacks of serve_attacks.py.

Prints a line a minute. At the end, lists what was unexpected and the growth of memory, file
descriptors and threads, as a line fitted to their values after five minutes. Exits with status 1 if
anything was unexpected or grew too much.
"""

import argparse
import asyncio
import base64
import collections
import contextlib
import json
import math
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from traceback import format_exception
from typing import Any, TypeVar

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
import numpy as np

from tools import attackers, nonsense
from tools.serve_attacks import GRACE_SECONDS, NO_PROXY, describe
from tools.serve_process import (
    DEFAULT_MODELS,
    ServerProcess,
    exit_on_sigterm,
    export_untrained,
    newest_version,
    raise_descriptor_limit,
)
from tools.serve_requests import (
    HEALTH_CHECK_METHOD,
    PREDICT_METHOD,
    HttpConnection,
    http_request,
    predict_body,
    predict_message,
)

SEEDS = 50
CLIENT_PAUSE, NONSENSE_PAUSE = 0.2, 0.2
TIMEOUT = 60.0
SWAP_SECONDS = 180.0
SAMPLE_SECONDS, SETTLED_SECONDS = 5.0, 300.0
VERSIONS_KEPT, JUNK_KEPT = 3, 4
SHOWN = 3  # of each kind of what is unexpected
MAX_GROWTH = {"RSS in MiB": 50.0, "file descriptors": 20.0, "threads": 10.0}
REFUSALS = {
    "400",
    "403",
    "404",
    "405",
    "408",
    "411",
    "413",
    "414",
    "415",
    "421",
    "431",
    "501",
    "503",  # a long body while too many rows wait: refused before it is parsed
    "505",
}
Outcome = TypeVar("Outcome")
SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse


@dataclass
class Log:
    """What happened so far."""

    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    unexpected: collections.Counter[str] = field(default_factory=collections.Counter)
    slowest: float = 0.0
    slowest_swap: float = 0.0
    events: collections.Counter[str] = field(default_factory=collections.Counter)
    began: float = field(default_factory=time.monotonic)

    def complain(self, kind: str, details: object = "") -> None:
        """Counts something that should not happen, and prints the first few of its kind."""
        self.unexpected[kind] += 1
        if self.unexpected[kind] <= SHOWN:
            passed = time.monotonic() - self.began
            print(f"  unexpected after {passed:.0f} s: {kind} {str(details)[:500]}", flush=True)


class Versions:
    """The models folder: adds and removes versions and entries that are none."""

    def __init__(self, models: Path, source: Path, draw: random.Random) -> None:
        """Copies `source` as version 1."""
        self._models = models
        self._source = source
        self._draw = draw
        self._last = 0
        self._good: list[int] = []
        self._junk: list[Path] = []
        self.add()

    def next(self) -> Path:
        """Path of a version newer than all before."""
        self._last += 1
        return self._models / str(self._last)

    def add(self) -> int:
        """Adds a version that loads, by a rename, and returns its number."""
        self._copy(self._source, self.next())
        self._good.append(self._last)
        return self._last

    def add_damaged(self) -> int:
        """Adds a version whose weights are cut in half, and returns its number."""
        with tempfile.TemporaryDirectory() as folder:
            damaged = Path(folder) / "model"
            shutil.copytree(self._source, damaged)
            [weights] = (damaged / "variables").glob("*.data-*")
            os.truncate(weights, weights.stat().st_size // 2)
            self._copy(damaged, self.next())
        self._junk.append(self._models / str(self._last))
        return self._last

    def remove(self) -> None:
        """Removes the oldest or the newest version, but never the last one."""
        if len(self._good) > 1:
            number = self._good.pop(self._draw.choice([0, -1]))
            shutil.rmtree(self._models / str(number))

    def add_file(self) -> None:
        """Adds a file named as a version."""
        path = self.next()
        path.write_bytes(b"no version")
        self._junk.append(path)

    def add_looping_link(self) -> None:
        """Adds a symbolic link to itself."""
        path = self.next()
        path.symlink_to(path.name)
        self._junk.append(path)

    def add_dead_link(self) -> None:
        """Adds a symbolic link to nothing."""
        path = self.next()
        path.symlink_to("nowhere")
        self._junk.append(path)

    def add_empty_folder(self) -> None:
        """Adds a folder without files, named as a version."""
        path = self.next()
        path.mkdir()
        self._junk.append(path)

    def add_huge_number(self) -> None:
        """Adds a model whose folder name has 20 digits, too many for a version."""
        path = self._models / str(10**19 + int(self.next().name))
        self._copy(self._source, path)
        self._junk.append(path)

    def add_fifo(self) -> None:
        """Adds a version whose model is a FIFO, so that reading it never ends."""
        path = self.next()
        path.mkdir()
        os.mkfifo(path / "saved_model.pb")
        self._junk.append(path)

    def tidy(self) -> None:
        """Removes the oldest versions and junk beyond `VERSIONS_KEPT` and `JUNK_KEPT`."""
        while len(self._good) > VERSIONS_KEPT:
            shutil.rmtree(self._models / str(self._good.pop(0)))
        while len(self._junk) > JUNK_KEPT:
            path = self._junk.pop(0)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _copy(self, source: Path, path: Path) -> None:
        incoming = self._models / f".incoming-{path.name}"
        shutil.copytree(source, incoming)
        incoming.rename(path)


class Soak:
    """A server, its models folder and its clients."""

    def __init__(
        self, server: ServerProcess, versions: Versions, arguments: argparse.Namespace
    ) -> None:
        """Starts nothing yet."""
        self._server = server
        self._versions = versions
        self._arguments = arguments
        self._target = describe(server)
        self._draw = random.Random(arguments.seed)
        self._known: dict[tuple[str, int], bytes] = {}
        self._samples: list[tuple[float, ...]] = []
        self.log = Log()

    async def run(self) -> None:
        """Runs all clients until the time is over or the server ends."""
        tasks = [
            *(self._ask_rest(random.Random(number)) for number in range(2)),
            *(self._ask_grpc(random.Random(number)) for number in range(2)),
            self._send_nonsense(),
            self._send_nonsense_grpc(),
            self._attack(),
            self._change_versions(),
            self._sample(),
            self._report(),
        ]
        running = [asyncio.create_task(each) for each in tasks]
        done, pending = await asyncio.wait(
            running, timeout=60 * self._arguments.minutes, return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            if (error := task.exception()) is not None:
                self.log.complain("the soak itself failed:", "".join(format_exception(error)[-3:]))

    def _compare(self, key: tuple[str, int], content: bytes) -> None:
        """Complains unless `content` is what this request was always answered with."""
        if self._known.setdefault(key, content) != content:
            self.log.complain("other bytes than before", key)

    async def _timed(self, request: Awaitable[Outcome]) -> Outcome:
        began = time.monotonic()
        try:
            return await asyncio.wait_for(request, TIMEOUT)
        finally:
            self.log.slowest = max(self.log.slowest, time.monotonic() - began)

    async def _ask_rest(self, draw: random.Random) -> None:
        """Asks for digits over REST and checks every answer."""
        connection = HttpConnection(self._server.host, self._server.rest_port)
        while True:
            await asyncio.sleep(CLIENT_PAUSE)
            signature = draw.choice(["serving_default", "generate_pixels", "from_latent"])
            seed, rows = draw.randrange(SEEDS), draw.choice([1, 1, 1, 20])
            columns: dict[str, list[Any]] = {"digit": [(seed + row) % 10 for row in range(rows)]}
            if signature == "from_latent":
                columns["latent"] = [
                    [(seed + row) / 100] * self._target.latent_dim for row in range(rows)
                ]
            else:
                columns["seed"] = [seed + row for row in range(rows)]
            try:
                request = self._target.post(predict_body(signature, **columns))
                answer = await self._timed(connection.ask(request))
            except (OSError, EOFError, asyncio.TimeoutError) as error:
                connection.close()
                self.log.answers[f"REST {type(error).__name__}"] += 1
                self.log.complain(f"REST {type(error).__name__}", error)
                continue
            self.log.answers[f"REST {answer.status}"] += 1
            if answer.status != 200:
                self.log.complain(f"REST {answer.status}", answer.body)
                continue
            outputs = json.loads(answer.body)["outputs"]
            for row in range(rows):
                self._compare((signature, seed + row), row_bytes(signature, outputs, row))

    async def _ask_grpc(self, draw: random.Random) -> None:
        """Asks for digits, states and health over gRPC and checks every answer."""
        from tensorflow_serving.apis import (
            get_model_metadata_pb2,
            get_model_status_pb2,
            model_service_pb2_grpc,
            predict_pb2,
            prediction_service_pb2_grpc,
        )

        name = self._server.name
        async with grpc.aio.insecure_channel(self._target.grpc, NO_PROXY) as channel:
            prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            models = model_service_pb2_grpc.ModelServiceStub(channel)
            health = channel.unary_unary(HEALTH_CHECK_METHOD)

            async def predict() -> None:
                signature = draw.choice(["serving_default", "generate_pixels"])
                seed, rows = draw.randrange(SEEDS), draw.choice([1, 1, 1, 20])
                seeds = range(seed, seed + rows)
                digits = [each % 10 for each in seeds]
                content = predict_message(name, signature, seed=seeds, digit=digits)
                request = predict_pb2.PredictRequest.FromString(content)
                outputs = (await prediction.Predict(request, timeout=TIMEOUT)).outputs
                for row in range(rows):
                    self._compare((signature, seed + row), row_bytes_grpc(signature, outputs, row))

            async def status() -> None:
                request = get_model_status_pb2.GetModelStatusRequest()
                request.model_spec.name = name
                found = (await models.GetModelStatus(request, timeout=TIMEOUT)).model_version_status
                if not any(each.state == each.AVAILABLE for each in found):
                    self.log.complain("GetModelStatus: no version is AVAILABLE", found)

            async def metadata() -> None:
                request = get_model_metadata_pb2.GetModelMetadataRequest()
                request.model_spec.name = name
                request.metadata_field.append("signature_def")
                await prediction.GetModelMetadata(request, timeout=TIMEOUT)

            async def check() -> None:
                if await health(b"", timeout=TIMEOUT) != SERVING:
                    self.log.complain("grpc.health.v1: the server says that it is not SERVING")

            while True:
                await asyncio.sleep(CLIENT_PAUSE)
                ask = draw.choice([predict] * 6 + [status, metadata, check])
                try:
                    await self._timed(ask())
                    self.log.answers["gRPC OK"] += 1
                except grpc.aio.AioRpcError as error:
                    self.log.answers[f"gRPC {error.code().name}"] += 1
                    self.log.complain(f"gRPC {ask.__name__} {error.code().name}", error.details())

    async def _send_nonsense(self) -> None:
        """Sends requests that the server should refuse, and complains about any other answer."""
        connection = HttpConnection(self._server.host, self._server.rest_port)
        while True:
            await asyncio.sleep(NONSENSE_PAUSE)
            request = nonsense.draw_request(self._draw, self._server.name, self._target.rest)
            try:
                answer = await asyncio.wait_for(connection.ask(request), TIMEOUT)
            except (OSError, EOFError, asyncio.TimeoutError) as error:
                connection.close()
                self.log.answers[f"nonsense {type(error).__name__}"] += 1
                if isinstance(error, asyncio.TimeoutError):
                    self.log.complain("nonsense is not answered", request[:200])
                continue
            self.log.answers[f"nonsense {answer.status}"] += 1
            if str(answer.status) not in REFUSALS | {"200"}:
                self.log.complain(
                    f"nonsense {answer.status}", answer.body[:100] + b" to " + request[:300]
                )

    async def _send_nonsense_grpc(self) -> None:
        """Calls methods with noise and wrong tensors, and complains about any but a refusal."""
        name = self._server.name
        wrong = {
            "INVALID_ARGUMENT": [
                predict_message(name, "serving_default", seed=[1], digit=[1, 2]),
                predict_message(name, "serving_default", seed=[1], digit=[11]),
                predict_message(name, "serving_default", seed=[1]),
                predict_message(name, "serving_default", seed=[1] * 5000, digit=[1] * 5000),
                predict_message(name, "from_latent", latent=[1], digit=[1]),
                predict_message(name, "no", seed=[1], digit=[1]),
                b"\xff" * 100,
            ],
            "NOT_FOUND": [predict_message("no", "serving_default", seed=[1], digit=[1])],
        }
        async with grpc.aio.insecure_channel(self._target.grpc, NO_PROXY) as channel:
            predict = channel.unary_unary(PREDICT_METHOD)
            while True:
                await asyncio.sleep(NONSENSE_PAUSE)
                expected = self._draw.choice(list(wrong))
                code = "OK"
                try:
                    await predict(self._draw.choice(wrong[expected]), timeout=TIMEOUT)
                except grpc.aio.AioRpcError as error:
                    code = error.code().name
                self.log.answers[f"nonsense {code}"] += 1
                if code not in (expected, "INVALID_ARGUMENT"):
                    self.log.complain(f"gRPC nonsense {code} instead of {expected}")

    async def _attack(self) -> None:
        """Lets two clients repeat one of the attacks for ten seconds of every half minute."""
        while True:
            name = self._draw.choice(list(attackers.ATTACKS))
            attack = attackers.Attack(attackers.ATTACKS[name].behave, clients=2)
            self.log.events[name] += 1
            await attackers.attack_for(attack, self._target, 2, 10)
            await asyncio.sleep(20)

    async def _change_versions(self) -> None:
        """Changes the models folder and waits for what should follow."""
        changes: dict[Callable[[], object], int] = {
            self._add_version: 4,
            self._add_damaged: 1,
            self._versions.remove: 2,
            self._versions.add_file: 1,
            self._versions.add_looping_link: 1,
            self._versions.add_dead_link: 1,
            self._versions.add_empty_folder: 1,
            self._versions.add_huge_number: 1,
            self._versions.add_fifo: 1,
        }
        while True:
            await asyncio.sleep(self._arguments.change_seconds)
            [change] = self._draw.choices(list(changes), list(changes.values()))
            self.log.events[change.__name__.strip("_")] += 1
            if asyncio.iscoroutinefunction(change):
                await change()
            else:
                change()
            self._versions.tidy()

    async def _add_version(self) -> None:
        await self._expect(self._versions.add(), "AVAILABLE")

    async def _add_damaged(self) -> None:
        await self._expect(self._versions.add_damaged(), "END")

    async def _expect(self, version: int, state: str) -> None:
        """Complains unless a version has a state within `SWAP_SECONDS`."""
        connection = HttpConnection(self._server.host, self._server.rest_port)
        path = f"/v1/models/{self._server.name}/versions/{version}"
        request = http_request("GET", path, self._target.rest)
        began, found = time.monotonic(), "unknown"
        while (passed := time.monotonic() - began) < SWAP_SECONDS:
            with contextlib.suppress(OSError, EOFError, asyncio.TimeoutError):
                answer = await asyncio.wait_for(connection.ask(request), TIMEOUT)
                if answer.status == 200:
                    found = json.loads(answer.body)["model_version_status"][0]["state"]
            if found == state:
                self.log.slowest_swap = max(self.log.slowest_swap, passed)
                break
            await asyncio.sleep(0.5)
        else:
            self.log.complain(
                f"a version is not {state} after {SWAP_SECONDS:g} s", f"{version} {found}"
            )
        connection.close()

    async def _sample(self) -> None:
        """Measures the server; returns, which ends the soak, if the server has ended."""
        while self._server.is_running():
            passed = time.monotonic() - self.log.began
            server = self._server
            sample = (passed, server.rss_mib(), server.descriptors(), server.threads())
            self._samples.append(sample)
            await asyncio.sleep(SAMPLE_SECONDS)
        self.log.complain("the server has ended")

    async def _report(self) -> None:
        """Prints a line every minute."""
        before: collections.Counter[str] = collections.Counter()
        while True:
            await asyncio.sleep(60)
            minute, rss, descriptors, threads = self._samples[-1]
            answers = self.log.answers - before
            before = self.log.answers.copy()
            told = ", ".join(f"{name}: {count}" for name, count in sorted(answers.items()))
            print(
                f"{minute / 60:4.0f} min: {answers.total()} answers ({told}); slowest good one "
                f"{self.log.slowest:.1f} s; {self.log.unexpected.total()} unexpected; "
                f"{rss:.0f} MiB, {descriptors} fds, {threads} threads",
                flush=True,
            )
            self.log.slowest = 0.0

    def growth(self) -> dict[str, float]:
        """Growth of each of `MAX_GROWTH` after the first minutes, by a fitted line.

        In the first minutes buffers and thread pools grow to their size. NaN if less than five
        minutes of the soak follow.
        """
        samples = np.array([sample for sample in self._samples if sample[0] >= SETTLED_SECONDS])
        if len(samples) * SAMPLE_SECONDS < SETTLED_SECONDS:
            return dict.fromkeys(MAX_GROWTH, math.nan)
        seconds = samples[:, 0]
        slopes = np.polyfit(seconds, samples[:, 1:], 1)[0]
        span = seconds[-1] - seconds[0]
        return dict(zip(MAX_GROWTH, (slopes * span).tolist(), strict=True))


def row_bytes(signature: str, outputs: dict[str, list], row: int) -> bytes:
    """The image of a row of a REST answer."""
    if signature == "serving_default":
        return base64.b64decode(outputs["image_bytes"][row]["b64"])
    kind = np.float32 if signature == "from_latent" else np.uint8
    return np.asarray(outputs["image"][row], kind).tobytes()


def row_bytes_grpc(signature: str, outputs: dict, row: int) -> bytes:
    """The image of a row of a gRPC answer."""
    import tensorflow as tf

    if signature == "serving_default":
        return tf.make_ndarray(outputs["image_bytes"])[row]
    return tf.make_ndarray(outputs["image"])[row].tobytes()


def conclude(soak: Soak, exit_seconds: float, log: bytes) -> bool:
    """Prints what the soak showed; returns whether it was all as expected."""
    if b"Traceback" in log:
        start = log.index(b"Traceback")
        soak.log.complain("a traceback in the log", log[start : start + 500].decode())
    if exit_seconds > GRACE_SECONDS:
        soak.log.complain("too long from SIGTERM to exit", exit_seconds)
    for what, count in sorted(soak.log.answers.items()):
        print(f"{what:32} {count}")
    print("events: " + ", ".join(f"{what} {n}" for what, n in sorted(soak.log.events.items())))
    print(
        f"slowest new version {soak.log.slowest_swap:.1f} s; {len(log.splitlines())} lines of log; "
        f"SIGTERM to exit {exit_seconds:.1f} s"
    )
    grown = soak.growth()
    for what, growth in grown.items():
        told = "too short a soak to tell" if math.isnan(growth) else f"{growth:+.1f}"
        print(f"growth of {what}: {told} (at most {MAX_GROWTH[what]:g})")
    print(f"{soak.log.unexpected.total()} unexpected")
    for kind, count in soak.log.unexpected.most_common():
        print(f"  {kind} {count}")
    held = all(math.isnan(growth) or growth <= MAX_GROWTH[what] for what, growth in grown.items())
    return held and not soak.log.unexpected


def main() -> int:
    """Returns 1 if anything was unexpected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models-dir", type=Path, default=DEFAULT_MODELS)
    parser.add_argument(
        "--untrained", action="store_true", help="serve a generator with random weights instead"
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument(
        "--change-seconds", type=float, default=15.0, help="pause between changes of the versions"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    raise_descriptor_limit()
    exit_on_sigterm()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.untrained:
            models = export_untrained(Path(folder) / "untrained")
        else:
            models = arguments.models_dir
        source = Path(folder) / "source"
        shutil.copytree(newest_version(models), source)
        served = Path(folder) / models.name
        served.mkdir()
        versions = Versions(served, source, random.Random(arguments.seed))
        server = ServerProcess(served)
        try:
            server.wait_until_ready()
            soak = Soak(server, versions, arguments)
            asyncio.run(soak.run())
        finally:
            exit_seconds = server.stop()
        return int(not conclude(soak, exit_seconds, server.log()))


if __name__ == "__main__":
    sys.exit(main())
