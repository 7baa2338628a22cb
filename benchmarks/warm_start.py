"""A warm training against a cold one on a new span: when each is as good as what is served.

    MNIST_DATA_DIR=... python benchmarks/warm_start.py [--seconds 90] [--preset default]

Span 1 is half of the train split. Span 2 is the other half with other shares of the digits: of 0 to
4 a third is left out. A cold training on span 1 is what is served. Then, on span 2, a cold and a
warm training for the same time each, and a warm one for a third of it: the learning rate falls in
the second half of the time there is, so a shorter training is not the beginning of a longer one.

Each is measured every `--every` seconds of its own time, measuring excluded, on digits of span 2
that none is trained on and by a classifier trained on span 2. The goal is the Frechet distance that
the served generator has there, and then that with which the cold training ends; the time to a goal
is that of the first measure from which on none is more than 1 % above it, by which such a measure
varies. A warm training begins at the first goal: what is to be seen is that it does not leave it.
`--steps` in place of `--seconds` counts updates, for a machine that does other work.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

SAMPLES = 5_000
SLACK = 1.01


def load_spans(data_dir: str, seed: int):
    """Digits of span 1, of span 2 and held out of span 2: images and labels each."""
    from mnist.spans import resolve_span
    from mnist.splits import load_splits

    train = load_splits(resolve_span(data_dir, None), 0.1)["train"]
    random = np.random.default_rng(seed)
    first, second = np.array_split(random.permutation(len(train)), 2)
    is_left_out = (train.labels[second] < 5) & (random.random(len(second)) < 1 / 3)
    second = second[~is_left_out]
    rows = (first, second[SAMPLES:], second[:SAMPLES])
    return [(train.images[r][..., np.newaxis], train.labels[r].astype(np.int64)) for r in rows]


class Measure:
    """Frechet distance to held-out digits in the features of a classifier of span 2."""

    def __init__(self, settings, span, held_out) -> None:
        from models.digit_classifier.training import ClassifierTrainer
        from models.gan.validation import ValidationSet

        classifier = ClassifierTrainer(*span, steps=settings.classifier.steps).fit(
            lambda *progress: None
        )

        def extract(images):
            return classifier.predict(images, batch_size=1000, verbose=0)

        images, self._labels = held_out
        validation_set = ValidationSet(images, self._labels, extract)
        self._validation_set = validation_set
        self.floor = validation_set.evaluate(span[0][: len(self._labels)], self._labels).fid

    def __call__(self, training) -> float:
        images = training.generate(self._labels)
        return self._validation_set.evaluate(images, self._labels).fid


def train(settings, span, measure: Measure, every: float, start=None):
    """Trains; returns the training and (position, FID) at intervals, the position in the budget."""
    from models.gan import training as gan_training

    training = gan_training.prepare_training(settings, *span)
    points, due = [], 0.0
    if start is not None:
        training.warm_start.begin_from(start)
        points.append((0.0, measure(training)))
    for progress in gan_training.train(training):
        position = progress.step if settings.max_steps else progress.seconds
        if position >= due or progress.fraction >= 1:
            points.append((position, measure(training)))
            due = position + every
    return training, points


def time_to(goal: float, points) -> float | None:
    """The position from which on no measure is above the goal; None where the last one is."""
    found = None
    for position, fid in reversed(points):
        if fid > SLACK * goal:
            break
        found = position
    return found


def read_settings(arguments, budget: float, **train_settings):
    from pipeline.settings.resolution import resolve

    chosen = {
        "max_seconds": None if arguments.steps else budget,
        "max_steps": int(budget) if arguments.steps else None,
        "evaluations": 0,
        "patience": None,
        "report_seconds": 0.5,
    } | train_settings
    options = {f"train.{key}": (value, "the benchmark") for key, value in chosen.items()}
    return resolve(
        arguments.preset, environ={}, assignments=arguments.set, options=options
    ).settings


def state_of(training, folder: str):
    """What a served version holds of its training, written and read as there."""
    from models.gan.warm_start import find_warm_start_state, write_final_state

    state = os.path.join(folder, "state")
    variables, lineage = training.gan.warm_start_variables(), training.warm_start.lineage
    write_final_state(state, variables, training.step, lineage)
    return find_warm_start_state("served", (1, state), variables)


def with_fresh_optimizers(start, training):
    """The same start, but for the optimizers' state."""
    fresh = {
        name: variable.numpy()
        for name, variable in training.gan.warm_start_variables().items()
        if "optimizer" in name
    }
    return dataclasses.replace(start, values=start.values | fresh)


