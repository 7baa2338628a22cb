"""How much the pictures of one digit differ among themselves."""

import numpy as np


def class_spread(features: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Total variance of the features within each digit, float64 [10]; 0 for fewer than two rows.

    Args:
      features: [n, d].
      digits: int [n], 0..9, what each row shows.
    """
    spread = np.zeros(10)
    for digit in range(10):
        own = features[digits == digit]
        if len(own) > 1:
            spread[digit] = own.var(axis=0, ddof=1, dtype=np.float64).sum()
    return spread


def lowest_relative_spread(
    features: np.ndarray, digits: np.ndarray, reference: np.ndarray
) -> float:
    """The spread of the digit that varies least, as a multiple of its spread in real pictures.

    0 when there is one picture of some digit, or none. Digits whose real pictures do not vary are
    left out.

    Args:
      features: [n, d].
      digits: int [n], 0..9.
      reference: float [10], `class_spread` of real pictures.
    """
    known = reference > 0
    if not known.any():
        return 0.0
    return float((class_spread(features, digits)[known] / reference[known]).min())
