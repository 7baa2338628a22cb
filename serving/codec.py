"""TensorFlow Serving's JSON, to and from arrays.

Written after its documentation, https://www.tensorflow.org/tfx/serving/api_rest, and its
`util/json_tensor.cc`. Rows: `instances` in, `predictions` out. Columns: `inputs` in, `outputs` out.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

DEFAULT_SIGNATURE = "serving_default"
_BYTES_SUFFIX = "_bytes"
_JSON_TYPES: dict[str, set[type]] = {"i": {int}, "u": {int}, "f": {int, float}, "b": {bool}}


class RequestError(ValueError):
    """The request cannot be answered as it is; the message says what is wrong with it."""


@dataclass(frozen=True)
class TensorSpec:
    """An input of a signature: its NumPy dtype, `object` for strings, and its shape."""

    dtype: np.dtype
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class PredictRequest:
    """A body that was understood; each of `inputs` has as many rows."""

    signature: str
    inputs: dict[str, np.ndarray]
    rows: int
    by_row: bool


def parse_request(
    body: bytes, signatures: Mapping[str, Mapping[str, TensorSpec]], max_rows: int
) -> PredictRequest:
    """Reads the body of a `:predict` request.

    Args:
      body: JSON.
      signatures: the inputs of each, by name.
      max_rows: so many are allowed.

    Raises:
      RequestError: when it is not what the signature takes.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"JSON Parse error: {error}") from None
    if not isinstance(content, dict):
        raise RequestError("Request body must be a JSON object")
    signature = content.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(signature, str):
        raise RequestError("'signature_name' key must be a string value.")
    signature = signature or DEFAULT_SIGNATURE
    if signature not in signatures:
        raise RequestError(
            f'Serving signature name: "{signature[:100]}" not found in signature def'
        )
    specs = signatures[signature]
    by_row = "instances" in content
    if by_row == ("inputs" in content):
        raise RequestError("Expected one of the keys 'inputs' and 'instances' in the request body")
    columns = _columns(content["instances"], specs) if by_row else _named(content["inputs"], specs)
    inputs = {name: _array(name, columns[name], spec) for name, spec in specs.items()}
    rows = {name: len(array) for name, array in inputs.items()}
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise RequestError(f"All inputs must have the same number of rows; got {told}")
    count = next(iter(rows.values()), 0)
    if count > max_rows:
        raise RequestError(f"{count} rows asked for; at most {max_rows} are allowed per request")
    return PredictRequest(signature, inputs, count, by_row)


def _columns(instances: Any, specs: Mapping[str, TensorSpec]) -> dict[str, list[Any]]:
    if not isinstance(instances, list) or not instances:
        raise RequestError("Invalid value for 'instances': expected a list that is not empty")
    columns: dict[str, list[Any]] = {name: [] for name in specs}
    for number, row in enumerate(instances):
        try:
            for name, value in _named(row, specs).items():
                columns[name].append(value)
        except RequestError as error:
            raise RequestError(
                f"Failed to process element: {number} of 'instances' list. {error}"
            ) from None
    return columns


def _named(value: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """The value of each input; where there is one input alone, its value needs no name."""
    if not isinstance(value, dict) or _is_base64(value):
        if len(specs) == 1:
            return dict.fromkeys(specs, value)
        raise RequestError(f"Expected an object with the inputs {_some(specs)}")
    missing = [name for name in specs if name not in value]
    unknown = [name for name in value if name not in specs]
    if missing or unknown:
        found = f"does not have input: {missing[0]}" if missing else f"unknown: {unknown[0]}"
        raise RequestError(f"JSON object: {found[:200]}. Expected {_some(specs)}")
    return value


def _some(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(sorted(specs))


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _array(name: str, value: Any, spec: TensorSpec) -> np.ndarray:
    try:
        cells = np.array(value, dtype=object)
    except ValueError:
        raise RequestError(f"Input {name}: encountered lists of different lengths") from None
    kinds = set(map(type, cells.ravel().tolist()))
    if list in kinds:
        raise RequestError(f"Input {name}: encountered lists of different lengths")
    if spec.dtype.kind == "O":
        array = _strings(name, cells)
    else:
        array = _numbers(name, cells, kinds, spec.dtype)
    if array.size == 0:
        array = array.reshape([0, *(size or 0 for size in spec.shape[1:])])
    fits = len(array.shape) == len(spec.shape) and all(
        wanted is None or wanted == size
        for wanted, size in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        expected = [-1 if size is None else size for size in spec.shape]
        raise RequestError(
            f"Input {name}: expected the shape {expected} (-1: any), got {list(array.shape)}"
        )
    return array


def _numbers(name: str, cells: np.ndarray, kinds: set[type], dtype: np.dtype) -> np.ndarray:
    wrong = kinds - _JSON_TYPES[dtype.kind]
    if wrong:
        seen = ", ".join(sorted(kind.__name__ for kind in wrong))
        raise RequestError(f"Input {name}: JSON value of type {seen} is not of type {dtype.name}")
    with np.errstate(over="ignore"):
        try:
            array = cells.astype(dtype)
        except OverflowError:
            raise RequestError(
                f"Input {name}: a value is out of the range of {dtype.name}"
            ) from None
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestError(f"Input {name}: a value is out of the range of {dtype.name}")
    return array


def _strings(name: str, cells: np.ndarray) -> np.ndarray:
    flat = [_string(name, cell) for cell in cells.ravel().tolist()]
    array = np.empty(len(flat), object)
    array[:] = flat
    return array.reshape(cells.shape)


def _string(name: str, cell: Any) -> bytes:
    if isinstance(cell, str):
        return cell.encode()
    if _is_base64(cell) and isinstance(cell["b64"], str):
        try:
            return base64.b64decode(cell["b64"], validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(f"Input {name}: unable to base64 decode the value") from None
    raise RequestError(f"Input {name}: expected a string or an object with the key b64")


def render_outputs(outputs: Mapping[str, np.ndarray], *, by_row: bool) -> bytes:
    """Writes the answer as JSON.

    Args:
      outputs: an array per name, each with a row per row of the request; strings as objects.
      by_row: as `predictions`, else as `outputs`. One output alone goes without its name.
    """
    columns = {name: _column(name, array) for name, array in outputs.items()}
    if len(columns) == 1:
        [answer] = columns.values()
    elif by_row:
        names = list(columns)
        answer = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    else:
        answer = columns
    return orjson.dumps(
        {"predictions" if by_row else "outputs": answer}, option=orjson.OPT_SERIALIZE_NUMPY
    )


def _column(name: str, array: np.ndarray) -> Any:
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array)
    return _encoded(name, array.tolist())


def _encoded(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_encoded(name, inner) for inner in value]
    if name.endswith(_BYTES_SUFFIX):
        return {"b64": base64.b64encode(value).decode()}
    return value.decode(errors="replace")
