"""Loads a SavedModel as TensorFlow Serving does, and checks the serving contract.

The contract is `docs/serving-contract.md`. A bare interpreter runs this file as a script: it needs
TensorFlow and TensorFlow Serving's messages, and nothing of this project. It prints one line of
JSON: what it measured, or `error`.
"""

import json
import os
import re
import statistics
import struct
import sys
import time
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

_WARM_UP = os.path.join("assets.extra", "tf_serving_warmup_requests")
_SEEDED = {"seed": "int64 [N]", "digit": "int64 [N]"}
_SIGNATURES = {
    "serving_default": (_SEEDED, {"image_bytes": "string [N]", "digit": "int64 [N]"}),
    "generate_pixels": (_SEEDED, {"image": "uint8 [N, 28, 28, 1]", "digit": "int64 [N]"}),
    "from_latent": (
        {"latent": "float32 [N, latent_dim]", "digit": "int64 [N]"},
        {"image": "float32 [N, 28, 28, 1]", "digit": "int64 [N]"},
    ),
}
_XMP = b"XML:com.adobe.xmp"
_MARK = b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_BATCHES = (0, 1, 7, 256)
_SEEDS = (0, 1, -1, 2**63 - 1, -(2**63))
_CALLS = 20
# The responses beside the warm-up requests may come from another CPU, whose kernels now and then
# round a pixel to the next gray level.
_GRAY_LEVELS = 1.01
_SHOWN = 5

Rows = dict[str, np.ndarray]


class ContractError(Exception):
    """The SavedModel does not load, or does not keep to the serving contract."""


class CallError(ContractError):
    """A signature raised an error.

    Attributes:
      error: as TensorFlow raised it; a ValueError for inputs of another shape.
    """

    def __init__(self, signature: str, error: Exception) -> None:
        super().__init__(f"{signature} raises {type(error).__name__}: {_first_line(error)}")
        self.error = error


class Model:
    """A SavedModel in a session, without the Python objects that it was exported from.

    `tf.compat.v1.saved_model.load` does what `tensorflow/cc/saved_model/loader.cc` does, which
    TensorFlow Serving and TensorFlow's other languages load with: it imports the graph tagged
    `serve`, runs its restore operation, feeds the assets and runs the init operation.
    """

    def __init__(self, model_dir: str) -> None:
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        try:
            meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], model_dir)
        except (OSError, RuntimeError, ValueError, tf.errors.OpError) as error:
            raise ContractError(f"the SavedModel does not load: {_first_line(error)}") from None
        self._signatures = meta_graph.signature_def
        for name in _SIGNATURES:
            _require(name in self._signatures, f"the signature {name} is missing")
            self._require_declared(name)
            self._require_restored(name)
        latent = self._signatures["from_latent"].inputs["latent"]
        self.latent_dim = latent.tensor_shape.dim[1].size
        self.conditional = self.pixels([0], [-1])["digit"].tolist() != [-1]

    def pixels(self, seeds: list[int], digits: list[int]) -> Rows:
        """Runs `generate_pixels`."""
        return self.call("generate_pixels", seed=seeds, digit=digits)

    def call(self, name: str, **inputs: Any) -> Rows:
        """Runs a signature; a CallError when TensorFlow raises one."""
        signature = self._signatures[name]
        feeds = {signature.inputs[key].name: value for key, value in inputs.items()}
        try:
            return self._session.run(
                {key: info.name for key, info in signature.outputs.items()}, feeds
            )
        except (ValueError, tf.errors.OpError) as error:
            raise CallError(name, error) from None

    def _require_declared(self, name: str) -> None:
        """Names, dtypes and shapes are the contract's."""
        signature = self._signatures[name]
        for declared, expected in zip(
            (signature.inputs, signature.outputs), _SIGNATURES[name], strict=True
        ):
            found = {key: _describe(info) for key, info in declared.items()}
            is_right = found.keys() == expected.keys() and all(
                re.fullmatch(re.escape(expected[key]).replace("latent_dim", r"\d+"), found[key])
                for key in expected
            )
            _require(is_right, f"{name} declares {found}, expected {expected}")

    def _require_restored(self, name: str) -> None:
        """Every variable that the signature reads has a value, now that the model is loaded."""
        graph = self._session.graph
        outputs = self._signatures[name].outputs.values()
        handles = _variables([graph.get_tensor_by_name(info.name).op for info in outputs])
        with graph.as_default():
            checks = [tf.raw_ops.VarIsInitializedOp(resource=op.outputs[0]) for op in handles]
        are_set = self._session.run(checks)
        lost = sorted(op.name for op, is_set in zip(handles, are_set, strict=True) if not is_set)
        others = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        _require(
            not lost,
            f"{name} reads {len(lost)} of {len(handles)} variables that nothing restores: "
            f"{', '.join(lost[:_SHOWN])}{others}.\nExpected one copy of each variable: export with "
            "keras.export.ExportArchive, as models/gan/export.py does",
        )


