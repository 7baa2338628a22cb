"""Metrics of labels: what a generator was conditioned on, and what a classifier predicts."""

import numpy as np
import scipy


def labels_in_shares(count: int, shares: np.ndarray) -> np.ndarray:
    """Returns labels in given shares, evenly mixed.

    The labels of a conditional generator's FID are usually those of the data (Karras et al. 2020a,
    arXiv:2006.06676): with equal shares even real images would be far from MNIST, of which 11.2 %
    are ones and 9.0 % fives.

    Args:
      count: number of labels.
      shares: float [10], summing to 1. Every prefix of the result has these shares, up to rounding;
        equal shares give 0, 1, ..., 9, 0, 1, and so on.

    Returns:
      int64 [count], 0 to 9.
    """
    quota = count * np.asarray(shares, np.float64)
    counts = np.floor(quota + 1e-9).astype(int)
    counts[np.argsort(counts - quota, kind="stable")[: count - counts.sum()]] += 1
    positions = np.concatenate([(np.arange(n) + 0.5) / n for n in counts if n])
    return np.repeat(np.arange(10), counts)[np.argsort(positions, kind="stable")]


def conditional_accuracy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Returns the share of images whose predicted label is the label they were generated for.

    Args:
      labels: int [n], 0 to 9.
      logits: float [n, 10].

    Returns:
      0 to 1.
    """
    return float((logits.argmax(axis=1) == labels).mean())


def confusion_matrix(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Returns the counts of each label (row) and predicted label (column).

    Args:
      labels: int [n], 0 to 9.
      logits: float [n, 10].

    Returns:
      int64 [10, 10].
    """
    return np.bincount(10 * labels + logits.argmax(axis=1), minlength=100).reshape(10, 10)


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Returns the conditional accuracy of each label.

    Args:
      confusion: int [10, 10], a `confusion_matrix`.

    Returns:
      float64 [10], 0 to 1; NaN for a label without images.
    """
    with np.errstate(invalid="ignore"):
        return np.diagonal(confusion) / confusion.sum(axis=1)


def class_shares(logits: np.ndarray) -> np.ndarray:
    """Returns the share of each predicted label.

    Args:
      logits: float [n, 10].

    Returns:
      float64 [10], summing to 1.
    """
    return np.bincount(logits.argmax(axis=1), minlength=10) / len(logits)


def total_variation_distance(shares: np.ndarray, others: np.ndarray) -> float:
    """Returns half of the L1 distance of two distributions over the same classes.

    Args:
      shares: float [k], summing to 1.
      others: float [k], summing to 1.

    Returns:
      0 to 1.
    """
    return float(np.abs(shares - others).sum() / 2)


def classifier_score(logits: np.ndarray) -> float:
    """Returns the Inception Score (Salimans et al. 2016), computed with a digit classifier.

    The score is exp of the mean Kullback-Leibler divergence of p(label | image) from p(label).

    Args:
      logits: float [n, 10].

    Returns:
      1 (all predictions are alike) to 10 (each is certain, and all labels are as frequent).
    """
    each = scipy.special.softmax(logits.astype(np.float64), axis=1)
    divergence = scipy.stats.entropy(each, each.mean(axis=0, keepdims=True), axis=1)
    return float(np.exp(divergence.mean()))
