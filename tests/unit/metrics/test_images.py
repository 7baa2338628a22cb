"""Metrics of pixel intensities, by hand."""

import numpy as np
import pytest

from metrics.images import require_images, total_intensity, total_variation


def test_intensity_and_variation_by_hand() -> None:
    images = np.zeros((2, 28, 28, 1), np.uint8)
    images[0, 3, 4] = 200
    images[1, 0, 0] = 255
    assert total_intensity(images).tolist() == [200, 255]
    assert total_variation(images).tolist() == [4 * 200, 2 * 255], "four neighbors, two in a corner"


def test_intensity_does_not_overflow() -> None:
    white = np.full((1, 28, 28, 1), 255, np.uint8)
    assert total_intensity(white).tolist() == [784 * 255]
    assert total_variation(white).tolist() == [0]


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (np.zeros((5, 28, 28, 1), np.float32), "float32"),
        (np.zeros((5, 28, 28, 1), np.int64), "int64"),
        (np.zeros((5, 32, 32, 1), np.uint8), r"\[5, 32, 32, 1\]"),
        (np.zeros((5, 28, 28, 3), np.uint8), r"\[5, 28, 28, 3\]"),
        (np.zeros((5, 28, 28), np.uint8), r"\[5, 28, 28\]"),
        (np.zeros((0, 28, 28, 1), np.uint8), "n >= 1"),
    ],
)
def test_images_of_another_kind_are_refused(images: np.ndarray, found: str) -> None:
    with pytest.raises(ValueError, match=f"these: expected uint8 .*{found}"):
        require_images("these", images)