def check(model_dir: str) -> dict[str, float]:
    """Checks everything that the contract promises.

    Args:
      model_dir: holds `saved_model.pb`, and the warm-up requests with their responses.

    Returns:
      `load_seconds`, and `latency_ms`, the median of calls of `serving_default` for one row.

    Raises:
      ContractError: when the model does not load or breaks the contract.
    """
    started = time.monotonic()
    model = Model(model_dir)
    loaded = time.monotonic() - started
    digits = list(range(-1, 10)) if model.conditional else [-1]
    _check_warm_up(model, os.path.join(model_dir, _WARM_UP))
    for rows in _BATCHES:
        _check_batch(model, rows, digits)
    _check_rows_stand_alone(model, digits)
    _check_refusals(model)
    _check_large_latents(model)
    _check_python_gives_the_same(model, model_dir, digits)
    return {"load_seconds": loaded, "latency_ms": _latency(model)}


def _check_warm_up(model: Model, path: str) -> None:
    """Each request gives the response that the generator gave in the process that exported it."""
    called = set()
    for log in _read_warm_up(path):
        name = log.request.model_spec.signature_name
        found = model.call(name, **_arrays(log.request.inputs))
        for key, expected in _arrays(log.response.outputs).items():
            allowed = 0 if key == "digit" else _GRAY_LEVELS
            apart = np.abs(_numbers(found[key]) - _numbers(expected)).max()
            _require(
                bool(apart <= allowed),
                f"{name} gives another {key} than the generator gave before it was exported: up to "
                f"{apart:g} apart, expected at most {allowed:g} ({_WARM_UP})",
            )
            called.add(name)
    missing = sorted(_SIGNATURES.keys() - called)
    _require(not missing, f"{_WARM_UP} has no request with a response for {', '.join(missing)}")


def _check_batch(model: Model, rows: int, digits: list[int]) -> None:
    """A request of so many rows gives as many, and each PNG holds the pixels of its row."""
    inputs = _inputs(model, rows, digits)
    outputs = {name: model.call(name, **inputs[name]) for name in _SIGNATURES}
    for name in _SIGNATURES:
        _require_rows(name, outputs[name], inputs[name]["digit"].tolist(), model.conditional)
    pixels = outputs["generate_pixels"]["image"]
    encoded, labels = (outputs["serving_default"][key] for key in ("image_bytes", "digit"))
    for row, png in enumerate(_numbers(encoded)):
        same = np.array_equal(png, pixels[row])
        _require(same, f"serving_default's PNG of row {row} differs from generate_pixels")
        seed, digit = inputs["serving_default"]["seed"][row], labels[row]
        _require_marked(encoded[row], f"serving_default's PNG of row {row}", seed, digit)
    _require_in_range(outputs["from_latent"]["image"])


def _check_rows_stand_alone(model: Model, digits: list[int]) -> None:
    """A row's image follows from its seed and digit, whatever other rows there are."""
    rows = [(seed, digit) for seed in _SEEDS for digit in digits]
    seeds, labels = map(list, zip(*rows, strict=True))
    together = model.pixels(seeds, labels)["image"]
    backwards = model.pixels(seeds[::-1], labels[::-1])["image"][::-1]
    for row, (seed, digit) in enumerate(rows):
        alone = model.pixels([seed], [digit])["image"][0]
        same = np.array_equal(together[row], backwards[row]) and np.array_equal(
            together[row], alone
        )
        _require(same, f"generate_pixels' image of seed {seed}, digit {digit} depends on its batch")


def _check_refusals(model: Model) -> None:
    """A row that breaks the contract is refused, and the message names row and value."""
    latent = np.zeros([2, model.latent_dim], np.float32)
    for digit in (-2, 10, 2**40) if model.conditional else (-2, 0, 10):
        for name, inputs in (
            ("generate_pixels", {"seed": [1, 2]}),
            ("serving_default", {"seed": [1, 2]}),
            ("from_latent", {"latent": latent}),
        ):
            _require_refused(model, name, f"digit {digit}", digit, digit=[-1, digit], **inputs)
    for value in (np.nan, np.inf, -np.inf):
        latent[1] = value
        _require_refused(
            model, "from_latent", f"latent {value}", value, latent=latent, digit=[-1, -1]
        )


def _check_large_latents(model: Model) -> None:
    """Pixels stay in their range, or the row is refused."""
    for value in (1e6, 1e20, 1e38):
        latent = np.full([1, model.latent_dim], value, np.float32)
        try:
            image = model.call("from_latent", latent=latent, digit=[-1])["image"]
        except CallError as refusal:
            if not isinstance(refusal.error, tf.errors.InvalidArgumentError):
                raise
        else:
            _require_in_range(image)


def _require_refused(model: Model, name: str, what: str, value: float, **inputs: Any) -> None:
    try:
        model.call(name, **inputs)
    except CallError as refusal:
        message = str(refusal.error)
        is_named = "row [1]" in message and f"[{value}]" in message
        is_right = isinstance(refusal.error, tf.errors.InvalidArgumentError) and is_named
        _require(is_right, f"{name}: {what} in row 1 is refused without being named: {refusal}")
    else:
        raise ContractError(f"{name}: {what} is not refused")


