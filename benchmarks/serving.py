"""`local_runner.py serve` under load, under version swaps, and under nonsense.

    python benchmarks/serving.py [--models-dir outputs/serving/mnist_gan] [--only load]

load: wrk on loopback asks for pictures, one row and 64 rows at a time (`serving_default`), in turn
with a bare Python loop that calls the same SavedModel in this process. Pictures a second, their
ratio, and the server's p50 and p99.

swap: while wrk asks, a second version appears, then a third that is damaged. No request may fail.

malformed: 10,000 requests that no client should send, from a seed. No answer may be a 5xx; the
server's memory before and after.

Needs wrk (`apt-get install wrk`).
"""

import argparse
import collections
import contextlib
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import httpx
import psutil

ROOT = Path(__file__).parents[1]
PARTS = ("load", "swap", "malformed")
ROWS = (1, 64)
CLIENTS = {1: 32, 64: 4}


class Server:
    """`local_runner.py serve` in a process of its own."""

    def __init__(self, models: Path) -> None:
        command = [sys.executable, str(ROOT / "local_runner.py"), "serve", "--port", "0"]
        self._process = subprocess.Popen(
            [*command, "--models-dir", str(models)], stdout=subprocess.PIPE, text=True
        )
        self.address = re.search(r"http://\S+", self._process.stdout.readline())[0].rstrip("/")
        self.predict = f"{self.address}/v1/models/{models.name}:predict"
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.address}/readyz").status_code == 200:
                    return
            time.sleep(0.2)

    def version(self) -> int:
        return httpx.get(f"{self.address}/about").json()["version"]

    def memory_mib(self) -> float:
        return psutil.Process(self._process.pid).memory_info().rss / 2**20

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@contextlib.contextmanager
def serving(models: Path) -> Iterator[Server]:
    server = Server(models)
    try:
        yield server
    finally:
        server.stop()


def start_wrk(address: str, rows: int, seconds: float, folder: Path) -> subprocess.Popen:
    """Asks for `rows` pictures a time; each connection counts its own seeds up."""
    script = folder / f"rows-{rows}.lua"
    script.write_text(f"""
local seed = math.random(1, 1000000)
request = function()
  local rows = {{}}
  for i = 1, {rows} do
    seed = seed + 1
    rows[i] = string.format('{{"seed":%d,"digit":%d}}', seed, seed % 10)
  end
  return wrk.format("POST", nil, {{["Content-Type"] = "application/json"}},
                    '{{"instances":[' .. table.concat(rows, ",") .. "]}}")
end
""")
    clients = CLIENTS[rows]
    options = ["-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "30s", "--latency"]
    return subprocess.Popen(
        ["wrk", *options, "-s", str(script), address], stdout=subprocess.PIPE, text=True
    )


def read_wrk(process: subprocess.Popen) -> dict[str, float]:
    """Requests, requests a second, failures, p50 and p99 in ms."""
    text = process.communicate()[0]
    units = {"us": 1e-3, "ms": 1.0, "s": 1e3}

    def latency(share: str) -> float:
        number, unit = re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", text).groups()
        return float(number) * units[unit]

    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text
    )
    return {
        "requests": int(re.search(r"(\d+) requests in", text)[1]),
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),
        "failures": sum(map(int, (refused.groups() if refused else ()))),
        "broken": sum(map(int, (broken.groups() if broken else ()))),
        "p50": latency("50"),
        "p99": latency("99"),
    }


def bare_loop(version: Path):
    """A function that calls the SavedModel for some seconds and gives pictures a second."""
    import tensorflow as tf

    signature = tf.saved_model.load(str(version)).signatures["serving_default"]

    def rate(rows: int, seconds: float) -> float:
        seed, began = 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds:
            seeds = tf.range(seed, seed + rows, dtype=tf.int64)
            signature(seed=seeds, digit=seeds % 10)["image_bytes"].numpy()
            seed += rows
        return seed / passed

    for rows in ROWS:
        rate(rows, 0.5)
    return rate


def load(models: Path, version: Path, arguments) -> None:
    bare = bare_loop(version)
    print(f"{'rows':>4} {'round':>5} {'bare/s':>9} {'served/s':>9} {'ratio':>6} p50 ms  p99 ms")
    with serving(models) as server, tempfile.TemporaryDirectory() as folder:
        for rows in ROWS:
            ratios = []
            for number in range(arguments.rounds + 1):
                plain = bare(rows, arguments.seconds)
                seen = read_wrk(start_wrk(server.predict, rows, arguments.seconds, Path(folder)))
                assert not seen["failures"] + seen["broken"], seen
                served = seen["rate"] * rows
                name = "warm" if number == 0 else number
                print(
                    f"{rows:4} {name:>5} {plain:9.0f} {served:9.0f} {served / plain:6.2f} "
                    f"{seen['p50']:6.1f} {seen['p99']:7.1f}",
                    flush=True,
                )
                if number:
                    ratios.append(served / plain)
            print(f"{rows:4} rows a request, {CLIENTS[rows]} clients: median {median(ratios)}")


