"""What an example holds: the pixels, the label, and scalars that show drift in pictures."""

from collections.abc import Iterator

import numpy as np

IMAGE_FEATURE, LABEL_FEATURE = "image", "label"
INT_FEATURES = ("label", "box_height", "box_width")
FLOAT_FEATURES = ("pixel_mean", "pixel_std", "ink_fraction", "center_x", "center_y")

_SIDE = 28
_INK = 128


def derive_scalars(images: np.ndarray) -> dict[str, np.ndarray]:
    """Computes each picture's scalars.

    Args:
      images: uint8 [n, 28, 28].

    Returns:
      By feature name, arrays [n]: `pixel_mean` and `pixel_std`, float32 in 0..1; `ink_fraction`,
      the share of pixels of 128 or more, float32 in 0..1; `box_height` and `box_width`, int64 in
      0..28, of the smallest box around all pixels that are not 0; `center_x` and `center_y`,
      float32 in 0..27, the centre of mass, 13.5 for a blank picture.
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
        "center_x": _centre(columns, mass),
        "center_y": _centre(rows, mass),
    }


def _extent(profile: np.ndarray) -> np.ndarray:
    inked = profile > 0
    first = inked.argmax(axis=1)
    last = _SIDE - 1 - inked[:, ::-1].argmax(axis=1)
    return np.where(inked.any(axis=1), last - first + 1, 0).astype(np.int64)


def _centre(profile: np.ndarray, mass: np.ndarray) -> np.ndarray:
    # Not a product of matrices: its last bit depends on how many rows there are.
    moment = (profile * np.arange(_SIDE, dtype=np.float32)).sum(axis=1)
    blank = mass == 0
    return np.where(blank, (_SIDE - 1) / 2, moment / np.where(blank, 1, mass)).astype(np.float32)


def serialize_examples(images: np.ndarray, labels: np.ndarray) -> Iterator[bytes]:
    """Serializes digits as `tf.Example`, the same digits always to the same bytes.

    Args:
      images: uint8 [n, 28, 28].
      labels: uint8 [n].

    Yields:
      One serialized example a digit.
    """
    # Only here: the scalars alone need no TensorFlow, which takes seconds to load.
    import tensorflow as tf

    scalars = {"label": labels, **derive_scalars(images)}
    columns = {name: values.tolist() for name, values in scalars.items()}
    example = tf.train.Example()
    features = example.features.feature
    for row, image in enumerate(images):
        features[IMAGE_FEATURE].bytes_list.value[:] = [image.tobytes()]
        for name in INT_FEATURES:
            features[name].int64_list.value[:] = [columns[name][row]]
        for name in FLOAT_FEATURES:
            features[name].float_list.value[:] = [columns[name][row]]
        yield example.SerializeToString(deterministic=True)
