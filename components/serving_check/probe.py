"""Loads a SavedModel and holds it to the serving contract, `docs/serving-contract.md`.

Run as a script by a bare interpreter: it needs TensorFlow and nothing of this project. Prints what
it measured as one line of JSON.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

_BATCHES = (0, 1, 7, 256)
_SEEDS = (0, 1, -1, 2**63 - 1, -(2**63))
_CALLS = 20


class _Model:
    """The signatures, called by position of their inputs."""

    def __init__(self, model_dir: str) -> None:
        self._signatures = tf.saved_model.load(model_dir).signatures
        for name in ("serving_default", "generate_pixels", "from_latent"):
            _require(name in self._signatures, f"the signature {name} is missing")
        drawn = self.pixels([0], [-1])["digit"].numpy().tolist()
        self.conditional = drawn != [-1]
        inputs = self._signatures["from_latent"].structured_input_signature[1]
        self.latent_dim = inputs["latent"].shape[1]

    def pixels(self, seeds: list[int], digits: list[int]) -> dict[str, tf.Tensor]:
        return self._call("generate_pixels", seed=_int64(seeds), digit=_int64(digits))

    def pictures(self, seeds: list[int], digits: list[int]) -> dict[str, tf.Tensor]:
        return self._call("serving_default", seed=_int64(seeds), digit=_int64(digits))

    def from_latent(self, latent: tf.Tensor, digits: list[int]) -> dict[str, tf.Tensor]:
        return self._call("from_latent", latent=latent, digit=_int64(digits))

    def _call(self, name: str, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._signatures[name](**inputs)


def check(model_dir: str) -> dict[str, float]:
    """Tries everything that the contract promises.

    Returns:
      `load_seconds`, and `latency_ms`, the median of calls of `serving_default` for one row.

    Raises:
      ValueError: or TensorFlow's own error, when the model breaks the contract.
    """
    started = time.monotonic()
    model = _Model(model_dir)
    loaded = time.monotonic() - started
    digits = list(range(-1, 10)) if model.conditional else [-1]
    for rows in _BATCHES:
        _check_batch(model, rows, digits)
    _check_rows_stand_alone(model, digits)
    _check_refusals(model)
    return {"load_seconds": loaded, "latency_ms": _latency(model)}


def _check_batch(model: _Model, rows: int, digits: list[int]) -> None:
    seeds = [_SEEDS[row] if row < len(_SEEDS) else row for row in range(rows)]
    asked = [digits[row % len(digits)] for row in range(rows)]
    drawn = model.pixels(seeds, asked)
    _require_image(drawn["image"], rows, tf.uint8, "generate_pixels")
    _require_digits(drawn["digit"], asked, model.conditional, "generate_pixels")
    served = model.pictures(seeds, asked)
    _require_digits(served["digit"], asked, model.conditional, "serving_default")
    for row, encoded in enumerate(served["image_bytes"].numpy()):
        _require(encoded.startswith(b"\x89PNG"), f"serving_default gives no PNG in row {row}")
        same = tf.reduce_all(tf.io.decode_png(encoded) == drawn["image"][row])
        _require(bool(same), f"serving_default's PNG of row {row} differs from generate_pixels")
    latent = tf.random.stateless_normal([rows, model.latent_dim], [1, 2])
    floats = model.from_latent(latent, asked)
    _require_image(floats["image"], rows, tf.float32, "from_latent")
    _require_digits(floats["digit"], asked, model.conditional, "from_latent")
    inside = tf.reduce_all(tf.abs(floats["image"]) <= 1.0)  # False for NaN
    _require(bool(inside), "from_latent leaves the range -1 to 1")


def _check_rows_stand_alone(model: _Model, digits: list[int]) -> None:
    """A row's picture follows from its seed and digit, whatever stands beside it."""
    seeds = [seed for seed in _SEEDS for _ in digits]
    asked = digits * len(_SEEDS)
    together = model.pixels(seeds, asked)["image"]
    backwards = model.pixels(seeds[::-1], asked[::-1])["image"][::-1]
    alone = [
        model.pixels([seed], [digit])["image"][0] for seed, digit in zip(seeds, asked, strict=True)
    ]
    for others in (backwards, alone):
        for seed, digit, one, two in zip(seeds, asked, together, others, strict=True):
            _require(
                bool(tf.reduce_all(one == two)),
                f"the picture of seed {seed}, digit {digit} depends on its batch",
            )


def _check_refusals(model: _Model) -> None:
    """A digit that there is not is refused, and the message names row and value."""
    latent = tf.zeros([2, model.latent_dim])
    for wrong in (-2, 10, 2**40) if model.conditional else (-2, 0, 10):
        for call, first in (
            (model.pixels, [1, 2]),
            (model.pictures, [1, 2]),
            (model.from_latent, latent),
        ):
            _require_refused(call, first, wrong)


def _require_refused(call: Callable[..., Any], first: Any, digit: int) -> None:
    try:
        call(first, [-1, digit])
    except tf.errors.InvalidArgumentError as error:
        named = "row [1]" in error.message and f"[{digit}]" in error.message
        _require(named, f"digit {digit} in row 1 is refused without being named: {error.message}")
    else:
        _require(False, f"digit {digit} is not refused")


def _latency(model: _Model) -> float:
    times = []
    for seed in range(_CALLS):
        started = time.perf_counter()
        model.pictures([seed], [-1])
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def _require_image(image: tf.Tensor, rows: int, dtype: tf.DType, name: str) -> None:
    _require(
        image.shape == (rows, 28, 28, 1) and image.dtype == dtype,
        f"{name} gives {image.dtype.name} {image.shape}, not {dtype.name} ({rows}, 28, 28, 1)",
    )


def _require_digits(drawn: tf.Tensor, asked: list[int], conditional: bool, name: str) -> None:
    found = drawn.numpy().tolist()
    fits = drawn.dtype == tf.int64 and len(found) == len(asked)
    _require(fits, f"{name} gives digits {drawn.dtype.name} {drawn.shape} for {len(asked)} rows")
    for row, (got, wanted) in enumerate(zip(found, asked, strict=True)):
        right = got == wanted if wanted >= 0 or not conditional else 0 <= got <= 9
        _require(right, f"{name} says digit {got} in row {row}, asked for {wanted}")


def _int64(values: list[int]) -> tf.Tensor:
    return tf.constant(values, tf.int64, [len(values)])


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


if __name__ == "__main__":
    print(json.dumps(check(sys.argv[1])))
