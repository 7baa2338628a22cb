"""The bodies of `:predict` requests and answers, as TensorFlow Serving's REST API has them.

Source: https://www.tensorflow.org/tfx/serving/api_rest, and TensorFlow Serving's
`util/json_tensor.cc`. Rows: `instances` in, `predictions` out. Columns: `inputs` in, `outputs` out.

What a body may cost is bounded before it is parsed, by the number of its structural characters,
and each value is checked before an array is made. `parse_request` and `encode_slice` hold no state,
so they run in threads.
"""

import base64
import binascii
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from serving.requests import (
    DEFAULT_SIGNATURE,
    Arrays,
    PredictRequest,
    RequestError,
    Signatures,
    TensorSpec,
    check_names,
    check_rows,
    check_shape,
    find_signature,
    predict_request,
)

_BYTES_SUFFIX = "_bytes"
_JSON_TYPES: dict[str, set[type]] = {"i": {int}, "u": {int}, "f": {int, float}, "b": {bool}}
_STRUCTURAL = (b"[", b"{", b",", b":")
_SCANNED_BYTES = 64 << 10


@dataclass(frozen=True)
class JsonRequest:
    """A request and the form of its answer: rows (`predictions`) or columns (`outputs`)."""

    request: PredictRequest
    by_row: bool


def parse_request(body: bytes, signatures: Signatures, max_rows: int) -> JsonRequest:
    """Parses the body of a `:predict` request.

    Args:
      body: JSON.
      signatures: the inputs of each signature, by name.
      max_rows: the number of rows that is allowed.

    Raises:
      RequestError: the body is no JSON, or does not fit the signature or the limit.
    """
    _check_cost(body, signatures, max_rows)
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
    specs = find_signature(signature, signatures)
    by_row = "instances" in content
    if by_row == ("inputs" in content):
        raise RequestError("Expected one of the keys 'inputs' and 'instances' in the request body")
    if by_row:
        columns: Mapping[str, Any] = _columns(content["instances"], specs, max_rows)
    else:
        columns = _named(content["inputs"], specs)
    inputs = {name: _array(name, columns[name], spec, max_rows) for name, spec in specs.items()}
    return JsonRequest(predict_request(signature, inputs), by_row)


def _check_cost(body: bytes, signatures: Signatures, max_rows: int) -> None:
    """Refuses a body of more lists, objects and values than the largest request has."""
    per_row = max(map(_structure_of_row, signatures.values()), default=0)
    limit = 64 + max_rows * per_row
    found = 0
    for start in range(0, len(body), _SCANNED_BYTES):
        piece = body[start : start + _SCANNED_BYTES]
        found += sum(map(piece.count, _STRUCTURAL))
        if found > limit:
            raise RequestError(
                f"The request body has more values than {max_rows} rows of any signature, which "
                "are allowed per request"
            )


def _structure_of_row(specs: Mapping[str, TensorSpec]) -> int:
    """How many structural characters a row has at most."""
    return 2 + sum(map(_structure_of_value, specs.values()))


def _structure_of_value(spec: TensorSpec) -> int:
    """Those of an input's name, of its lists, and of its numbers or `{"b64": ...}` with a comma.

    A dimension of any size counts as one.
    """
    lists, cells = 0, 1
    for size in spec.shape[1:]:
        lists += cells
        cells *= size or 1
    return 4 + lists + cells * (3 if spec.dtype.kind == "O" else 1)


def _columns(
    instances: Any, specs: Mapping[str, TensorSpec], max_rows: int
) -> dict[str, list[Any]]:
    if not isinstance(instances, list) or not instances:
        raise RequestError("Invalid value for 'instances': expected a list that is not empty")
    check_rows(len(instances), max_rows)
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


