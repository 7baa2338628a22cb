"""Attacks `local_runner.py serve` on this machine and measures what its other clients notice.

    python tools/serve_attacks.py                            # everything, some ten minutes
    python tools/serve_attacks.py --only body_wide --only idle
    python tools/serve_attacks.py --part sigterm
    python tools/serve_attacks.py --list

attacks: each attack meets a fresh server. While 512 clients repeat the attack (eight, for bodies
that are costly to parse), well-behaved clients ask for /healthz, each time on a new connection and
on one that is kept alive, and for one digit over REST and over gRPC. A request that is not answered
with 200 counts as slower than any bound. After the attack one more request has to work, and SIGTERM
has to end the server.

sigterm: the time from SIGTERM to the exit, in each state that could hold the server up.

descriptors: a server that may open 64 files meets 200 connections: what it logs, and whether
/healthz still answers.

The attackers run in a process of their own on the same cores as the server; the CPU time that they
took is printed, and so is a row without any attack to compare with. Where other programs keep the
cores busy, the latencies say little about the server. Exits with status 1 if a bound is missed.
"""

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import functools
import json
import math
import multiprocessing
import multiprocessing.connection
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
import httpx
import psutil

from tools import attackers
from tools.serve_process import (
    DEFAULT_MODELS,
    ServerProcess,
    exit_on_sigterm,
    export_untrained,
    newest_version,
    raise_descriptor_limit,
)
from tools.serve_requests import (
    PREDICT_METHOD,
    HttpConnection,
    http_request,
    predict_body,
    predict_message,
)

PARTS = ("attacks", "sigterm", "descriptors")
HEALTH_BOUND = 0.100
CLIENT_BOUND = 0.250
RSS_BOUND_MIB = 1536
GRACE_SECONDS = 22.0
LOG_LINES_BOUND = 100
INTERVAL = 0.05
TIMEOUT = 10.0
NO_PROXY = (("grpc.enable_http_proxy", 0),)
DESCRIPTORS, DESCRIPTOR_CONNECTIONS = 64, 200
# What holds a connection or a worker while the server shuts down.
SIGTERM_ATTACKS = {
    "slow bodies": "slow_bodies",
    "slow heads": "slow_heads",
    "unread answers": "unread_pixels",
    "idle connections": "idle",
    "half-closed connections": "half_closed",
    "under load": "abandoned",
    "idle gRPC streams": "grpc_open_streams",
    "gRPC health watches": "grpc_watches",
    "unread gRPC answers": "grpc_small_window",
}


@dataclass
class Probe:
    """Latencies in seconds that one kind of well-behaved request saw; infinite if not answered.

    A client that waits sends nothing, so that a freeze of five seconds would be one slow request
    among a hundred quick ones. Each latency therefore weighs as much as the time that it took.
    """

    latencies: list[tuple[float, float]] = field(default_factory=list)
    failures: collections.Counter[str] = field(default_factory=collections.Counter)

    async def time(self, request: Callable[[], Awaitable[str]], *, waits: bool = True) -> None:
        """Sends a request, which returns its status, and records how long it took.

        Args:
          request: sends it.
          waits: whether its client sends no other request meanwhile.
        """
        began = time.perf_counter()
        try:
            status = await asyncio.wait_for(request(), TIMEOUT)
        except asyncio.TimeoutError:
            status = "timeout"
        except (OSError, EOFError) as error:
            status = type(error).__name__
        took = time.perf_counter() - began
        if status != "200":
            self.failures[status] += 1
        latency = took if status == "200" else math.inf
        self.latencies.append((latency, max(took, INTERVAL) if waits else INTERVAL))

    def quantile(self, share: float) -> float:
        """The latency that this share of the time was not above."""
        left = share * sum(weight for _, weight in self.latencies)
        for latency, weight in sorted(self.latencies):
            left -= weight
            if left <= 0:
                return latency
        return math.inf

    def median(self) -> float:
        """The median latency."""
        return self.quantile(0.5)

    def __str__(self) -> str:
        """Median, 99th percentile and maximum in ms, and how many requests failed."""
        quantiles = (
            self.median(),
            self.quantile(0.99),
            max(self.latencies, default=(math.inf,))[0],
        )
        numbers = "/".join("-" if math.isinf(each) else f"{1000 * each:.0f}" for each in quantiles)
        return f"{numbers} {self.failures.total()}:{len(self.latencies)}"


