"""Each command in each of many faults, as a table for docs/faults.md.

Run with: .venv/bin/python tools/fault_matrix.py [--fault "disk full"] [--command gc]

Three spans were trained on, and three versions are there. Each cell gets a copy of that on a small
disk of its own (`unshare`, a tmpfs), makes one fault, calls one command, removes the fault, and
calls the command again. A cell is good if

- the exit status is one that docs/operations.md names for the fault, and the second call's is 0;
- no traceback and at most five lines of an error are on the terminal;
- what was intact before is so afterwards: versions, their models, recorded runs;
- nothing half-written and no process is left.
"""

import argparse
import ctypes
import multiprocessing
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from faults import DISK, MARK, SETTINGS, bring_span
from matrix_faults import COMMANDS, FAULTS, Fault, runs_in
from passes import ROOT, Retraining, survivors

from registry.integrity import digests, fingerprint, intact_versions, read_files
from registry.layout import newest_version, version_address
from storage import files_in, read

PATIENCE_SECONDS = 900.0
MOST_LINES = 5
# Names of what a command removes before it ends; a push that was killed leaves the first two.
TEMPORARY = (".incoming-", ".removed-", ".lock-holder", "metadata.sqlite-journal")
_CLONE_NEWNS = 0x00020000  # linux/sched.h


class Cell(Retraining):
    """A data folder, an output folder, and how a command is called on them.

    Attributes:
      environment: of the command.
      setup, redirection: shell code before the command, and after it.
      signal: sent to the command while it works; None for none.
      keeps_runs: whether the runs that were recorded must still be at the end.
      problems: what a fault found wrong when it was removed.
    """

    def __init__(self, work: Path, command: str) -> None:
        self.disk, self.command = work / "disk", command
        super().__init__(self.disk / "data", self.disk / "out", SETTINGS)
        self.temporary = Path(tempfile.mkdtemp(dir=work))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MNIST_")},
            "TMPDIR": str(self.temporary),
        }
        self.setup, self.redirection = "", ""
        self.signal: signal.Signals | None = None
        self.keeps_runs, self.problems = True, list[str]()

    @property
    def newest(self) -> Path:
        """The folder of the served version."""
        return self.serving / self.versions()[-1]

    def called(self, port: int) -> str:
        """The command as a shell takes it."""
        arguments = {
            "run": ["run", *self.arguments[1:]],
            "retrain": self.arguments,
            "serve": ["--port", str(port), "--grpc-port", "0"],
            "rollback": ["--reason", "a fault"],
            "gc": [],
        }[self.command]
        if arguments[:1] not in (["run"], ["retrain"]):
            arguments = [self.command, *arguments, *self.folders[2:]]
        program = shlex.join([sys.executable, str(ROOT / "local_runner.py"), *arguments])
        return f"{self.setup}\nexec {program} {self.redirection}"

    def is_working(self, printed: Path) -> bool:
        """Whether the command is in the middle of its work."""
        if self.command == "rollback":
            return any(self.serving.glob(".incoming-*"))
        if self.command == "gc":
            return (self.out / ".lock-holder").exists()
        return b"Trainer" in printed.read_bytes()


@dataclass
class Ended:
    """How a command ended: its status (negative: the signal's), what it wrote, what it left."""

    status: int
    printed: str
    error: str
    left: list[str]

    def problems(self, allowed: tuple[int, ...]) -> Iterator[str]:
        lines = self.error.splitlines()
        said = [i for i, line in enumerate(lines) if line.startswith(("error:", "stopped:"))]
        if self.status not in allowed:
            yield f"status {self.status}, expected {allowed}"
        if "Traceback" in self.printed + self.error:
            yield "a traceback"
        if said and len(lines) - said[0] > MOST_LINES:
            yield "an error of more than five lines"
        if self.left:
            yield f"processes left: {self.left}"


