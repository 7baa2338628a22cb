"""All figures of one generator against one set of real digits."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.metrics.frechet import frechet_distance, frechet_interval
from models.metrics.labels import agreement, digit_shares

# uint8 [n, 28, 28, 1] -> features float32 [n, d], logits float32 [n, 10].
Extractor = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Samples:
    """Generated digits.

    Attributes:
      images: uint8 [n, 28, 28, 1].
      asked: int [n], the digits asked for; None when the generator is unconditional.
    """

    images: np.ndarray
    asked: np.ndarray | None


@dataclass(frozen=True)
class RealDigits:
    """Both splits, uint8 [n, 28, 28, 1]; the eval split is the reference."""

    train: np.ndarray
    eval: np.ndarray


def measure(
    samples: Samples, real: RealDigits, extractor: Extractor, *, resamples: int, seed: int
) -> dict[str, float]:
    """Measures samples in the classifier's feature space.

    Args:
      samples: what the generator drew.
      real: the data.
      extractor: of features and logits.
      resamples: draws behind an interval.
      seed: of all random choices.

    Returns:
      `fid` against the eval split with its 95 % interval `fid_low`..`fid_high`; `fid_floor`, that
      of as many real training digits, and `fid_ratio`, the one over the other, which does not
      depend on the scale of the classifier's features; `lowest_digit_share` and
      `highest_digit_share`; and, when digits were asked for, `agreement`.
    """
    reference, _ = extractor(real.eval)
    features, logits = extractor(samples.images)
    interval = frechet_interval(features, reference, resamples=resamples, seed=seed)
    rows = np.random.default_rng(seed).permutation(len(real.train))[: len(samples.images)]
    floor_features, _ = extractor(real.train[np.sort(rows)])
    shares = digit_shares(logits)
    fid, floor = (frechet_distance(x, reference) for x in (features, floor_features))
    figures = {
        "fid": fid,
        "fid_low": interval.low,
        "fid_high": interval.high,
        "fid_floor": floor,
        "fid_ratio": fid / max(floor, 1e-12),
        "lowest_digit_share": float(shares.min()),
        "highest_digit_share": float(shares.max()),
    }
    if samples.asked is not None:
        figures["agreement"] = agreement(samples.asked, logits)
    return figures
