"""Our training against TensorFlow's DCGAN tutorial for the same time, and against a plain loop.

    MNIST_DATA_DIR=... python benchmarks/training.py [--seconds 480] [--seeds 0 1 2]

Both train on the train split for the same wall-clock time, graph building included and measuring
excluded, each in a process of its own whose peak memory is its own. At the marked times 10,000
digits of each (of ours, 1,000 a digit) are measured against the test split in the features of the
pipeline's classifier and of an independent network (judge_network.py), which no training sees. The
floor of each is the median of five draws of as many real training digits. At the end
follow the two-sample test against the test split and the classification accuracy score, each
beside that of real training digits.

Our learning rate falls in the second half of the time there is. So what ours shows after 240 s of
480 s is not what 240 s give: `--seconds 240` shows that.

`--digits 5000` trains ours on so many digits only, drawn by the seed; everything else stays. Then
follows how far samples lie from the digits trained on, as a multiple of the test split's distance,
and the same to as many training digits that were left out. Both are below 1 where samples are more
typical than real digits; the first is below the second where some are copies.

The loop: our network in our loop and in `keras.Model.fit`, in turn, in one process; real digits a
second of each and the ratio, of which the median counts. The first round is warming up. Once the
plain loop updates both networks from one generated batch, as ours does, and once from two.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # Evaluation and training share it.

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

SIDES = {"ours": "ours", "dcgan": "DCGAN tutorial"}
MARKS = (30, 60, 90, 120, 240, 480)
FLOOR_DRAWS = 5


def load_digits(data_dir: str):
    """The train and the eval split, images uint8 [n, 28, 28, 1] and labels int64 [n] each."""
    from mnist.spans import resolve_span
    from mnist.splits import load_splits

    splits = load_splits(resolve_span(data_dir, None), 0.1)
    return [
        (splits[name].images[..., np.newaxis], splits[name].labels.astype(np.int64))
        for name in ("train", "eval")
    ]


def read_settings(arguments, **train):
    """The preset's settings, `train` replaced where given; no evaluations while training."""
    from pipeline.settings.resolution import resolve

    train = {"max_steps": None, "evaluations": 0, "patience": None, "report_seconds": 0.5} | train
    options = {f"train.{key}": (value, "the benchmark") for key, value in train.items()}
    return resolve(
        arguments.preset, environ={}, assignments=arguments.set, options=options
    ).settings


# What a side's process does.


def draw_digits(digits, count: int | None, seed: int, *, after: int = 0):
    """So many of the digits, images and labels; all of them where there is no count.

    `after` leaves out those that another draw of as many has.
    """
    rows = np.random.default_rng(seed).permutation(len(digits[1]))[after:][:count]
    return digits if count is None else tuple(part[rows] for part in digits)


def digits_to_ask(arguments, train) -> np.ndarray:
    """As many of each digit as there are in the train split, in proportion."""
    from metrics.labels import labels_in_shares

    return labels_in_shares(arguments.samples, np.bincount(train[1], minlength=10) / len(train[1]))


def train_ours(arguments):
    """Yields (seconds, real digits seen, function that draws) ever again."""
    from models.gan import training as gan_training
    from surroundings import use_each_core

    use_each_core()  # as a run does
    settings = read_settings(arguments, max_seconds=arguments.seconds, seed=arguments.seed).train
    train, _ = load_digits(arguments.data_dir)
    digits = draw_digits(train, arguments.digits, arguments.seed)
    training = gan_training.prepare_training(settings, *digits)
    for progress in gan_training.train(training):
        seen = progress.step * settings.batch_size
        yield progress.seconds, seen, lambda: training.generate(digits_to_ask(arguments, train))


def train_dcgan(arguments):
    """Yields as `train_ours` does."""
    from dcgan_tutorial import DcganTutorial

    (images, _), _ = load_digits(arguments.data_dir)
    tutorial = DcganTutorial(images, arguments.seed)
    for seconds, seen in tutorial.fit(arguments.seconds):
        yield seconds, seen, lambda: tutorial.sample(arguments.samples)