def call(cell: Cell) -> Ended:
    """Calls the command of a cell; `serve` draws a digit and is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    texts = [Path(tempfile.mkstemp(dir=cell.temporary.parent)[1]) for _ in range(2)]
    with texts[0].open("wb") as printed, texts[1].open("wb") as error:
        process = subprocess.Popen(
            ["bash", "-c", cell.called(port)],
            env=cell.environment,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=error,
            start_new_session=True,
        )
    drawn = True
    try:
        if cell.command == "serve":
            drawn = draw(process, port)
            process.send_signal(cell.signal or signal.SIGTERM)
        elif cell.signal:
            while process.poll() is None and not cell.is_working(texts[0]):
                time.sleep(0.001)
            process.send_signal(cell.signal)
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    status = process.wait()
    shown, problem = (path.read_text(errors="replace") for path in texts)
    for path in texts:
        path.unlink()
    ended = Ended(status, shown, problem, survivors(process.pid))
    return ended if drawn or status else Ended(1, shown, f"{problem}no digit", ended.left)


def draw(process: subprocess.Popen, port: int) -> bool:
    """Asks a server for a digit until it answers or ends, or patience does."""
    url = f"http://127.0.0.1:{port}/v1/models/mnist_gan:predict"
    row = {"instances": [{"seed": 1, "digit": 7}]}
    ends = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < ends:
        with suppress(httpx.HTTPError):
            if httpx.post(url, json=row, trust_env=False, timeout=30).status_code == 200:
                return True
        time.sleep(0.1)
    return False


def contents(cell: Cell) -> dict[int, dict[str, str]]:
    """SHA-256 of every file, by version, of those that the registry finds intact."""
    found = {}
    for version in intact_versions(cell.serving):
        folder = version_address(cell.serving, version)
        files = {path: os.path.join(folder, path) for path in files_in(folder)}
        regular = {path: read(file) for path, file in files.items() if os.path.isfile(file)}
        found[version] = digests(regular)
    return found


def models(cell: Cell) -> set[str]:
    """The fingerprints of the models in the intact versions."""
    addresses = (version_address(cell.serving, each) for each in intact_versions(cell.serving))
    return {fingerprint(read_files(address)) for address in addresses}


def half_written(cell: Cell) -> set[str]:
    """What no command leaves behind."""
    names = [path.name for path in (*cell.out.glob("*"), *cell.serving.glob("*"))]
    # `storage.atomic_file` writes to `.<name>.<32 hexadecimal digits>`.
    partial = [path.name for path in cell.out.rglob(f".*.{'[0-9a-f]' * 32}")]
    found = [name for name in names if name.startswith(TEMPORARY)]
    return {*found, *partial, *map(str, cell.temporary.glob("*"))}


def try_cell(work: Path, name: str, command: str) -> tuple[str, list[str]]:
    """Returns the exit status as the table shows it, and what is wrong."""
    fault: Fault = FAULTS[name]
    if command not in fault.commands:
        return "n/a", []
    cell = Cell(work, command)
    for folder in cell.disk.iterdir():
        shutil.rmtree(folder)
    shutil.copytree(work / "kept", cell.disk, symlinks=True, dirs_exist_ok=True)
    all_models, all_runs = models(cell), runs_in(cell.out)
    with fault.make(cell):
        before, made = contents(cell), half_written(cell)
        ended = call(cell)
        problems = [*ended.problems(fault.allowed(command))]
        after = contents(cell)
        problems += [f"version {v} is altered" for v in before if before[v] != after.get(v)]
        is_through = command in ("run", "retrain") and ended.status == 0
        if is_through and newest_version(cell.serving) != max(after, default=None):
            problems.append("what is served is not intact")
        if cell.signal is None:
            problems += [f"left: {path}" for path in half_written(cell) - made]
    shutil.rmtree(cell.temporary)
    problems += [*cell.problems, *call_again(work, cell, all_models, all_runs, made)]
    if problems:
        print(name, command, *problems, ended, sep="\n", file=sys.stderr, flush=True)
    return str(ended.status if ended.status >= 0 else 128 - ended.status), problems


def call_again(
    work: Path, cell: Cell, models_: set[str], runs: set[str], made: set[str]
) -> Iterator[str]:
    """Calls the command without the fault; yields what is wrong then.

    Folders with the content that they had at first end as without a fault.
    """
    same = ["diff", "-rq", "--no-dereference", str(work / "kept"), str(cell.disk)]
    if subprocess.run(same, capture_output=True, check=False).returncode == 0:
        return
    again = Cell(work, cell.command)
    ended = call(again)
    yield from (f"then: {each}" for each in ended.problems((0,)))
    yield from (f"left at the end: {path}" for path in half_written(again) - made)
    if not models_ <= models(again):
        yield "a model is lost"
    if cell.keeps_runs and not runs <= runs_in(again.out):
        yield "a recorded run is lost"
    shutil.rmtree(again.temporary)


def prepare(work: Path) -> None:
    """Makes what each cell begins with, unless it is there."""
    if (work / "kept").is_dir():
        return
    (work / "disk").mkdir(parents=True)
    cell = Cell(work, "retrain")
    for span in (1, 2, 3):
        bring_span(cell.data, span)
        ended = call(cell)
        if ended.status or len(cell.versions()) != span:
            raise SystemExit(f"no version {span}:\n{ended.printed}{ended.error}")
    (work / "disk").rename(work / "kept")
    (work / "disk").mkdir()


def own_disk(work: Path) -> None:
    """Gives a process a disk that the others do not see."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "no mount namespace")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "cell", str(work / "disk")], check=True)


def try_row(work: Path, name: str, commands: list[str]) -> list[tuple[str, list[str]]]:
    return [try_cell(work, name, command) for command in commands]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fault", action="append", choices=list(FAULTS), metavar="NAME")
    parser.add_argument("--command", action="append", choices=COMMANDS)
    parser.add_argument("--jobs", type=int, default=2, help="cells at the same time")
    parser.add_argument("--work", type=Path, help="keeps what the cells begin with, for later")
    chosen = parser.parse_args()
    if MARK not in os.environ:
        os.environ[MARK] = "1"
        root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        os.execvp("unshare", ["unshare", *root, "--mount", sys.executable, *sys.argv])
    faults, commands = chosen.fault or list(FAULTS), chosen.command or list(COMMANDS)
    bad, tried = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        work = (chosen.work or Path(folder)).absolute()
        prepare(work)
        print("|".join(["", "fault", *commands, ""]))
        print("|---" * (len(commands) + 1) + "|", flush=True)
        with multiprocessing.Pool(chosen.jobs, own_disk, [work]) as pool:
            rows = [(name, pool.apply_async(try_row, (work, name, commands))) for name in faults]
            for name, row in rows:
                cells = row.get()
                shown = [f"**{status}**" if found else status for status, found in cells]
                print("|".join(["", name, *shown, ""]), flush=True)
                bad += sum(bool(found) for _, found in cells)
                tried += sum(status != "n/a" for status, _ in cells)
    print(f"\n{tried - bad} of {tried} cells are good")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
