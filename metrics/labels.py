"""What a classifier sees in generated digits."""

import numpy as np
from scipy.special import log_softmax


def spread_digits(count: int, shares: np.ndarray) -> np.ndarray:
    """Digits 0..9 to ask for, in given shares and evenly mixed, int64 [count].

    A conditional generator is compared with real digits in their own shares, as is usual (the
    labels of Karras et al. 2020a's FID are those of the data): asked for each digit as often, even
    real digits would be a good way from MNIST, of which 11.2 % are ones and 9.0 % fives.

    Args:
      count: how many.
      shares: of the digits, float [10], summing to 1. The first rows have these shares too; where
        all are alike, the digits come in turn.
    """
    quota = count * np.asarray(shares, np.float64)
    counts = np.floor(quota + 1e-9).astype(int)
    counts[np.argsort(counts - quota, kind="stable")[: count - counts.sum()]] += 1
    places = np.concatenate([(np.arange(n) + 0.5) / n for n in counts if n])
    return np.repeat(np.arange(10), counts)[np.argsort(places, kind="stable")]


def agreement(asked: np.ndarray, logits: np.ndarray) -> float:
    """Share, 0..1, of rows in which the classifier sees the digit that was asked for.

    Args:
      asked: int [n], 0..9.
      logits: float [n, 10].
    """
    return float((logits.argmax(axis=1) == asked).mean())


def confusion(asked: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Counts int64 [10, 10]: in row i and column j, asked for i and seen as j; as `agreement`."""
    return np.bincount(10 * asked + logits.argmax(axis=1), minlength=100).reshape(10, 10)


def class_agreement(counts: np.ndarray) -> np.ndarray:
    """`agreement` for each digit, float64 [10], from `confusion`; NaN for one never asked for."""
    with np.errstate(invalid="ignore"):
        return np.diagonal(counts) / counts.sum(axis=1)


def digit_shares(logits: np.ndarray) -> np.ndarray:
    """Share of each digit among what the classifier sees, float64 [10], summing to 1.

    Args:
      logits: float [n, 10].
    """
    return np.bincount(logits.argmax(axis=1), minlength=10) / len(logits)


def share_distance(shares: np.ndarray, others: np.ndarray) -> float:
    """Total variation distance of two distributions [10]: the share to move, 0..1."""
    return float(np.abs(shares - others).sum() / 2)


def classifier_score(logits: np.ndarray) -> float:
    """The Inception Score (Salimans et al. 2016) with the digits' own classifier.

    exp of the mean divergence of p(digit | picture) from p(digit): 1 when all pictures look alike
    to the classifier, 10 when it is sure of each and all digits are as frequent.

    Args:
      logits: float [n, 10].
    """
    log_each = log_softmax(logits.astype(np.float64), axis=1)
    each = np.exp(log_each)
    mean = each.mean(axis=0)
    entropy = -np.sum(mean * np.log(mean, where=mean > 0, out=np.zeros_like(mean)))
    return float(np.exp(entropy + (each * log_each).sum(axis=1).mean()))