def run_training(arguments, training) -> None:
    """Trains, leaving samples and `moments.json` in the folder at each mark."""
    folder, marks = Path(arguments.folder), list(arguments.at)
    moments: list[dict] = []
    for seconds, seen, draw in training(arguments):
        if not marks or seconds < marks[0]:
            continue
        images = draw()
        while marks and seconds >= marks[0]:
            mark = marks.pop(0)
            np.save(folder / f"{len(moments)}.npy", images)
            moments.append({"at": mark, "seconds": seconds, "images": seen})
            print(f"  {arguments.side} trained for {seconds:.0f} s", file=sys.stderr, flush=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        (folder / "moments.json").write_text(json.dumps({"moments": moments, "peak_gib": peak}))


def run_loops(arguments) -> None:
    """Times our loop and each plain one in turn, leaving digits a second in `loop.json`."""
    from plain_loop import AlternatingGan, PlainGan, plain_dataset

    from models.gan import training as gan_training
    from surroundings import use_each_core

    use_each_core()  # as a run does
    settings = read_settings(arguments, max_seconds=864_000.0).train
    train, _ = load_digits(arguments.data_dir)
    training = gan_training.prepare_training(settings, *train)
    reports = gan_training.train(training)

    def our_rate() -> float:
        started, before = time.monotonic(), training.step
        while (passed := time.monotonic() - started) < arguments.round_seconds:
            next(reports)
        return (training.step - before) * settings.batch_size / passed

    dataset = plain_dataset(settings, *train)
    loops = {"one batch": PlainGan(settings), "two batches": AlternatingGan(settings)}
    rounds = {
        name: time_in_turn(plain, dataset, our_rate, arguments) for name, plain in loops.items()
    }
    (Path(arguments.folder) / "loop.json").write_text(json.dumps(rounds))


def time_in_turn(plain, dataset, our_rate, arguments) -> list[dict]:
    """Digits a second of ours and of `plain`, a round each in turn."""
    import keras

    rounds = []

    class Alternating(keras.callbacks.Callback):
        """At the end of a plain round lets ours have its own."""

        def on_train_begin(self, logs=None):
            self.steps, self.since = 0, time.monotonic()

        def on_train_batch_end(self, batch, logs=None):
            self.steps += 1
            passed = time.monotonic() - self.since
            if passed >= arguments.round_seconds:
                rate = self.steps * plain.settings.batch_size / passed
                rounds.append({"ours": our_rate(), "plain": rate})
                plain.stop_training = len(rounds) > arguments.rounds
                self.on_train_begin()

    plain.fit(dataset, verbose=0, callbacks=[Alternating()])
    return rounds[1:]


# What the main process does.


class Features:
    """The features of one network: the FID to the test split, and the floor of real digits."""

    def __init__(self, network, train, test, samples: int) -> None:
        from metrics.frechet import fit_gaussian, gaussian_distance
        from metrics.manifold import real_manifold

        self._network = network
        features, logits = self.extract(test[0])
        self.accuracy = float((logits.argmax(axis=1) == test[1]).mean())
        reference = fit_gaussian(features)
        self._distance = lambda features: gaussian_distance(fit_gaussian(features), reference)
        self._manifold = real_manifold(features)
        random = np.random.default_rng(0)
        count = min(samples, len(train[1]))
        self.draws = [random.permutation(len(train[1]))[:count] for _ in range(FLOOR_DRAWS)]
        self.floors = [self._distance(self.extract(train[0][rows])[0]) for rows in self.draws]
        self.floor = statistics.median(self.floors)

    def extract(self, images):
        return self._network.predict(images, batch_size=1000, verbose=0)

    def measure(self, features) -> dict:
        from metrics.manifold import overlap

        found, rows = overlap(features, self._manifold), np.arange(len(features))
        fid = self._distance(features)
        return {
            "fid": fid,
            "fid_ratio": fid / self.floor,
            "precision": found.precision(rows),
            "recall": found.recall(rows),
            "coverage": found.coverage(rows),
        }


class Measures:
    """Figures of merit by networks that are trained here on the train split."""

    def __init__(self, arguments) -> None:
        from judge_network import train_judge

        from models.digit_classifier.training import ClassifierTrainer

        self.settings = read_settings(arguments, max_seconds=arguments.seconds)
        self.train, self.test = load_digits(arguments.data_dir)
        trainer = ClassifierTrainer(*self.train, steps=self.settings.classifier.steps)
        self._classifier, self._judge = (
            Features(network, self.train, self.test, arguments.samples)
            for network in (
                trainer.fit(lambda *progress: None),
                train_judge(*self.train, arguments.judge_steps),
            )
        )
        self.floor = self._classifier.floor
        self.real = [part[self._classifier.draws[0]] for part in self.train]
        self.about: dict[str, Any] = {
            "classifier_accuracy": self._classifier.accuracy,
            "floor": self.floor,
            "floors": self._classifier.floors,
            "judge_accuracy": self._judge.accuracy,
            "judge_floors": self._judge.floors,
            "judge_of_real": self._judge.measure(self._judge.extract(self.real[0])[0]),
        }

    def at_a_mark(self, images: np.ndarray, asked: np.ndarray | None) -> dict:
        from metrics.labels import class_shares, conditional_accuracy, confusion_matrix

        features, logits = self._classifier.extract(images)
        judged, judged_logits = self._judge.extract(images)
        shares = class_shares(logits)
        if asked is not None:  # of samples in which each digit is asked for as often
            counts = confusion_matrix(asked, logits)
            shares = (counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)
        return {
            **self._classifier.measure(features),
            "judge": self._judge.measure(judged),
            "judge_accuracy": None if asked is None else conditional_accuracy(asked, judged_logits),
            "lowest_class_share": float(shares.min()),
            "highest_digit_share": float(shares.max()),
            "conditional_accuracy": None if asked is None else conditional_accuracy(asked, logits),
        }

    def at_the_end(self, images: np.ndarray, asked: np.ndarray | None) -> dict:
        from evaluation.deep import classification_accuracy_score, two_sample_accuracy

        score, steps = None, self.settings.classifier.steps
        if asked is not None:
            score = classification_accuracy_score(images, asked, *self.test, seed=0, steps=steps)
        found = two_sample_accuracy(images, self.test[0], seed=0)
        return {
            "two_sample_accuracy": found.accuracy,
            "two_sample_interval": list(found.interval),
            "classification_accuracy_score": score,
        }

    def distance_to(self, digits, images: np.ndarray) -> float:
        """Median distance to the nearest of the digits, over that of the test split."""
        from metrics.distances import nearest_images

        seen = self._classifier.extract(images)[1].argmax(axis=1)
        ours, test = (
            np.median(nearest_images(pictures, labels, *digits).distances)
            for pictures, labels in ((images, seen), self.test)
        )
        return float(ours / test)


def in_own_process(side: str, seed: int, folder: str) -> None:
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--seed", str(seed)]
    if subprocess.run([*command, "--folder", folder], check=False).returncode:
        sys.exit(f"{side} failed")


def compare_trainings(measures: Measures, side: str, seed: int, arguments) -> dict:
    """Trains one side and measures what it drew, which stays in a folder under the output."""
    folder = arguments.output / f"{side}-{seed}"
    folder.mkdir(exist_ok=True)
    in_own_process(side, seed, str(folder))
    run = {"side": side, "seed": seed, **json.loads((folder / "moments.json").read_text())}
    conditional = side == "ours" and measures.settings.train.conditional
    asked = digits_to_ask(arguments, measures.train) if conditional else None
    for number, moment in enumerate(run["moments"]):
        images = np.load(folder / f"{number}.npy")
        moment.update(measures.at_a_mark(images, asked))
        print_moment(side, seed, moment)
    if side == "ours" and arguments.digits:
        count = arguments.digits
        for key, after in (("trained on", 0), ("left out", count)):
            digits = draw_digits(measures.train, count, seed, after=after)
            run[f"distance, {key}"] = measures.distance_to(digits, images)
            ratio = f"{run[f'distance, {key}']:.3f}"
            print(f"  distance to the digits {key}, over the test split's: {ratio}")
    return {**run, **measures.at_the_end(images, asked)}


def print_moment(side: str, seed: int, moment: dict) -> None:
    shares = f"{moment['lowest_class_share']:6.1%} {moment['highest_digit_share']:6.1%}"
    judge = moment["judge"]
    overlaps = " ".join(f"{judge[key]:5.3f}" for key in ("precision", "recall", "coverage"))
    print(
        f"{SIDES[side]:15} {seed:>4} {moment['seconds']:6.1f} {moment['fid']:10.3f} "
        f"{moment['fid_ratio']:9.1f} {shares} {share(moment['conditional_accuracy']):>9} "
        f"{moment['images'] / moment['seconds']:8.0f} {judge['fid_ratio']:9.2f} {overlaps}",
        flush=True,
    )


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def print_ends(rows: list[dict]) -> None:
    print("\nat the end           two-sample accuracy     classification  digits/s  peak")
    for row in rows:
        low, high = row["two_sample_interval"]
        name = f"{SIDES.get(row['side'], row['side'])} {row.get('seed', '')}"
        test = f"{row['two_sample_accuracy']:.3f} [{low:.3f}, {high:.3f}]"
        cells = f"{name:20} {test:23} {share(row['classification_accuracy_score']):>14}"
        if "moments" in row:
            last = row["moments"][-1]
            cells += f"  {last['images'] / last['seconds']:8.0f}  {row['peak_gib']:.2f} GiB"
        print(cells)


def draw_curve(runs: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    colors = dict(zip(SIDES, ("tab:blue", "tab:orange"), strict=True))
    labelled = set()
    for run in runs:
        side, moments = run["side"], run["moments"]
        label = None if side in labelled else SIDES[side]
        labelled.add(side)
        seconds = [moment["seconds"] for moment in moments]
        ratios = [moment["judge"]["fid_ratio"] for moment in moments]
        axes.plot(seconds, ratios, "o-", color=colors[side], label=label, alpha=0.8)
    axes.axhline(1.0, color="black", linestyle="--", label="real training digits")
    axes.set(
        yscale="log", xlabel="seconds of training", ylabel="FID ratio in the independent network"
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def report_loops(folder: str) -> dict:
    """Runs the loops and prints their rounds."""
    in_own_process("plain", 0, folder)
    loops = json.loads(Path(folder, "loop.json").read_text())
    medians = {}
    for name, rounds in loops.items():
        print(f"\nplain loop with {name}: round  ours digits/s  plain digits/s  ratio")
        ratios = [seen["ours"] / seen["plain"] for seen in rounds]
        for number, (seen, ratio) in enumerate(zip(rounds, ratios, strict=True), start=1):
            print(f"{number:>11} {seen['ours']:14.0f} {seen['plain']:15.0f} {ratio:6.2f}")
        medians[name] = statistics.median(ratios)
        print(f"median ratio {medians[name]:.2f}")
    return {"rounds": loops, "median_ratios": medians}


def report_trainings(arguments) -> dict:
    """Trains and measures all sides and seeds; prints tables and draws the curve."""
    measures = Measures(arguments)
    about = measures.about
    print(f"classifier {about['classifier_accuracy']:.2%} right on the test split")
    print(f"floor {measures.floor:.4f}, {arguments.samples} samples")
    overlaps = ", ".join(f"{key} {value:.3f}" for key, value in about["judge_of_real"].items())
    print(f"judge {about['judge_accuracy']:.2%} right; real training digits: {overlaps}\n")
    print(
        "                seed  seconds       FID FID/floor  least   most cond.acc. digits/s",
        end=" ",
    )
    print("judge: FID/floor, precision, recall, coverage")
    runs = [
        compare_trainings(measures, side, seed, arguments)
        for seed in arguments.seeds
        for side in SIDES
        if side in arguments.only
    ]
    real = {"side": "real digits", **measures.at_the_end(*measures.real)}
    print_ends([*runs, real])
    print("\nThe learning rate of ours falls in the second half of --seconds, here of", end=" ")
    print(f"{arguments.seconds:g} s; a shorter time gives better digits than its row above.")
    draw_curve(runs, arguments.output / "curve.png")
    return {**about, "runs": runs, "real": real}


def report(arguments) -> None:
    import tensorflow as tf

    arguments.output.mkdir(parents=True, exist_ok=True)
    results = {
        "tensorflow": tf.__version__,
        "cpus": len(os.sched_getaffinity(0)),
        "gpus": len(tf.config.list_physical_devices("GPU")),
        "preset": arguments.preset,
        "set": arguments.set,
        "seconds": arguments.seconds,
        "samples": arguments.samples,
        "digits": arguments.digits,
        "train": read_settings(arguments, max_seconds=arguments.seconds).train.model_dump(),
    }
    if set(arguments.only) & set(SIDES):
        results |= report_trainings(arguments)
    if "plain" in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            results["loop"] = report_loops(folder)
    (arguments.output / "results.json").write_text(json.dumps(results, indent=2))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data-dir", default=os.environ.get("MNIST_DATA_DIR"))
    add("--seconds", type=float, default=480.0, help="of training, for each")
    add("--at", type=float, nargs="+", default=MARKS, help="times to measure at; the end is one")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--samples", type=int, default=10_000, help="digits to measure")
    add("--judge-steps", type=int, default=2400, help="of the independent network")
    add("--digits", type=int, metavar="N", help="train ours on so many only")
    add("--preset", default="default")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting")
    add("--only", action="append", choices=[*SIDES, "plain"], help="this part; may be repeated")
    add("--rounds", type=int, default=5, help="of the loops")
    add("--round-seconds", type=float, default=10.0)
    add("--output", type=Path, default=Path("outputs/benchmark-training"))
    add("--side", choices=[*SIDES, "plain"], help=argparse.SUPPRESS)
    add("--seed", type=int, default=0, help=argparse.SUPPRESS)
    add("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.data_dir:
        parser.error("name the folder with MNIST's files: --data-dir or MNIST_DATA_DIR")
    if arguments.samples < 100:
        parser.error("--samples must be 100 or more")
    earlier = {mark for mark in arguments.at if 0 < mark < arguments.seconds}
    arguments.at = sorted(earlier | {arguments.seconds})
    arguments.only = arguments.only or [*SIDES, "plain"]
    return arguments


def main() -> None:
    arguments = read_arguments()
    if arguments.side == "plain":
        run_loops(arguments)
    elif arguments.side:
        run_training(arguments, {"ours": train_ours, "dcgan": train_dcgan}[arguments.side])
    else:
        report(arguments)


if __name__ == "__main__":
    main()