@dataclass
class Measurement:
    """What well-behaved clients, the server and the attackers saw during one attack."""

    new: Probe = field(default_factory=Probe)
    kept: Probe = field(default_factory=Probe)
    rest: Probe = field(default_factory=Probe)
    grpc: Probe = field(default_factory=Probe)
    reopened: int = 0
    rss_mib: float = 0.0
    server_cpu: float = 0.0
    attacker_cpu: float = 0.0
    all_cores: float = 0.0
    tally: dict[str, int] = field(default_factory=dict)
    after: str = ""
    exit_seconds: float = 0.0
    log: bytes = b""

    def missed(self) -> list[str]:
        """The bounds that were missed."""
        bounds = {
            "healthz": max(self.new.median(), self.kept.median()) < HEALTH_BOUND,
            "REST row": self.rest.median() < CLIENT_BOUND,
            "gRPC row": self.grpc.median() < CLIENT_BOUND,
            "RSS": self.rss_mib < RSS_BOUND_MIB,
            "after": self.after.startswith("200 "),
            "log": len(self.log.splitlines()) <= LOG_LINES_BOUND,
            "exit": self.exit_seconds <= GRACE_SECONDS,
        }
        return [name for name, held in bounds.items() if not held]


def busy_seconds() -> float:
    """CPU time that all processes of this machine, also unrelated ones, have used so far."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0)


class WellBehavedClients:
    """Clients that ask little and read their answers, and the observer of the server's memory."""

    def __init__(self, server: ServerProcess, target: attackers.Target) -> None:
        """Starts nothing yet."""
        self._server = server
        self._healthz = http_request("GET", "/healthz", target.rest)
        self._predict = target.post(predict_body("serving_default", seed=[1], digit=[7]))
        self._target = target
        self._kept = HttpConnection(server.host, server.rest_port)
        self._rows = HttpConnection(server.host, server.rest_port)
        self._ended = False
        self.seen = Measurement()

    async def measure(self, ended: Callable[[], bool]) -> Measurement:
        """Asks until `ended` says so, and waits for the last answers."""
        began, cpu, busy = time.monotonic(), self._server.cpu_seconds(), busy_seconds()
        async with grpc.aio.insecure_channel(self._target.grpc, NO_PROXY) as channel:
            call = channel.unary_unary(PREDICT_METHOD)
            repeated = [
                self._repeat(self.seen.kept, lambda: self._ask(self._kept, self._healthz)),
                self._repeat(self.seen.rest, lambda: self._ask(self._rows, self._predict)),
                self._repeat(self.seen.grpc, lambda: self._call(call)),
                self._open_anew(),
                self._observe(),
            ]
            tasks = [asyncio.create_task(each) for each in repeated]
            while not ended() and self._server.is_running():
                await asyncio.sleep(INTERVAL)
            self._ended = True
            await asyncio.gather(*tasks)
        self.seen.reopened = self._kept.reopened + self._rows.reopened
        if self._server.is_running():
            self.seen.server_cpu = self._server.cpu_seconds() - cpu
        self.seen.all_cores = (busy_seconds() - busy) / (time.monotonic() - began)
        self.seen.after = await self._ask_after()
        return self.seen

    async def _repeat(self, probe: Probe, request: Callable[[], Awaitable[str]]) -> None:
        while not self._ended:
            await probe.time(request)
            await asyncio.sleep(INTERVAL)

    async def _open_anew(self) -> None:
        """Asks for /healthz on a new connection at each interval, answered before or not."""
        waiting = []
        while not self._ended:
            request = self.seen.new.time(self._ask_on_new_connection, waits=False)
            waiting.append(asyncio.create_task(request))
            await asyncio.sleep(INTERVAL)
        await asyncio.gather(*waiting)

    async def _ask_on_new_connection(self) -> str:
        connection = HttpConnection(self._server.host, self._server.rest_port)
        return await self._ask(connection, self._healthz, keep=False)

    async def _ask(self, connection: HttpConnection, request: bytes, *, keep: bool = True) -> str:
        answered = False
        try:
            answer = await connection.ask(request)
            answered = True
        finally:
            if not (keep and answered):
                connection.close()
        return str(answer.status)

    async def _call(self, call: grpc.aio.UnaryUnaryMultiCallable) -> str:
        try:
            await call(self._target.small_predict, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "200"

    async def _observe(self) -> None:
        while self._server.is_running() and not self._ended:
            self.seen.rss_mib = max(self.seen.rss_mib, self._server.rss_mib())
            await asyncio.sleep(0.1)

    async def _ask_after(self) -> str:
        probe = Probe()
        connection = HttpConnection(self._server.host, self._server.rest_port)
        await probe.time(lambda: self._ask(connection, self._predict, keep=False))
        if probe.failures:
            return next(iter(probe.failures))
        return f"200 in {1000 * probe.median():.0f} ms"


@contextlib.contextmanager
def attacking(
    name: str, target: attackers.Target, connections: int, seconds: float
) -> Iterator[multiprocessing.connection.Connection]:
    """Runs an attack in a process of its own; what is yielded becomes readable when it ends."""
    spawning = multiprocessing.get_context("spawn")
    reader, writer = spawning.Pipe(duplex=False)
    arguments = (name, target, connections, seconds, writer)
    process = spawning.Process(target=attackers.run, args=arguments, daemon=True)
    process.start()
    writer.close()
    try:
        yield reader
    finally:
        process.kill()
        process.join()


def describe(server: ServerProcess) -> attackers.Target:
    """Collects what attackers need to know about a server that has loaded a version."""
    rows = attackers.LARGE_ROWS
    return attackers.Target(
        host=server.host,
        rest_port=server.rest_port,
        grpc_port=server.grpc_port,
        model=server.name,
        latent_dim=server.latent_dim(),
        small_predict=predict_message(server.name, "serving_default", seed=[1], digit=[7]),
        large_predict=predict_message(
            server.name, "generate_pixels", seed=range(rows), digit=[1] * rows
        ),
    )


def measure_attack(models: Path, name: str, arguments: argparse.Namespace) -> Measurement:
    """Attacks a fresh server; `none` as a name attacks nothing."""
    server = ServerProcess(models)
    try:
        server.wait_until_ready()
        target = describe(server)
        clients = WellBehavedClients(server, target)
        if name == "none":
            deadline = time.monotonic() + arguments.seconds
            seen = asyncio.run(clients.measure(lambda: time.monotonic() > deadline))
        else:
            with attacking(name, target, arguments.connections, arguments.seconds) as report:
                seen = asyncio.run(clients.measure(report.poll))
                seen.tally, seen.attacker_cpu = report.recv()
    finally:
        exit_seconds = server.stop()
    return dataclasses.replace(seen, exit_seconds=exit_seconds, log=server.log())


ROW = "{:22} {:>20} {:>20} {:>20} {:>20} {:>5} {:>10} {:>5} {:>6}  {}"


def measure_attacks(models: Path, arguments: argparse.Namespace) -> int:
    """Prints a row per attack and returns how many attacks made the server miss a bound."""
    print(
        "Latencies: median/p99/maximum in ms, failed:sent. RSS: peak, MiB. CPU: seconds of the "
        "server and of the attackers. log: lines.\n"
    )
    heads = ("healthz, new conn", "healthz, kept", "REST row", "gRPC row", "RSS", "CPU", "log")
    print(ROW.format("attack", *heads, "exit s", "after; missed"))
    missed = 0
    for name in arguments.only or ("none", *attackers.ATTACKS):
        for _ in range(arguments.repeat):
            seen = measure_attack(models, name, arguments)
            verdict = seen.missed()
            missed += bool(verdict)
            print(
                ROW.format(
                    name,
                    *map(str, (seen.new, seen.kept, seen.rest, seen.grpc)),
                    f"{seen.rss_mib:.0f}",
                    f"{seen.server_cpu:.1f}+{seen.attacker_cpu:.1f}",
                    len(seen.log.splitlines()),
                    f"{seen.exit_seconds:.1f}",
                    f"{seen.after}; {', '.join(verdict) or 'none'}",
                )
            )
            print(f"    {note(seen)}", flush=True)
    return missed


def note(seen: Measurement) -> str:
    """What the attackers counted, and why well-behaved requests failed."""
    parts = [
        f"{seen.all_cores:.1f} of {os.cpu_count()} cores busy",
        f"attackers {json.dumps(dict(sorted(seen.tally.items())))}",
    ]
    failures = sum(
        (probe.failures for probe in (seen.new, seen.kept, seen.rest, seen.grpc)),
        collections.Counter[str](),
    )
    if failures:
        parts.append(f"failures {json.dumps(dict(failures))}")
    if seen.reopened:
        parts.append(f"kept connections reopened {seen.reopened}")
    return "; ".join(parts)


def measure_exits(models: Path, arguments: argparse.Namespace) -> int:
    """Prints the time from SIGTERM to the exit per state; returns how often it was too long."""
    states: dict[str, Callable[[], float]] = {
        "idle": lambda: exit_under(models, None, arguments),
        "a version loads, one is served": lambda: exit_while_loading(models, served=True),
        "the first version loads": lambda: exit_while_loading(models, served=False),
    }
    for state, attack in SIGTERM_ATTACKS.items():
        states[state] = functools.partial(exit_under, models, attack, arguments)
    missed = 0
    print(f"\n{'state at SIGTERM':32} seconds to exit (at most {GRACE_SECONDS:g})")
    for state, measure in states.items():
        seconds = measure()
        missed += seconds > GRACE_SECONDS
        message = "killed" if math.isinf(seconds) else f"{seconds:.1f}"
        print(f"{state:32} {message}", flush=True)
    return missed


def exit_under(models: Path, attack: str | None, arguments: argparse.Namespace) -> float:
    """Stops a server in the midst of an attack."""
    server = ServerProcess(models)
    try:
        server.wait_until_ready()
        if attack is None:
            return server.stop()
        with attacking(attack, describe(server), arguments.connections, 300):
            time.sleep(min(arguments.seconds, 5))
            return server.stop()
    finally:
        if server.is_running():
            server.stop()


def exit_while_loading(models: Path, *, served: bool) -> float:
    """Stops a server whose newest version cannot be read, because its file is a FIFO."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / models.name
        if served:
            shutil.copytree(models, copied)
        hanging = copied / "1000000"
        hanging.mkdir(parents=True)
        os.mkfifo(hanging / "saved_model.pb")
        server = ServerProcess(copied)
        # Time to import TensorFlow, and to come to the version that hangs.
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not is_loading(server, 1000000):
            time.sleep(0.2)
        return server.stop()


def is_loading(server: ServerProcess, version: int) -> bool:
    """Whether the server says of a version that it is being loaded."""
    try:
        answer = server.get(f"/v1/models/{server.name}/versions/{version}", seconds=1)
    except httpx.TransportError:
        return False
    return "LOADING" in answer.text


def measure_descriptors(models: Path, arguments: argparse.Namespace) -> int:
    """Prints what a server with few file descriptors logs; returns 1 if it is too much."""
    server = ServerProcess(models, descriptors=DESCRIPTORS)
    try:
        server.wait_until_ready()
        target = describe(server)
        clients = WellBehavedClients(server, target)
        with attacking("idle", target, DESCRIPTOR_CONNECTIONS, arguments.seconds) as report:
            seen = asyncio.run(clients.measure(report.poll))
    finally:
        server.stop()
    log = server.log()
    lines = len(log.splitlines())
    print(
        f"\n{DESCRIPTORS} file descriptors, {DESCRIPTOR_CONNECTIONS} idle connections for "
        f"{arguments.seconds:g} s: {lines:,} lines of log (at most {LOG_LINES_BOUND}), "
        f"{len(log):,} bytes; healthz on new connections {seen.new}; afterwards "
        f"{seen.after}"
    )
    return int(lines > LOG_LINES_BOUND or not seen.after.startswith("200 "))


def main() -> int:
    """Returns 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models-dir", type=Path, default=DEFAULT_MODELS)
    parser.add_argument(
        "--untrained", action="store_true", help="attack a generator with random weights instead"
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated")
    parser.add_argument(
        "--only",
        action="append",
        choices=("none", *attackers.ATTACKS),
        metavar="ATTACK",
        help="may be repeated; leaves the other parts out",
    )
    parser.add_argument("--list", action="store_true", help="list the attacks and exit")
    parser.add_argument("--connections", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each attack")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each attack")
    arguments = parser.parse_args()
    if arguments.list:
        for name, attack in attackers.ATTACKS.items():
            print(
                f"{name:22} {attack.clients or arguments.connections:4} clients  {attack.purpose}"
            )
        return 0
    raise_descriptor_limit()
    exit_on_sigterm()
    measures = {
        "attacks": measure_attacks,
        "sigterm": measure_exits,
        "descriptors": measure_descriptors,
    }
    parts = arguments.part or (["attacks"] if arguments.only else PARTS)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.untrained:
            models = export_untrained(Path(folder))
        else:
            version = newest_version(arguments.models_dir)
            models = Path(folder) / arguments.models_dir.name
            shutil.copytree(version, models / version.name)
        missed = sum(measures[part](models, arguments) for part in parts)
    print(f"\n{missed} measurements missed a bound" if missed else "\nall bounds held")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
