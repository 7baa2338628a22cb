"""Judging a generator in training by digits that it is not trained on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from metrics.frechet import fit_gaussian, gaussian_distance
from metrics.labels import class_shares, conditional_accuracy

# Images uint8 [n, 28, 28, 1] to features float32 [n, d] and logits float32 [n, 10].
Extractor = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

_FEWEST_OF_A_DIGIT = 0.01
_LEAST_SPREAD = 0.25


@dataclass(frozen=True)
class Judgement:
    """What the held-out digits say of a generator.

    Attributes:
      fid: Frechet distance to the held-out digits in the classifier's features.
      spread: total variance of the features over that of the held-out digits.
      shares: of each digit 0..9 among what the classifier sees, each 0..1.
      agreement: share of pictures in which the classifier sees the digit that was asked for.
      relative: `fid` over the total variance of the held-out digits, which does not depend on the
        scale of the features, so that figures by two classifiers are near each other.
    """

    fid: float
    spread: float
    shares: tuple[float, ...]
    agreement: float
    relative: float

    @property
    def collapse(self) -> str | None:
        """How the generator has collapsed; None where it has not."""
        missing = [digit for digit in range(10) if self.shares[digit] < _FEWEST_OF_A_DIGIT]
        if missing:
            return f"it does not draw {', '.join(map(str, missing))}"
        if self.spread < _LEAST_SPREAD:
            return f"its digits vary {self.spread:.0%} as much as real ones"
        return None


class HeldOut:
    """Held-out digits as the classifier sees them."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, extract: Extractor) -> None:
        """Runs the classifier on images uint8 [n, 28, 28, 1], n of 2 or more.

        Attributes:
          labels: int [n]; for each of them a generator draws one to compare.
        """
        self._extract = extract
        self.labels = labels
        features, _ = extract(images)
        self._reference = fit_gaussian(features)

    def judge(self, images: np.ndarray, asked: np.ndarray) -> Judgement:
        """Compares generated images uint8 [n, 28, 28, 1], drawn for digits int [n]."""
        features, logits = self._extract(images)
        found = fit_gaussian(features)
        fid = gaussian_distance(found, self._reference)
        variance = max(float(np.trace(self._reference.covariance)), 1e-12)
        return Judgement(
            fid=fid,
            spread=float(np.trace(found.covariance)) / variance,
            shares=tuple(class_shares(logits).tolist()),
            agreement=conditional_accuracy(asked, logits),
            relative=fid / variance,
        )


def split_held_out(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows int [m] to train on and rows int [count - m] held out, each in rising order."""
    shuffled = np.random.default_rng(seed).permutation(count)
    held_out = max(round(count * share), 2)
    return np.sort(shuffled[held_out:]), np.sort(shuffled[:held_out])


class Patience:
    """Keeps the best of a series of FIDs, and says when it no longer gets better."""

    def __init__(self, limit: int | None, fids: Sequence[float] = ()) -> None:
        """Takes up a series where it stood.

        Args:
          limit: evaluations without improvement before the end; None for no end.
          fids: so far.
        """
        self._limit = limit
        self.fids = list(fids)

    def is_best(self, fid: float) -> bool:
        """Adds a FID; whether it is the lowest so far."""
        self.fids.append(fid)
        return fid <= min(self.fids)

    @property
    def exhausted(self) -> bool:
        """Whether the last `limit` evaluations brought nothing better."""
        if self._limit is None or not self.fids:
            return False
        return len(self.fids) - 1 - int(np.argmin(self.fids)) >= self._limit
