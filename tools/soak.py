"""Months of arriving spans in half an hour, each followed by a pass of retraining, with kills.

Run with: MNIST_DATA_DIR=/data/mnist .venv/bin/python tools/soak.py [--days 36] [--seed 0]

A day brings real digits, each digit once: most days as they are, some shifted, some with digits of
the day before, some half-written, some not at all; and twice poison, Gaussian noise and permuted
labels. Every pass is `local_runner.py retrain`; at some a node is killed with SIGKILL at a drawn
moment, and the pass of the next day takes it up. Prints a line per pass and then the checks.
"""

import argparse
import dataclasses
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from passes import Loader, Pass, Retraining, bytes_in, make_pass, prepare, write_span

TRAIN, TEST = 1200, 300
WINDOW = 3
SETTINGS = (
    f"data.window=rolling:{WINDOW}",
    "push.keep_versions=5",
    "retention.runs=6",
    "retention.reports=20",
    "classifier.steps=100",
    "evaluation.deep=false",
    "evaluation.samples=500",
)
KILLED_NODES = (
    *("MnistExampleGen", "StatisticsGen", "DataGate", "DigitClassifier", "Trainer", "Trainer"),
    *("GeneratorEvaluator", "ServingCheck", "Pusher"),
)
# What the days bring; the others bring digits as they are.
KINDS = {
    4: "fewer ones",
    6: "duplicates",
    8: "nothing",
    9: "noise",
    11: "half-written",
    12: "completed",
    14: "shifted two pixels",
    16: "no test files",
    18: "duplicates",
    20: "nothing",
    21: "permuted labels",
    23: "thinner strokes",
    25: "many more ones",
    27: "cut off",
    29: "duplicates",
    31: "bolder strokes",
}
POISON = ("noise", "permuted labels")
# Too far from what is served to be trained on unasked; and a file that can never be read.
REFUSED = (*POISON, "shifted two pixels", "cut off")


class Digits:
    """MNIST's training digits in a drawn order, handed out once each."""

    def __init__(self, folder: str, draw: np.random.Generator) -> None:
        from mnist import idx

        place = Path(folder)
        images, labels = (
            next(place.glob(f"train-{kind}-ubyte*")) for kind in ("images-idx3", "labels-idx1")
        )
        self.images, self.labels = idx.read_images(str(images)), idx.read_labels(str(labels))
        self._left = draw.permutation(len(self.labels))
        self._draw = draw
        self.last: np.ndarray | None = None

    def take(self, count: int, weights: dict[int, float] | None = None) -> np.ndarray:
        """Rows that were not taken before; of a digit with a weight, that share of its digits."""
        keep = np.ones(len(self._left), bool)
        for digit, weight in (weights or {}).items():
            mine = self.labels[self._left] == digit
            keep[mine] = self._draw.random(mine.sum()) < weight
        rows = self._left[keep][:count]
        self._left = np.setdiff1d(self._left, rows, assume_unique=True)
        self._draw.shuffle(self._left)
        return rows


