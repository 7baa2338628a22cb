"""Time, memory and steadiness of the evaluation, on what a finished run has left behind.

    .venv/bin/python benchmarks/evaluation.py [outputs] [--trials 100]

First all metrics of candidate and baseline, both sampled from the run's generator with different
seeds.
Then trials of the decision by the Frechet distance, each with fresh samples of both: a candidate
that is equal to the baseline, and one that is a fifth worse since it is blurred a little.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage
from tfx.utils import path_utils

sys.path.insert(0, str(Path(__file__).parents[1]))


from evaluation.baseline import Baseline
from evaluation.decision import check_baseline
from evaluation.evaluate import RESAMPLES, SEED, evaluate
from evaluation.image_statistics import RealDigits
from evaluation.sampling import Generator
from evaluation.settings import EvaluationSettings, Tolerances
from metrics.frechet import Gaussian, fit_gaussian, gaussian_distance
from metrics.labels import labels_in_shares
from metrics.resampling import Estimate, half_samples, interval_of
from mnist.records import load_split
from models.digit_classifier.features import FeatureExtractor

OTHER_SEED = 10**6
POOL = 100_000
WORSE = 1.2


def newest(outputs: Path, node: str, output: str) -> Path:
    return max((outputs / "artifacts" / node / output).iterdir(), key=lambda path: int(path.name))


def read_real(outputs: Path) -> RealDigits:
    folder = newest(outputs, "MnistExampleGen", "examples")
    return RealDigits(
        *load_split([str(folder / "Split-train" / "*")]),
        *load_split([str(folder / "Split-eval" / "*")]),
    )


def show_evaluation(
    generator: Generator, real: RealDigits, extractor: FeatureExtractor, count: int
) -> None:
    settings = EvaluationSettings()
    started = time.perf_counter()
    labels = labels_in_shares(count, real.class_shares)
    candidate, served = (generator.sample(labels, seed) for seed in (SEED, OTHER_SEED))
    sampled = time.perf_counter() - started
    found = evaluate(candidate, Baseline("measured", "", samples=served), real, extractor, settings)
    total = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"sampled in {sampled:.1f} s, all in {total:.1f} s, peak {peak:.2f} GiB of the process")
    print(f"{'metric':30}{'value':>9}  {'95 %':>20}{'floor':>9}  {'difference, 95 %':>22}")
    for name, metric in found.document["metrics"].items():
        low, high = metric["interval"]
        gap_low, gap_high = metric["difference"]["interval"]
        print(
            f"{name:30}{metric['value']:9.4f}  {low:9.4f}..{high:9.4f}{metric['floor']:9.4f}"
            f"  {gap_low:+10.4f}..{gap_high:+10.4f}"
        )
    print("blessed" if found.document["verdict"]["blessed"] else found.document["verdict"])


def soften(images: np.ndarray, amount: float) -> np.ndarray:
    blurred = ndimage.gaussian_filter(images.astype(np.float32), (0, 0.7, 0.7, 0))
    return np.round((1 - amount) * images + amount * blurred).astype(np.uint8)


def worse_features(
    images: np.ndarray, extractor: FeatureExtractor, real: Gaussian, target: float
) -> np.ndarray:
    """Of all images, blurred until the distance of the first 20,000 is the target."""
    low, high = 0.0, 1.0
    for _ in range(8):
        amount = (low + high) / 2
        features, _ = extractor(soften(images[:20_000], amount))
        too_good = gaussian_distance(fit_gaussian(features), real) < target
        low, high = (amount, high) if too_good else (low, amount)
    print(f"a fifth worse when blurred by {amount:.3f}")
    return extractor(soften(images, amount))[0]


def is_rejected(
    candidate: np.ndarray, baseline: np.ndarray, labels: np.ndarray, real: Gaussian, seed: int
) -> bool:
    values, draws = [], []
    halves = half_samples(labels, RESAMPLES, seed)
    for features in (candidate, baseline):
        values.append(gaussian_distance(fit_gaussian(features), real))
        draws.append(
            np.array([gaussian_distance(fit_gaussian(features[rows]), real) for rows in halves])
        )
    gap = values[0] - values[1]
    difference = {"fid": Estimate(gap, interval_of(gap, draws[0] - draws[1]))}
    checks = check_baseline(difference, {"fid": Estimate(values[1], None)}, Tolerances())
    return any(not check.passed for check in checks)


def show_trials(
    generator: Generator, real: RealDigits, extractor: FeatureExtractor, count: int, trials: int
) -> None:
    pool = generator.sample(labels_in_shares(POOL, real.class_shares), 2 * OTHER_SEED)
    gaussian = fit_gaussian(extractor(real.eval)[0])
    features, _ = extractor(pool.images)
    distance = gaussian_distance(fit_gaussian(features[:20_000]), gaussian)
    candidates = {
        "equal": features,
        "a fifth worse": worse_features(pool.images, extractor, gaussian, WORSE * distance),
    }
    for kind, of_candidate in candidates.items():
        rejected = 0
        for trial in range(trials):
            first, second = two_sets(pool.strata, count, trial)
            rejected += is_rejected(
                of_candidate[first], features[second], pool.strata[first], gaussian, trial
            )
        print(f"{kind}: {rejected} of {trials} rejected by FID", flush=True)


def two_sets(strata: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two sets that share none, each with as many of each digit, in the same order."""
    random = np.random.default_rng(seed)
    digits = np.unique(strata)
    share = count // len(digits)
    chosen = [random.permutation(np.flatnonzero(strata == digit)) for digit in digits]
    first, second = (
        np.concatenate([rows[start : start + share] for rows in chosen]) for start in (0, share)
    )
    return first, second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "outputs", nargs="?", type=Path, default="outputs", help="folder of a finished run"
    )
    parser.add_argument("--trials", type=int, default=0, help="of the decision, of each kind")
    arguments = parser.parse_args()
    if not (arguments.outputs / "artifacts").is_dir():
        parser.error(f"no run in {arguments.outputs}; run the pipeline first")
    model_dirs = [
        path_utils.serving_model_path(str(newest(arguments.outputs, node, "model")))
        for node in ("Trainer", "DigitClassifier")
    ]
    generator, extractor = Generator(model_dirs[0]), FeatureExtractor(model_dirs[1])
    real = read_real(arguments.outputs)
    settings = EvaluationSettings()
    count = max(settings.samples, settings.fid_samples)
    show_evaluation(generator, real, extractor, count)
    if arguments.trials:
        show_trials(generator, real, extractor, count, arguments.trials)


if __name__ == "__main__":
    main()