def _named(value: Any, specs: Mapping[str, TensorSpec]) -> Mapping[str, Any]:
    """The value of each input; where there is one input alone, its value needs no name."""
    if not isinstance(value, dict) or _is_base64(value):
        if len(specs) == 1:
            return dict.fromkeys(specs, value)
        raise RequestError(f"Expected an object with the inputs {', '.join(sorted(specs))}")
    check_names(value, specs)
    return value


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _array(name: str, value: Any, spec: TensorSpec, max_rows: int) -> np.ndarray:
    shape = _shape(value)
    if shape:
        check_rows(shape[0], max_rows)
    if 0 in shape:
        shape = (0, *(size or 0 for size in spec.shape[1:]))
    check_shape(name, shape, spec)
    cells = value
    for depth, size in enumerate(shape[1:], start=1):
        if not all(isinstance(part, list) and len(part) == size for part in cells):
            raise RequestError(
                f"Input {name}: encountered lists of different lengths in dimension {depth}"
            )
        cells = list(itertools.chain.from_iterable(cells))
    flat = _strings(name, cells) if spec.dtype.kind == "O" else _numbers(name, cells, spec.dtype)
    return flat.reshape(shape)


def _shape(value: Any) -> tuple[int, ...]:
    """The shape that the first element at each depth has."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _numbers(name: str, cells: list[Any], dtype: np.dtype) -> np.ndarray:
    types = set(map(type, cells))
    if list in types:
        raise RequestError(f"Input {name}: encountered lists of different lengths")
    if wrong := types - _JSON_TYPES[dtype.kind]:
        seen = ", ".join(sorted(each.__name__ for each in wrong))
        raise RequestError(f"Input {name}: JSON value of type {seen} is not of type {dtype.name}")
    with np.errstate(over="ignore"):
        try:
            # Integers by way of objects: NumPy wraps what is too large for a short type.
            array = np.array(cells, dtype if dtype.kind == "f" else object).astype(dtype)
        except OverflowError:
            raise RequestError(
                f"Input {name}: a value is out of the range of {dtype.name}"
            ) from None
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestError(f"Input {name}: a value is out of the range of {dtype.name}")
    return array


def _strings(name: str, cells: list[Any]) -> np.ndarray:
    array = np.empty(len(cells), object)
    array[:] = [_string(name, cell) for cell in cells]
    return array


def _string(name: str, cell: Any) -> bytes:
    if isinstance(cell, str):
        return cell.encode()
    if _is_base64(cell) and isinstance(cell["b64"], str):
        try:
            return base64.b64decode(cell["b64"], validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(f"Input {name}: unable to base64 decode the value") from None
    raise RequestError(f"Input {name}: expected a string or an object with the key b64")


def encode_slice(outputs: Arrays, *, by_row: bool) -> dict[str, bytes]:
    """Writes some rows of an answer as JSON, without the brackets around them.

    Args:
      outputs: an array per name, each with one entry per row; strings as objects of bytes.
      by_row: as rows, else as columns.

    Returns:
      The elements of the list `predictions` under the name "", or those of each column under its
      name; empty for no rows.
    """
    columns = {name: _column(name, array) for name, array in outputs.items()}
    if by_row and len(columns) > 1:
        rows = zip(*columns.values(), strict=True)
        columns = {"": [dict(zip(columns, row, strict=True)) for row in rows]}
    elif by_row:
        columns = dict.fromkeys([""], next(iter(columns.values())))
    return {
        name: orjson.dumps(column, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        for name, column in columns.items()
    }


def join_slices(slices: Sequence[Mapping[str, bytes]], *, by_row: bool) -> bytes:
    """Joins what `encode_slice` wrote of an answer's rows, in their order, into its body.

    A single output goes without its name.
    """
    lists = {
        name: b"[" + b",".join(part[name] for part in slices if part[name]) + b"]"
        for name in slices[0]
    }
    if by_row:
        return b'{"predictions":' + lists[""] + b"}"
    if len(lists) == 1:
        [answer] = lists.values()
    else:
        members = (orjson.dumps(name) + b":" + values for name, values in lists.items())
        answer = b"{" + b",".join(members) + b"}"
    return b'{"outputs":' + answer + b"}"


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