def bring(kind: str, digits: Digits, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A day's images uint8 [n, 28, 28] and labels uint8 [n]."""
    weights = {"fewer ones": {1: 0.3}, "many more ones": {d: 0.4 for d in range(10) if d != 1}}
    rows = digits.take(TRAIN + TEST, weights.get(kind))
    if kind == "duplicates" and digits.last is not None:
        rows[: TRAIN // 2] = digits.last[: TRAIN // 2]
    digits.last = rows
    images, labels = digits.images[rows].copy(), digits.labels[rows].copy()
    if kind == "noise":
        images = np.clip(draw.normal(128, 64, images.shape), 0, 255).astype(np.uint8)
    elif kind == "permuted labels":
        labels = draw.permutation(labels)
    elif kind == "shifted two pixels":
        images[:, :, 2:] = images[:, :, :-2]
        images[:, :, :2] = 0
    elif kind == "thinner strokes":
        images *= images > 90
    elif kind == "bolder strokes":
        images = np.clip(images * 1.3, 0, 255).astype(np.uint8)
    return images, labels


def write(folder: Path, kind: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes a span, with _SUCCESS at last; not all of it where its kind says so."""
    splits = {"train": (images[:TRAIN], labels[:TRAIN]), "t10k": (images[TRAIN:], labels[TRAIN:])}
    if kind == "no test files":
        del splits["t10k"]
    write_span(folder, **splits)
    if kind == "cut off":
        path = folder / "train-images-idx3-ubyte"
        os.truncate(path, path.stat().st_size // 2)
    if kind == "half-written":
        for path in folder.glob("*-labels-*"):
            path.unlink()
    else:
        (folder / "_SUCCESS").touch()


@dataclasses.dataclass
class Line:
    """A pass."""

    day: int
    span: str
    kind: str
    kill: str
    outcome: str
    trained_on: str
    version: str
    fid: float | None
    size: int
    seconds: float

    def cells(self) -> list[str]:
        fid = "" if self.fid is None else f"{self.fid:.1f}"
        megabytes = f"{self.size / 1e6:.1f}"
        texts = (self.kill, self.outcome, self.trained_on, self.version, fid, megabytes)
        return [str(self.day), self.span, self.kind, *texts, f"{self.seconds:.0f}"]


HEADINGS = (
    *("day", "span", "brings", "killed at", "outcome", "trained on", "served"),
    *("FID", "MB", "s"),
)


class Soak(Retraining):
    """The days, and what was seen."""

    def __init__(self, work: Path, digits: str, days: int, kill_share: float, seed: int) -> None:
        super().__init__(work / "data", work / "out", SETTINGS)
        self.days, self.kill_share = days, kill_share
        self.draw, self.random = np.random.default_rng(seed), random.Random(seed)
        self.digits = Digits(digits, self.draw)
        self.loader = Loader()
        self.lines: list[Line] = []
        self.results: list[dict] = []
        self.problems: list[str] = []
        self.poisoned: list[int] = []
        self.refused: list[int] = []
        self.half: tuple[Path, np.ndarray, np.ndarray] | None = None
        self.seconds: dict[str, float] = {}
        self.newest = 0

    def live(self) -> None:
        for day in range(1, self.days + 1):
            kind = KINDS.get(day, "digits")
            span = self._arrive(day, kind)
            killed = day > 2 and self.random.random() < self.kill_share
            done = self._pass(day, span, kind, self._choose_kill() if killed else None)
            # Else the next day takes it up; the last one has none.
            if (done.status is None and self.random.random() < 0.5) or day == self.days:
                self._pass(day, "", "the same day again", None)

    def _arrive(self, day: int, kind: str) -> str:
        if kind == "nothing":
            return ""
        if kind == "completed" and self.half:
            folder, images, labels = self.half
            shutil.rmtree(folder)
            write(folder, kind, images, labels)
            return folder.name.removeprefix("span-")
        folder = self.data / f"span-{day}"
        images, labels = bring(kind, self.digits, self.draw)
        write(folder, kind, images, labels)
        if kind == "half-written":
            self.half = folder, images, labels
        if kind in POISON:
            self.poisoned.append(day)
        if kind in REFUSED:
            self.refused.append(day)
        return str(day)

    def _choose_kill(self) -> tuple[str, str, float]:
        node = self.random.choice(KILLED_NODES)
        moment = self.random.choice(("begin", "middle", "done"))
        return node, moment, self.random.uniform(0, self.seconds.get(node, 1.0))

    def _pass(self, day: int, span: str, kind: str, kill: tuple[str, str, float] | None) -> Pass:
        def watch(node: str, moment: str) -> float | None:
            if kill is None or node != kill[0]:
                return None
            if kill[1] == "middle":
                return kill[2] if moment == "begin" else None
            return 0 if moment == kill[1] else None

        done = make_pass(self.arguments, watch)
        killed = " ".join(done.reached[-1][:2]) if done.status is None else ""
        for node, moment, _ in done.reached:
            if moment == "done":
                self.seconds[node] = done.seconds_of(node)
        spans, self.newest = trained_on(self.out / "metadata.sqlite", self.newest)
        line = Line(
            day,
            span,
            kind,
            killed,
            outcome(done),
            " ".join(map(str, spans)),
            (self.versions() or [""])[-1],
            done.result.get("fid"),
            bytes_in(self.out),
            done.seconds,
        )
        self.lines.append(line)
        self.results.append(done.result)
        print("| " + " | ".join(line.cells()) + " |", flush=True)
        self._look(done, line)
        return done

    def _look(self, done: Pass, line: Line) -> None:
        """What has to be so after every pass."""
        good = ("pushed", "not blessed", "nothing to do", "killed")
        if done.outcome not in good and not done.result.get("quarantined"):
            self._problem(
                line, f"{done.outcome} with nothing to quarantine: {done.printed[-1500:]}"
            )
        if "Traceback" in done.printed:
            self._problem(line, f"a traceback on the terminal: {done.printed[-1500:]}")
        if done.left:
            self._problem(line, f"processes left: {done.left}")
        if versions := self.versions():
            state = self.loader.load(self.serving / versions[-1])
            if state != "loads":
                self._problem(line, f"the served version does not load: {state}")
        if done.outcome == "pushed":
            self._check_push(done, line)

    def _check_push(self, done: Pass, line: Line) -> None:
        """What was pushed is what the report says, and that is blessed."""
        pages = sorted((self.out / "reports").glob("*/evaluation.json"))
        if not pages:
            self._problem(line, "there is no report")
            return
        evaluation = json.loads(pages[-1].read_text())
        if not evaluation["verdict"]["blessed"]:
            self._problem(line, f"pushed, and {pages[-1]} says that it is not blessed")
        if abs(evaluation["metrics"]["fid"]["value"] - done.result["fid"]) > 1e-3:
            self._problem(line, f"another FID in {pages[-1]}")

    def _problem(self, line: Line, text: str) -> None:
        self.problems.append(f"day {line.day}: {text}")
        print(f"PROBLEM day {line.day}: {text}", file=sys.stderr, flush=True)

    def close(self) -> list[str]:
        """The checks at the end: each a line, with what was found."""
        printed = make_pass(["status", "--output-dir", str(self.out), "--last", "200"]).printed
        listed = make_pass(["data", *self.folders])
        cleaning = ["gc", "--dry-run", "--output-dir", str(self.out), *self.options]
        left = make_pass(cleaning).printed.strip().splitlines()[-1]
        loads = {v: self.loader.load(self.serving / v) for v in self.versions()}
        self.loader.end()
        pushed = {str(r["version"]) for r in self.results if r.get("outcome") == "pushed"}
        trained = {span for line in self.lines for span in line.trained_on.split()}
        poison = set(map(str, self.poisoned))
        held = set(re.findall(r"span (\d+) is quarantined", printed))
        shown = {v for v in self.versions() if v in printed}
        sizes = [line.size for line in self.lines]
        half = len(sizes) // 2
        return [
            f"{len(self.lines)} passes over {self.days} days, "
            f"{len({line.span for line in self.lines if line.span})} spans, "
            f"{sum(line.outcome == 'killed' for line in self.lines)} kills",
            verdict(set(loads) <= pushed, f"served versions that a pass pushed: {sorted(loads)}"),
            verdict(set(loads.values()) == {"loads"}, f"they load with TensorFlow alone: {loads}"),
            verdict(not poison & trained, f"poisoned spans {sorted(poison)} in no training"),
            verdict(
                held == set(map(str, self.refused)),
                f"spans that `status` says are held: {sorted(held)}",
            ),
            verdict(shown == set(loads), f"served versions that `status` names: {sorted(shown)}"),
            verdict(listed.status == 0, f"`data` ended with {listed.status}"),
            verdict(
                max(sizes[half:]) <= 1.25 * max(sizes[:half]),
                f"disk: at most {max(sizes[:half]) / 1e6:.1f} MB in the first half, "
                f"{max(sizes[half:]) / 1e6:.1f} in the second, {sizes[-1] / 1e6:.1f} at the end",
            ),
            verdict(left == "Would remove nothing", f"`gc --dry-run` at the end: {left}"),
            verdict(not self.problems, f"passes with a problem: {len(self.problems)}"),
        ]


def verdict(holds: bool, text: str) -> str:
    return f"{'good' if holds else 'BAD '}  {text}"


def outcome(done: Pass) -> str:
    held = done.result.get("quarantined", [])
    reason = done.result.get("reason", "") if done.outcome == "not started" else ""
    parts = [done.outcome, *(f"quarantined {span}" for span in held), reason]
    failed = done.result.get("failed") or []
    return ", ".join(filter(None, [*parts, *failed]))


def trained_on(database: Path, after: int) -> tuple[list[int], int]:
    """Spans that trainings since an execution were given, and the newest execution."""
    from ml_metadata.proto import metadata_store_pb2

    from pipeline.local.history import open_store

    if not database.exists():
        return [], after
    store = open_store(database)
    kind = "tfx.components.trainer.component.Trainer"
    made = [e.id for e in store.get_executions_by_type(kind) if e.id > after]
    if not made:
        return [], after
    inputs = metadata_store_pb2.Event.INPUT
    given = [e.artifact_id for e in store.get_events_by_execution_ids(made) if e.type == inputs]
    uris = {artifact.uri for artifact in store.get_artifacts_by_id(given)}
    found = {
        span["span"]
        for uri in uris
        if (path := Path(uri, "spans.json")).exists()
        for span in json.loads(path.read_text())
    }
    return sorted(found), max(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=36)
    parser.add_argument("--kills", type=float, default=0.5, help="share of passes with a kill")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    digits = os.environ.get("MNIST_DATA_DIR")
    if not digits:
        raise SystemExit("MNIST_DATA_DIR names no folder with MNIST's four files")
    prepare()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        soak = Soak(Path(work), digits, arguments.days, arguments.kills, arguments.seed)
        print("| " + " | ".join(HEADINGS) + " |\n" + "| --- " * len(HEADINGS) + "|", flush=True)
        soak.live()
        checks = soak.close()
    print(f"\n{time.monotonic() - started:.0f} s")
    print("\n".join(checks))
    raise SystemExit(any(line.startswith("BAD") for line in checks))


if __name__ == "__main__":
    main()