def rates_of(settings, factor: float) -> dict[str, float]:
    names = ("generator_learning_rate", "discriminator_learning_rate")
    return {name: factor * getattr(settings, name) for name in names}


def compare(arguments) -> dict:
    from models.gan.training import prepare_training

    first, second, held_out = load_spans(arguments.data_dir, arguments.seed)
    budget = arguments.steps or arguments.seconds
    settings = read_settings(arguments, budget)
    measure = Measure(settings, second, held_out)
    say(f"floor {measure.floor:.4f}: {SAMPLES} training digits of span 2 against as many others")
    served, points = train(settings.train, first, measure, budget)
    goal = points[-1][1]
    say(f"served: {points[-1][0]:.0f} {unit(arguments)} on span 1, FID on span 2 {goal:.4f}")
    results = {"floor": measure.floor, "goal": goal, "budget": budget, "runs": {}}
    fresh = prepare_training(settings.train, *second)
    with tempfile.TemporaryDirectory() as folder:
        start = state_of(served, folder)
    runs: dict[str, tuple] = {"cold": (budget, None, {})}
    for rate in arguments.rates:
        share = rates_of(settings.train, rate)
        runs[f"warm, rate {rate:g}"] = (budget, start, share)
        runs[f"warm, rate {rate:g}, a third"] = (budget / 3, start, share)
    if arguments.fresh_optimizers:
        other = with_fresh_optimizers(start, fresh)
        share = rates_of(settings.train, arguments.rates[0])
        runs[f"warm, rate {arguments.rates[0]:g}, a third, fresh optimizers"] = (
            budget / 3,
            other,
            share,
        )
    for name, (length, begin, share) in runs.items():
        chosen = read_settings(arguments, length, **share).train
        started = time.monotonic()
        _, points = train(chosen, second, measure, arguments.every, begin)
        results["runs"][name] = points
        report(name, points, goal, time.monotonic() - started, arguments)
    return results


def report(name: str, points, goal: float, seconds: float, arguments) -> None:
    reached = time_to(goal, points)
    message = "not reached" if reached is None else f"{reached:.0f} {unit(arguments)}"
    curve = "  ".join(f"{position:.0f}: {fid:.3f}" for position, fid in points)
    say(f"{name} ({seconds:.0f} s with measuring): goal {message}; at the end {points[-1][1]:.4f}")
    say(f"    {curve}")


def say(text: str) -> None:
    print(text, flush=True)


def unit(arguments) -> str:
    return "updates" if arguments.steps else "s"


def summarise(results: dict, arguments) -> None:
    """Prints each warm training's time to both goals beside the cold one's."""
    cold = results["runs"]["cold"]
    for goal_name, goal in (("served", results["goal"]), ("cold's last", cold[-1][1])):
        needed = time_to(goal, cold)
        for name, points in results["runs"].items():
            position = time_to(goal, points)
            message = "not reached" if position is None else f"{position:.0f} {unit(arguments)}"
            if position is not None and needed:
                message += f", {position / needed:.2f} of the cold one's {needed:.0f}"
            say(f"to the {goal_name} FID {goal:.3f}, {name}: {message}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data-dir", default=os.environ.get("MNIST_DATA_DIR"))
    add("--seconds", type=float, default=90.0, help="of each training")
    add("--steps", type=int, help="updates of each training in place of seconds")
    add("--every", type=float, default=5.0, help="seconds or updates between two measures")
    add("--rates", type=float, nargs="+", default=[1.0], help="shares of the rate when warm")
    add("--fresh-optimizers", action="store_true", help="also a warm start without theirs")
    add("--preset", default="default")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting")
    add("--seed", type=int, default=0, help="of the spans")
    add("--output", type=Path, default=Path("outputs/benchmark-warm-start.json"))
    arguments = parser.parse_args()
    if not arguments.data_dir:
        parser.error("name the folder with MNIST's files: --data-dir or MNIST_DATA_DIR")
    results = compare(arguments)
    summarise(results, arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