def median(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} of the bare loop's pictures a second"


def add_version(models: Path, source: Path, number: int, *, damaged: bool) -> None:
    """A copy of a version, renamed into place; damaged: its weights cut in half."""
    incoming = models / f".incoming-{number}"
    shutil.copytree(source, incoming)
    if damaged:
        [weights] = (incoming / "variables").glob("*.data-*")
        os.truncate(weights, weights.stat().st_size // 2)
    incoming.rename(models / str(number))


def swap(models: Path, version: Path, arguments) -> None:
    del arguments
    with serving(models) as server, tempfile.TemporaryDirectory() as folder:
        first = server.version()
        asking = start_wrk(server.predict, 1, 30, Path(folder))
        time.sleep(3)
        add_version(models, version, first + 1, damaged=False)
        swapped = wait_for(lambda: server.version() == first + 1, 20)
        add_version(models, version, first + 2, damaged=True)
        about = f"{server.address}/about"
        failed = wait_for(lambda: httpx.get(about).json()["versions"][0]["state"] == "END", 20)
        seen = read_wrk(asking)
        print(
            f"swap: {seen['requests']} requests while a version appeared (served after "
            f"{swapped:.1f} s) and a damaged one (passed over after {failed:.1f} s): "
            f"{seen['failures']} refused, {seen['broken']} broken; p99 {seen['p99']:.0f} ms; "
            f"serving {'the whole one' if server.version() == first + 1 else 'THE WRONG ONE'}"
        )


def wait_for(condition, seconds: float) -> float:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            sys.exit("it did not happen in time")
        time.sleep(0.05)
    return time.monotonic() - began


LEAVES = (
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


def nonsense(random_: random.Random, depth: int = 0):
    roll = random_.random()
    if depth > 4 or roll < 0.6:
        return random_.choice(LEAVES)
    if roll < 0.8:
        return [nonsense(random_, depth + 1) for _ in range(random_.randrange(5))]
    keys = ["seed", "digit", "latent", "signature_name", "instances", "inputs", "b64", "", "\n"]
    return {random_.choice(keys): nonsense(random_, depth + 1) for _ in range(random_.randrange(4))}


def nonsense_body(random_: random.Random) -> bytes:
    signature = random_.choice(["serving_default", "generate_pixels", "from_latent", "no", 7, None])
    rows = {key: nonsense(random_) for key in ("seed", "digit")}
    content = random_.choice(
        [
            {"signature_name": signature, "inputs": rows},
            {"signature_name": signature, "instances": [rows] * random_.randrange(4)},
            {"inputs": nonsense(random_), "instances": nonsense(random_)},
            {"instances": [{"seed": 1, "digit": 1}] * random_.choice([1, 5_000])},
            nonsense(random_),
        ]
    )
    body = json.dumps(content).encode()
    if random_.random() < 0.3:
        cut = random_.randrange(len(body))
        body = body[:cut] + random_.randbytes(random_.randrange(4)) + body[cut + 1 :]
    return random_.choice([body, body, body, b"", b"[" * 100_000, random_.randbytes(200)])


def malformed(models: Path, version: Path, arguments) -> None:
    del version
    random_ = random.Random(arguments.seed)
    with serving(models) as server, httpx.Client(base_url=server.address, timeout=60) as client:
        codes: collections.Counter[int] = collections.Counter()
        for number in range(arguments.requests):
            if number == arguments.requests // 10:
                before = server.memory_mib()
            path = random_.choice(PATHS) if random_.random() < 0.2 else PATHS[0]
            method = random_.choice(["POST"] * 8 + ["GET", "PUT"])
            answer = client.request(
                method, path.format(m=models.name), content=nonsense_body(random_)
            )
            codes[answer.status_code] += 1
            if answer.status_code >= 500:
                print(f"  {method} {path}: {answer.status_code} {answer.text[:200]}")
        after = server.memory_mib()
        told = ", ".join(f"{codes[code]} of {code}" for code in sorted(codes))
        print(
            f"malformed: {arguments.requests} requests: {told}; memory {before:.0f} MiB after a "
            f"tenth of them, {after:.0f} at the end; {'alive' if server.alive() else 'DEAD'}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models-dir", type=Path, default=ROOT / "outputs/serving/mnist_gan")
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each half of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=10_000, help="malformed ones")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    versions = sorted(int(p.name) for p in arguments.models_dir.glob("[0-9]*"))
    if not versions:
        parser.error(f"no version in {arguments.models_dir}; run the pipeline first")
    if not shutil.which("wrk"):
        parser.error("wrk is not on this machine (apt-get install wrk)")
    version = arguments.models_dir / str(versions[-1])
    for part in arguments.only or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            models = Path(folder) / arguments.models_dir.name
            shutil.copytree(version, models / version.name)
            {"load": load, "swap": swap, "malformed": malformed}[part](models, version, arguments)


if __name__ == "__main__":
    main()
