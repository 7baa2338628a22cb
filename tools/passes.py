"""Retraining passes (`local_runner.py retrain`) that can be disturbed at a chosen place.

A pass is a process of its own, forked from one that has imported TFX already, since the import
takes as long as a tiny run. What it does is what the command does. It tells of each node and waits
for an answer, so that a fault comes exactly there and not about there.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Of a node and a moment of it: seconds after which the pass is killed, None for not at all. The
# moments: `launch`, `begin` (its execution is registered), `done` (its work is done, and that is
# not registered), `registered`. The pass stands still meanwhile.
Watcher = Callable[[str, str], float | None]


@dataclass
class Pass:
    """What came of a pass; `status` is None where it was killed, `left` its surviving children."""

    status: int | None
    printed: str
    seconds: float
    reached: list[tuple[str, str, float]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def result(self) -> dict:
        """The line of JSON; {} where there is none."""
        last = (self.printed.strip().splitlines() or [""])[-1]
        return json.loads(last) if last.startswith("{") else {}

    @property
    def outcome(self) -> str:
        if self.status is None:
            return "killed"
        return self.result.get("outcome") or f"status {self.status}"

    def seconds_of(self, node: str) -> float:
        """Between `begin` and `done`, or `launch` and `registered` where there is no executor."""
        at = {moment: seconds for name, moment, seconds in self.reached if name == node}
        first, last = ("begin", "done") if "begin" in at else ("launch", "registered")
        return at[last] - at[first]


class Retraining:
    """A data folder and an output folder, and the command that retrains with them."""

    def __init__(self, data: Path, out: Path, settings: Sequence[str]) -> None:
        self.data, self.out = data, out
        self.serving = out / "serving" / "mnist_gan"
        self.options = [part for each in settings for part in ("--set", each)]
        self.folders = ["--data-dir", str(data), "--output-dir", str(out)]
        self.arguments = ["retrain", "--preset", "smoke", *self.folders, *self.options]

    def versions(self) -> list[str]:
        """The served versions, oldest first."""
        names = os.listdir(self.serving) if self.serving.is_dir() else []
        return sorted((name for name in names if name.isdecimal()), key=int)


def write_span(folder: Path, **splits: tuple[np.ndarray, np.ndarray]) -> None:
    """Writes images uint8 [n, 28, 28] and labels of `train` and `t10k` as IDX files."""
    from mnist import idx

    folder.mkdir(parents=True)
    for split, (images, labels) in splits.items():
        idx.write_images(str(folder / f"{split}-images-idx3-ubyte"), images)
        idx.write_labels(str(folder / f"{split}-labels-idx1-ubyte"), labels.astype(np.uint8))


def prepare() -> None:
    """Imports what a pass imports and drops the environment's settings; call it once."""
    for name in [name for name in os.environ if name.startswith("MNIST_")]:
        del os.environ[name]
    import local_runner  # noqa: F401
    from pipeline.local.imports import quick_tfx_import

    with quick_tfx_import():
        import tensorflow_data_validation  # noqa: F401

        import pipeline.local.session
    import pipeline.retraining.retrain  # noqa: F401


def make_pass(arguments: Sequence[str], watcher: Watcher | None = None) -> Pass:
    """Runs `local_runner.py` with the arguments; see `Watcher` for how to disturb it."""
    events, tell = os.pipe()
    hear, answers = os.pipe()
    printed = os.memfd_create("printed")
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(events)
        os.close(answers)
        _be_the_pass(arguments, printed, tell, hear)
    os.close(tell)
    os.close(hear)
    reached: list[tuple[str, str, float]] = []
    with os.fdopen(events, "rb", buffering=0) as stream, os.fdopen(answers, "wb", 0) as reply:
        _follow(child, stream, reply, reached, watcher or (lambda node, moment: None), started)
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - started
    with os.fdopen(printed, "rb") as file:
        file.seek(0)
        text = file.read().decode(errors="replace")
    code = None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
    return Pass(code, text, seconds, reached, survivors(child))


def _follow(child: int, stream, reply, reached: list, watcher: Watcher, started: float) -> None:
    """Answers what the pass tells, and kills it when its time is up."""
    kill_at = None
    while True:
        left = None if kill_at is None else max(kill_at - time.monotonic(), 0.0)
        ready, _, _ = select.select([stream], [], [], left)
        if not ready:
            os.kill(child, signal.SIGKILL)
            return
        line = stream.readline()
        if not line:
            return
        node, moment = line.decode().split()
        reached.append((node, moment, time.monotonic() - started))
        after = watcher(node, moment)
        if after == 0:
            os.kill(child, signal.SIGKILL)
            return
        kill_at = kill_at if after is None else time.monotonic() + after
        with contextlib.suppress(BrokenPipeError):
            reply.write(b".")


def _be_the_pass(arguments: Sequence[str], printed: int, tell: int, hear: int) -> None:
    """The child's whole life."""
    status = 70
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (printed, 1), (printed, 2)):
            os.dup2(source, target)
        with _telling(tell, hear):
            import local_runner

            local_runner.app(list(arguments), standalone_mode=True)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(bool(error.code))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@contextlib.contextmanager
def _telling(tell: int, hear: int) -> Iterator[None]:
    """Makes TFX's launcher tell of each node, and wait for an answer."""
    from tfx.orchestration.portable import launcher

    def message(moment: str, node: str) -> None:
        os.write(tell, f"{node} {moment}\n".encode())
        os.read(hear, 1)

    def around(function: Callable, before: str, after: str) -> Callable:
        def wrapped(self, *positional, **named):
            node = self._pipeline_node.node_info.id
            message(before, node)
            result = function(self, *positional, **named)
            message(after, node)
            return result

        return wrapped

    launcher.Launcher.launch = around(launcher.Launcher.launch, "launch", "registered")
    launcher.Launcher._run_executor = around(launcher.Launcher._run_executor, "begin", "done")
    yield


def survivors(session: int, patience_seconds: float = 30.0) -> list[str]:
    """Processes of a session that live on after its leader, as long as patience lasts."""
    end = time.monotonic() + patience_seconds
    while names := _members(session):
        if time.monotonic() > end:
            return names
        time.sleep(0.2)
    return []


def _members(session: int) -> list[str]:
    names = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                names.append(" ".join(process.cmdline())[:80])
    return names


class Loader:
    """A process with TensorFlow and nothing of this project, that loads models and calls them."""

    _PROGRAM = """
import sys
import tensorflow as tf
for path in sys.stdin:
    try:
        call = tf.saved_model.load(path.strip()).signatures["serving_default"]
        made = call(seed=tf.constant([7], tf.int64), digit=tf.constant([3], tf.int64))
        assert tf.io.decode_png(made["image_bytes"][0]).shape == (28, 28, 1)
        print("loads", flush=True)
    except Exception as error:
        print(" ".join(str(error).split())[:200], flush=True)
"""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", self._PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd="/",
        )

    def load(self, version: Path) -> str:
        """`loads`, or why it does not."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{version}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def bytes_in(folder: Path) -> int:
    """Of all files in it."""
    sizes = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            sizes += path.lstat().st_size if path.is_file() else 0
    return sizes
