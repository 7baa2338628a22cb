"""The scalars of an image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from mnist.features import INT_FEATURES, derive_scalars

BLANK = np.zeros((28, 28), np.uint8)
FULL = np.full((28, 28), 255, np.uint8)


@st.composite
def drawn_images(draw: st.DrawFn) -> np.ndarray:
    """Ink of any strength in any box of a black image, or nothing at all."""
    top, left = draw(st.integers(0, 27)), draw(st.integers(0, 27))
    shape = draw(st.integers(1, 28 - top)), draw(st.integers(1, 28 - left))
    ink = draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 255), fill=st.just(0)))
    image = BLANK.copy()
    image[top : top + shape[0], left : left + shape[1]] = ink
    return image


def by_hand(image: np.ndarray) -> dict[str, float]:
    pixels = [[int(value) for value in row] for row in image]
    flat = [value / 255 for row in pixels for value in row]
    mean = sum(flat) / 784
    inked = [(y, x) for y in range(28) for x in range(28) if pixels[y][x]]
    rows, columns = [y for y, _ in inked], [x for _, x in inked]
    center = ndimage.center_of_mass(image.astype(np.float64)) if inked else (13.5, 13.5)
    return {
        "pixel_mean": mean,
        "pixel_std": (sum((value - mean) ** 2 for value in flat) / 784) ** 0.5,
        "ink_fraction": sum(value >= 128 for row in pixels for value in row) / 784,
        "box_height": max(rows) - min(rows) + 1 if inked else 0,
        "box_width": max(columns) - min(columns) + 1 if inked else 0,
        "center_y": center[0],
        "center_x": center[1],
    }


def assert_as_by_hand(image: np.ndarray) -> None:
    derived = derive_scalars(image[np.newaxis])
    expected = by_hand(image)
    assert derived.keys() == expected.keys()
    for name, value in expected.items():
        assert derived[name].shape == (1,)
        assert derived[name].dtype == (np.int64 if name in INT_FEATURES else np.float32)
        assert derived[name][0] == pytest.approx(value, rel=1e-5, abs=1e-6), name


@settings(max_examples=60, deadline=None)
@given(drawn_images())
def test_scalars_of_any_image(image: np.ndarray) -> None:
    assert_as_by_hand(image)


def test_scalars_of_real_digits(digits: tuple[np.ndarray, np.ndarray]) -> None:
    for image in digits[0][:50]:
        assert_as_by_hand(image)


@pytest.mark.parametrize(("image", "level", "side"), [(BLANK, 0, 0), (FULL, 1, 28)])
def test_blank_and_full_images(image: np.ndarray, level: float, side: int) -> None:
    derived = {name: values.item() for name, values in derive_scalars(image[np.newaxis]).items()}
    assert derived == {
        "pixel_mean": level,
        "pixel_std": 0,
        "ink_fraction": level,
        "box_height": side,
        "box_width": side,
        "center_x": 13.5,
        "center_y": 13.5,
    }


@pytest.mark.parametrize(("value", "fraction"), [(127, 0.0), (128, 1 / 784)])
def test_ink_starts_at_128(value: int, fraction: float) -> None:
    image = BLANK.copy()
    image[3, 20] = value
    derived = derive_scalars(image[np.newaxis])
    assert derived["ink_fraction"][0] == pytest.approx(fraction)
    assert derived["box_height"][0] == derived["box_width"][0] == 1
    assert (derived["center_y"][0], derived["center_x"][0]) == (3, 20)


def test_no_images() -> None:
    assert {len(values) for values in derive_scalars(BLANK[np.newaxis][:0]).values()} == {0}
