"""A predict request, whichever API it came by, and why one is not answered."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

DEFAULT_SIGNATURE = "serving_default"
Arrays = dict[str, np.ndarray]


class PredictError(Exception):
    """A predict request is not answered; the message says why."""


class RequestError(PredictError):
    """The request does not fit the model or the limits."""


class NotServedError(PredictError):
    """No version that is in memory is the requested one."""


class BusyError(PredictError):
    """Too many requests are waiting, or the answer was not computed in time."""


@dataclass(frozen=True)
class TensorSpec:
    """An input of a signature.

    Attributes:
      dtype: NumPy's; `object` for strings.
      shape: None for a dimension of any size; the first dimension counts rows.
    """

    dtype: np.dtype
    shape: tuple[int | None, ...]


Signatures = Mapping[str, Mapping[str, TensorSpec]]


@dataclass(frozen=True)
class PredictRequest:
    """A request that fits its signature; every input has `rows` rows."""

    signature: str
    inputs: Arrays
    rows: int


def find_signature(name: str, signatures: Signatures) -> Mapping[str, TensorSpec]:
    """Finds the inputs of a signature.

    Raises:
      RequestError: the model has no such signature.
    """
    if name not in signatures:
        raise RequestError(f'Serving signature name: "{name[:100]}" not found in signature def')
    return signatures[name]


def check_names(given: Mapping[str, object], specs: Mapping[str, TensorSpec]) -> None:
    """Checks that the inputs of a request are those of its signature.

    Raises:
      RequestError: an input is missing or unknown.
    """
    missing = [name for name in specs if name not in given]
    unknown = [name for name in given if name not in specs]
    if missing or unknown:
        found = f"does not have input: {missing[0]}" if missing else f"unknown: {unknown[0]}"
        expected = ", ".join(sorted(specs))
        raise RequestError(f"The request {found[:200]}. Expected {expected}")


def check_rows(rows: int, max_rows: int) -> None:
    """Checks the number of rows before they cost anything.

    Raises:
      RequestError: there are more than `max_rows`.
    """
    if rows > max_rows:
        raise RequestError(f"{rows} rows requested; at most {max_rows} are allowed per request")


def check_shape(name: str, shape: tuple[int, ...], spec: TensorSpec) -> None:
    """Checks the shape of an input.

    Raises:
      RequestError: it is not the signature's.
    """
    fits = len(shape) == len(spec.shape) and all(
        size >= 0 if wanted is None else size == wanted
        for wanted, size in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        expected = [-1 if size is None else size for size in spec.shape]
        raise RequestError(
            f"Input {name}: expected the shape {expected} (-1: any), got {str(list(shape))[:100]}"
        )


def predict_request(signature: str, inputs: Arrays) -> PredictRequest:
    """Makes a request of inputs that fit the signature.

    Raises:
      RequestError: the inputs have unequal numbers of rows.
    """
    rows = {name: len(array) for name, array in inputs.items()}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise RequestError(f"All inputs must have the same number of rows; got {counts}")
    return PredictRequest(signature, inputs, next(iter(rows.values()), 0))
