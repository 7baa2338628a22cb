"""What an example holds: the pixels, the label, and scalars in which drift of images shows."""

import numpy as np

IMAGE_FEATURE, LABEL_FEATURE = "image", "label"
INT_FEATURES = ("label", "box_height", "box_width")
FLOAT_FEATURES = ("pixel_mean", "pixel_std", "ink_fraction", "center_x", "center_y")

_SIDE = 28
_INK = 128


def derive_scalars(images: np.ndarray) -> dict[str, np.ndarray]:
    """Computes the scalars of each image.

    Args:
        images: uint8 [n, 28, 28].

    Returns:
        By feature name, arrays [n]: `pixel_mean` and `pixel_std`, float32 in 0..1; `ink_fraction`,
        the share of pixels of 128 or more, float32 in 0..1; `box_height` and `box_width`, int64 in
        0..28, of the smallest box around all pixels that are not 0; `center_x` and `center_y`,
        float32 in 0..27, the center of mass, 13.5 for a blank image.
    """
    pixels = images.reshape(-1, _SIDE, _SIDE).astype(np.float32) / 255.0
    columns, rows = pixels.sum(axis=1), pixels.sum(axis=2)
    mass = columns.sum(axis=1)
    flat = pixels.reshape(-1, _SIDE * _SIDE)
    return {
        "pixel_mean": flat.mean(axis=1),
        "pixel_std": flat.std(axis=1),
        "ink_fraction": (images.reshape(-1, _SIDE * _SIDE) >= _INK).mean(axis=1, dtype=np.float32),
        "box_height": _extent(rows),
        "box_width": _extent(columns),
        "center_x": _center(columns, mass),
        "center_y": _center(rows, mass),
    }


def _extent(profile: np.ndarray) -> np.ndarray:
    inked = profile > 0
    first = inked.argmax(axis=1)
    last = _SIDE - 1 - inked[:, ::-1].argmax(axis=1)
    return np.where(inked.any(axis=1), last - first + 1, 0).astype(np.int64)


def _center(profile: np.ndarray, mass: np.ndarray) -> np.ndarray:
    # Not a product of matrices: its last bit depends on how many rows there are.
    moment = (profile * np.arange(_SIDE, dtype=np.float32)).sum(axis=1)
    blank = mass == 0
    return np.where(blank, (_SIDE - 1) / 2, moment / np.where(blank, 1, mass)).astype(np.float32)
