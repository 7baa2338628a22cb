"""Pushes killed at random moments under a process that loads whatever version appears.

Run with: .venv/bin/python tools/push_faults.py [--kills 200] [--side ours --side tfx]

A watcher looks at the folder all the time, as TensorFlow Serving does every second. The moment a
version appears it compares its files with the model's, and loads and calls it. Meanwhile pushes are
started and killed with SIGKILL after a random part of the time that a whole one takes. TFX's own
executor copies into the folder that is being watched; ours copies beside it and renames.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

MEGABYTES = 8
SIDES = ("ours", "tfx")


def save_model(folder: Path) -> None:
    """A SavedModel of some megabytes; runs in a process of its own, which may then not fork."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = [
        tf.Variable(tf.random.normal([2**18]), name=f"w{i}") for i in range(MEGABYTES)
    ]
    module.f = tf.function(
        lambda x: {"y": x + tf.reduce_sum(module.weights[0]) * 0.0},
        input_signature=[tf.TensorSpec([], tf.float32, "x")],
    )
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.f})


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 by relative path of what every push has in common."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith("assets")
    }


def watch(base: Path, model: Path, stop, ready, results) -> None:
    """Counts versions that appear, that are not whole when they do, and that do not load."""
    import tensorflow as tf

    expected, seen = digests(model), set()
    counts = {"versions": 0, "incomplete": 0, "failed_loads": 0}
    tf.saved_model.load(str(model))
    ready.set()
    while True:
        last = stop.is_set()
        for name in sorted(os.listdir(base)):
            if not name.isdecimal() or name in seen:
                continue
            seen.add(name)
            counts["versions"] += 1
            try:
                counts["incomplete"] += digests(base / name) != expected
            except FileNotFoundError:  # a file that was there a moment ago
                counts["incomplete"] += 1
            try:
                f = tf.saved_model.load(str(base / name)).signatures["serving_default"]
                assert f(x=tf.constant(1.0))["y"].numpy() == 1.0
            except Exception:
                counts["failed_loads"] += 1
        if last:
            break
        time.sleep(0.001)
    results.put(counts)


def our_push(model: Path, base: Path) -> Callable[[int], object]:
    from registry.push import push

    return lambda number: push(model, base)


def tfx_push(model: Path, base: Path) -> Callable[[int], None]:
    from tfx.components.pusher.executor import Executor
    from tfx.types import standard_artifacts

    def push(number: int) -> None:
        artifact, pushed = standard_artifacts.Model(), standard_artifacts.PushedModel()
        artifact.uri = str(model.parent)
        pushed.uri = str(base.parent / "pushed" / str(number))
        destination = {"filesystem": {"base_directory": str(base)}}
        inputs, outputs = {"model": [artifact]}, {"pushed_model": [pushed]}
        Executor().Do(inputs, outputs, {"push_destination": json.dumps(destination)})

    return push


def run_forked(push: Callable[[int], object], number: int, kill_after: float | None) -> bool:
    """Runs a push in a child; whether it was still running when it was killed."""
    child = os.fork()
    if child == 0:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        try:
            push(number)
        finally:
            os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def measure_side(side: str, kills: int, seed: int) -> dict:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model", "Format-Serving")
        base = Path(folder, "serving")
        base.mkdir()
        saver = context.Process(target=save_model, args=[model])
        saver.start()
        saver.join()
        stop, ready, results = context.Event(), context.Event(), context.Queue()
        watcher = context.Process(target=watch, args=[base, model, stop, ready, results])
        watcher.start()
        ready.wait()
        killed = kill_pushes(side, model, base, kills, random.Random(seed))
        time.sleep(1.0)
        stop.set()
        counts = results.get()
        watcher.join()
        return {"pushes_killed": killed, **counts}


def kill_pushes(side: str, model: Path, base: Path, kills: int, draw: random.Random) -> int:
    """Starts pushes until so many were killed before their end; how many that were."""
    push = {"ours": our_push, "tfx": tfx_push}[side](model, base)
    mark = model / "assets" / "number.txt"
    mark.parent.mkdir(exist_ok=True)
    started = time.monotonic()
    run_forked(push, 0, None)
    whole, killed, number = time.monotonic() - started, 0, 0
    while killed < kills:
        number += 1
        mark.write_text(str(number))  # for ours does not push the model that is served again
        killed += run_forked(push, number, draw.uniform(0.0, 1.2 * whole))
        # TFX's takes the second as its version, and skips a push whose version is there.
        time.sleep(1.0 - time.time() % 1.0 if side == "tfx" else 0.05)
    return killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", action="append", choices=SIDES)
    arguments = parser.parse_args()
    for side in arguments.side or SIDES:
        counts = measure_side(side, arguments.kills, arguments.seed)
        print(json.dumps({"side": side, **counts}), flush=True)


if __name__ == "__main__":
    main()
