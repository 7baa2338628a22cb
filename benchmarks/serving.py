"""`local_runner.py serve` under load.

    python benchmarks/serving.py [--models-dir outputs/serving/mnist_gan] [--only apis]

bare: clients on loopback ask for digits over REST, one row and 64 rows at a time
(`serving_default`), in turn with a bare Python loop that calls the same SavedModel in this process.
Images per second, their ratio, and the server's p50 and p99.

apis: 64 clients over REST and 64 over gRPC, in turn, one row and 64 rows at a time. Images per
second, the ratio of gRPC to REST, p50 and p99. Both kinds of clients send requests encoded before
and look only for the end of an answer (see serving_clients.py); the share of a core that they take
from the server is printed.

marks: clients over REST, in turn, of a generator with random weights whose images are marked, and
of one whose images are not. Images per second and their ratio. No pushed version is used.

What faults do to the server is for tools/serve_attacks.py and tools/serve_soak.py to show.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.serving_clients import Client, Load, grpc_clients, load, rest_clients
from tools.serve_process import (
    DEFAULT_MODELS,
    ServerProcess,
    exit_on_sigterm,
    export_untrained,
    newest_version,
    serving,
)

ROWS = (1, 64)
BARE_CLIENTS = {1: 32, 64: 4}
API_CLIENTS = 64


def bare_loop(version: Path) -> Callable[[int, float], float]:
    """A function that calls the SavedModel for some seconds and returns images per second."""
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


def compare_with_bare_loop(version: Path, arguments: argparse.Namespace) -> None:
    """Prints images per second of the server over REST beside those of a bare loop."""
    bare = bare_loop(version)
    print(f"{'rows':>4} {'round':>5} {'bare/s':>9} {'served/s':>9} {'ratio':>6} p50 ms  p99 ms")
    with serving(version.parent) as server:
        for rows in ROWS:
            make_client = rest_clients(server, rows)
            ratios = []
            for number in range(arguments.rounds + 1):
                plain = bare(rows, arguments.seconds)
                seen = measure(
                    server.rest_port, server, make_client, BARE_CLIENTS[rows], rows, arguments
                )
                print(
                    f"{rows:4} {name(number):>5} {plain:9.0f} {seen.rows:9.0f} "
                    f"{seen.rows / plain:6.2f} {seen.p50:6.1f} {seen.p99:7.1f}",
                    flush=True,
                )
                ratios.append(seen.rows / plain)
            print(
                f"{rows:4} rows a request, {BARE_CLIENTS[rows]} clients: median "
                f"{statistics.median(ratios[1:]):.2f} of the bare loop's images per second"
            )


def compare_apis(version: Path, arguments: argparse.Namespace) -> None:
    """Prints images per second over gRPC beside those over REST."""
    print(
        f"{'rows':>4} {'round':>5} {'REST/s':>8} {'gRPC/s':>8} {'ratio':>6}   "
        "p50, p99 in ms and clients' share of a core: REST, gRPC"
    )
    with serving(version.parent) as server:
        for rows in ROWS:
            apis = {
                "REST": (server.rest_port, rest_clients(server, rows)),
                "gRPC": (server.grpc_port, grpc_clients(server, rows)),
            }
            ratios = []
            for number in range(arguments.rounds + 1):
                order = list(apis) if number % 2 else list(reversed(apis))
                seen = {
                    api: measure(apis[api][0], server, apis[api][1], API_CLIENTS, rows, arguments)
                    for api in order
                }
                rest, grpc = seen["REST"], seen["gRPC"]
                print(
                    f"{rows:4} {name(number):>5} {rest.rows:8.0f} {grpc.rows:8.0f} "
                    f"{grpc.rows / rest.rows:6.2f}   {details(rest)}, {details(grpc)}",
                    flush=True,
                )
                ratios.append(grpc.rows / rest.rows)
            print(
                f"{rows:4} rows a request, {API_CLIENTS} clients: gRPC's images per second are "
                f"median {statistics.median(ratios[1:]):.2f} of REST's"
            )


def compare_marks(version: Path, arguments: argparse.Namespace) -> None:
    """Prints images per second with the marks of `ImageMark` beside those without."""
    from models.gan.image_mark import ImageMark

    def unmarked(self: ImageMark, png: object, seed: object, digit: object) -> object:
        return png

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        marked = export_untrained(Path(folder) / "marked")
        with mock.patch.object(ImageMark, "add", unmarked):
            bare = export_untrained(Path(folder) / "bare")
        servers = {
            kind: stack.enter_context(serving(models))
            for kind, models in (("marked", marked), ("bare", bare))
        }
        print(f"{'rows':>4} {'round':>5} {'marked/s':>9} {'bare/s':>9} {'ratio':>6}")
        for rows in ROWS:
            ratios = []
            for number in range(arguments.rounds + 1):
                order = list(servers) if number % 2 else list(reversed(servers))
                rate = {}
                for each in order:
                    server = servers[each]
                    clients = rest_clients(server, rows)
                    rate[each] = measure(
                        server.rest_port, server, clients, BARE_CLIENTS[rows], rows, arguments
                    ).rows
                ratios.append(rate["marked"] / rate["bare"])
                print(
                    f"{rows:4} {name(number):>5} {rate['marked']:9.0f} {rate['bare']:9.0f} "
                    f"{ratios[-1]:6.3f}",
                    flush=True,
                )
            print(
                f"{rows:4} rows a request, {BARE_CLIENTS[rows]} clients: median "
                f"{statistics.median(ratios[1:]):.3f} of the images per second without marks"
            )


def measure(
    port: int,
    server: ServerProcess,
    make_client: Callable[[list[float]], Client],
    clients: int,
    rows: int,
    arguments: argparse.Namespace,
) -> Load:
    """Loads one API of the server."""
    return asyncio.run(
        load(port, server.host, make_client, clients=clients, rows=rows, seconds=arguments.seconds)
    )


def name(number: int) -> str:
    """The name of a round; the first one is not counted."""
    return str(number) if number else "warm"


def details(seen: Load) -> str:
    """Latencies and CPU share."""
    return f"{seen.p50:.0f} {seen.p99:.0f} {seen.cpu:.2f}"


PARTS = {"bare": compare_with_bare_loop, "apis": compare_apis, "marks": compare_marks}


def main() -> None:
    """Runs the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models-dir", type=Path, default=DEFAULT_MODELS)
    parser.add_argument(
        "--untrained", action="store_true", help="serve a generator with random weights instead"
    )
    parser.add_argument("--only", action="append", choices=list(PARTS))
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="length of each half of a round"
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    exit_on_sigterm()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.untrained:
            version = newest_version(export_untrained(Path(folder)))
        else:
            newest = newest_version(arguments.models_dir)
            version = Path(folder) / arguments.models_dir.name / newest.name
            shutil.copytree(newest, version)
        for part in arguments.only or PARTS:
            PARTS[part](version, arguments)


if __name__ == "__main__":
    main()