def _check_python_gives_the_same(model: Model, model_dir: str, digits: list[int]) -> None:
    """`tf.saved_model.load`, with which this project's own server loads, gives the same bytes."""
    loaded = tf.saved_model.load(model_dir)
    for name, inputs in _inputs(model, len(digits), digits).items():
        tensors = {key: tf.constant(value) for key, value in inputs.items()}
        by_python = loaded.signatures[name](**tensors)
        for key, value in model.call(name, **inputs).items():
            _require(
                np.array_equal(value, by_python[key].numpy()),
                f"{name} gives another {key} in a session than by tf.saved_model.load",
            )


def _latency(model: Model) -> float:
    times = []
    for seed in range(_CALLS):
        started = time.perf_counter()
        model.call("serving_default", seed=[seed], digit=[-1])
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def _inputs(model: Model, rows: int, digits: list[int]) -> dict[str, Rows]:
    """So many rows for each signature."""
    seeds = np.array([_SEEDS[row] if row < len(_SEEDS) else row for row in range(rows)], np.int64)
    labels = np.resize(np.array(digits, np.int64), rows)
    latent = np.random.default_rng(0).normal(size=(rows, model.latent_dim)).astype(np.float32)
    seeded = {"seed": seeds, "digit": labels}
    return {
        "serving_default": seeded,
        "generate_pixels": seeded,
        "from_latent": {"latent": latent, "digit": labels},
    }


def _require_rows(name: str, outputs: Rows, labels: list[int], conditional: bool) -> None:
    for key, value in outputs.items():
        same = len(value) == len(labels)
        _require(same, f"{name} gives {len(value)} rows of {key} for {len(labels)}")
    for row, (found, label) in enumerate(zip(outputs["digit"].tolist(), labels, strict=True)):
        is_right = found == label if label >= 0 or not conditional else 0 <= found <= 9
        _require(is_right, f"{name} gives digit {found} in row {row}, expected {label}")


def _require_in_range(image: np.ndarray) -> None:
    inside = bool((np.abs(image) <= 1.0).all())  # False for NaN
    _require(inside, "from_latent leaves the range -1 to 1")


def _variables(ops: list[tf.Operation]) -> list[tf.Operation]:
    """The handles of all variables from which the operations' values follow."""
    seen = set(ops)
    waiting = list(ops)
    while waiting:
        op = waiting.pop()
        before = {tensor.op for tensor in op.inputs} | set(op.control_inputs)
        waiting += before - seen
        seen |= before
    return [op for op in seen if op.type == "VarHandleOp"]


def _read_warm_up(path: str) -> Iterable[Any]:
    """The PredictLogs of a file of warm-up requests; none where there is no such file."""
    records = tf.data.TFRecordDataset([path] if tf.io.gfile.exists(path) else [])
    for record in records.as_numpy_iterator():
        yield prediction_log_pb2.PredictionLog.FromString(record).predict_log


def _arrays(protos: Any) -> Rows:
    return {key: tf.make_ndarray(proto) for key, proto in protos.items()}


def _numbers(values: np.ndarray) -> np.ndarray:
    """Gray levels 0..255 of PNGs, of pixels, and of floats in [-1, 1]; digits as they are."""
    if values.dtype == object:
        for row, png in enumerate(values):
            _require(png.startswith(b"\x89PNG"), f"serving_default gives no PNG in row {row}")
        return np.array([tf.io.decode_png(png).numpy() for png in values], int)
    return (values + 1.0) * 127.5 if values.dtype == np.float32 else values.astype(int)


def _require_marked(png: bytes, name: str, seed: int, digit: int) -> None:
    """The file has IPTC's mark of a generated image, and the seed and the digit that draw it."""
    texts, start = {}, 8
    while start < len(png):
        length, kind = struct.unpack(">I4s", png[start : start + 8])
        content, end = png[start + 4 : start + 8 + length], start + 12 + length
        is_intact = png[end - 4 : end] == struct.pack(">I", zlib.crc32(content))
        _require(is_intact, f"{name} has a chunk {kind.decode('latin-1')} with a wrong CRC")
        if kind in (b"iTXt", b"tEXt"):
            keyword, _, text = content[4:].partition(b"\0")
            texts[keyword] = text
        start = end
    _require(_MARK in texts.get(_XMP, b""), f"{name} has no mark of a generated image")
    named = [texts.get(b"seed", b"none"), texts.get(b"digit", b"none")]
    _require(
        named == [b"%020d" % seed, b"%02d" % digit],
        f"{name} names another seed or digit: {named}",
    )


def _describe(info: Any) -> str:
    sizes = ["N" if dim.size < 0 else str(dim.size) for dim in info.tensor_shape.dim]
    return f"{tf.dtypes.as_dtype(info.dtype).name} [{', '.join(sizes)}]"


def _first_line(error: Exception) -> str:
    """The first line of a message, less the heading that a session gives it."""
    lines = str(error).removeprefix("Graph execution error:").strip().splitlines()
    return lines[0] if lines else "no message"


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ContractError(otherwise)


if __name__ == "__main__":
    try:
        print(json.dumps(check(sys.argv[1])))
    except ContractError as broken:
        print(json.dumps({"error": str(broken)}))
        sys.exit(1)
