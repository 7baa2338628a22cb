"""Loads a SavedModel and calls each signature of the serving contract.

Run as a script by a bare interpreter: it needs TensorFlow and nothing of this project.
"""

import sys

import tensorflow as tf

_ROWS = (0, 1, 7)


def check(model_dir: str) -> None:
    """Raises ValueError, or TensorFlow's own error, when the model breaks the contract."""
    signatures = tf.saved_model.load(model_dir).signatures
    for name in ("serving_default", "generate_pixels", "from_latent"):
        _require(name in signatures, f"the signature {name} is missing")
    for rows in _ROWS:
        seed = tf.range(rows, dtype=tf.int64)
        any_digit = tf.fill([rows], tf.constant(-1, tf.int64))
        pixels = signatures["generate_pixels"](seed=seed, digit=any_digit)["image"]
        _require_image(pixels, rows, tf.uint8, "generate_pixels")
        encoded = signatures["serving_default"](seed=seed, digit=any_digit)["image_bytes"]
        decoded = [tf.io.decode_png(row, 1).numpy().tolist() for row in encoded]
        _require(decoded == pixels.numpy().tolist(), "serving_default's PNGs differ from pixels")
        latent_dim = signatures["from_latent"].structured_input_signature[1]["latent"].shape[1]
        latent = tf.zeros([rows, latent_dim])
        image = signatures["from_latent"](latent=latent, digit=any_digit)["image"]
        _require_image(image, rows, tf.float32, "from_latent")
        _require(bool(tf.reduce_all(tf.abs(image) <= 1.0)), "from_latent leaves the range -1 to 1")


def _require_image(image: tf.Tensor, rows: int, dtype: tf.DType, name: str) -> None:
    _require(
        image.shape == (rows, 28, 28, 1) and image.dtype == dtype,
        f"{name} gives {image.dtype.name} {image.shape}, not {dtype.name} ({rows}, 28, 28, 1)",
    )


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


if __name__ == "__main__":
    check(sys.argv[1])
