"""What a classifier sees in generated digits."""

import numpy as np


def agreement(asked: np.ndarray, logits: np.ndarray) -> float:
    """Share, 0..1, of rows in which the classifier sees the digit that was asked for.

    Args:
      asked: int [n], 0..9.
      logits: float [n, 10].
    """
    return float((logits.argmax(axis=1) == asked).mean())


def digit_shares(logits: np.ndarray) -> np.ndarray:
    """Share of each digit among what the classifier sees, float64 [10], summing to 1.

    Args:
      logits: float [n, 10].
    """
    return np.bincount(logits.argmax(axis=1), minlength=10) / len(logits)
