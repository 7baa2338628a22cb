"""Whether labels fit the images: whether the nearest class mean says the same."""

import numpy as np

from components.data_gate.drift import CLASSES
from components.data_gate.statistics import Digits, class_means

_FOLDS = 5


def agrees(digits: Digits, means: np.ndarray | None) -> np.ndarray:
    """Whether each digit's label is the label of the nearest class mean, bool [n].

    Args:
      digits: any number.
      means: of other data, float32 [10, 784]. None: of the digits themselves, of which each fifth
        is compared with the means of the others.
    """
    if means is not None:
        return nearest(digits.images, means) == digits.labels
    fold = np.arange(len(digits)) % _FOLDS
    found = np.zeros(len(digits), bool)
    for each in range(min(_FOLDS, len(digits))):
        mine, others = fold == each, fold != each
        rest = Digits(digits.images[others], {"label": digits.labels[others]})
        found[mine] = nearest(digits.images[mine], class_means(rest)) == digits.labels[mine]
    return found


def by_class(digits: Digits, agreed: np.ndarray) -> dict[int, tuple[float, int]]:
    """For each class that there is, the share of its digits that agree, and how many they are."""
    found = {}
    for digit in range(CLASSES):
        rows = agreed[digits.labels == digit]
        if len(rows):
            found[digit] = (float(rows.mean()), len(rows))
    return found


def nearest(images: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The class whose mean is nearest, int64 [n]; a class without a mean is never.

    Args:
      images: uint8 [n, 784].
      means: float32 [10, 784], NaN where there is none.
    """
    known = np.flatnonzero(~np.isnan(means[:, 0]))
    if not len(known):
        return np.full(len(images), -1)
    centers = means[known]
    # |x - m|^2 without |x|^2, which is the same for every class.
    scores = (centers**2).sum(axis=1) - 2 * images.astype(np.float32) @ centers.T
    return known[scores.argmin(axis=1)]
