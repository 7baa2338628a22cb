"""A served generator, called by TensorFlow Serving's REST or gRPC API.

Each request has a connection of its own, so that a load balancer in front of several servers
spreads the requests over all.
"""

import abc
import time
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import grpc
import httpx
import numpy as np
import tensorflow as tf
from pydantic import Base64Bytes, BaseModel, ValidationError
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from errors import UserError

ROWS = 64  # per request
_MOST_BYTES = 4 << 20  # of an answer, twenty times what ROWS images take
_SHOWN = 200  # characters of an answer
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


class NoAnswerError(UserError):
    """The endpoint does not answer, or not as TensorFlow Serving does."""

    exit_status = 1


class Drawn(NamedTuple):
    """What an endpoint answers.

    Attributes:
      files: n PNG files, or whatever the endpoint gives in their place.
      digits: n labels, as the endpoint gave them.
    """

    files: list[bytes]
    digits: list[int]


class Endpoint(abc.ABC):
    """A model of a server.

    Attributes:
      url: as the user named it.
    """

    def __init__(self, url: str, seconds: float) -> None:
        """Connects to nobody yet.

        Args:
          url: for messages.
          seconds: how long a request may take.
        """
        self.url = url
        self._seconds = seconds

    @abc.abstractmethod
    def version(self) -> int:
        """The version in service, by the model's metadata.

        Raises:
          NoAnswerError: there is no such answer.
        """

    def draw(self, digits: np.ndarray, seed: int) -> Drawn:
        """Requests an image of each digit, with consecutive seeds, in requests of `ROWS`.

        Args:
          digits: int64 [n], -1 to 9.
          seed: of the first image.

        Raises:
          NoAnswerError: a request has no answer with as many rows.
        """
        drawn = Drawn([], [])
        for start in range(0, len(digits), ROWS):
            rows = digits[start : start + ROWS].tolist()
            files, labels = self._predict([seed + start + row for row in range(len(rows))], rows)
            if (len(files), len(labels)) != (len(rows), len(rows)):
                raise self._error(
                    f"{len(rows)} images were requested; the answer has {len(files)} images and "
                    f"{len(labels)} digits"
                )
            drawn.files.extend(files)
            drawn.digits.extend(labels)
        return drawn

    @abc.abstractmethod
    def _predict(self, seeds: list[int], digits: list[int]) -> Drawn:
        """One request."""

    def _error(self, what: str) -> NoAnswerError:
        fix = "check the address, and the server's log"
        return NoAnswerError(" ".join(what.split()), self.url, fix)


def open_endpoint(url: str, model: str, seconds: float = 30.0) -> Endpoint:
    """Reads an address; nothing is sent yet.

    Args:
      url: `http(s)://HOST:PORT`, optionally with `/v1/models/NAME`, or `grpc://HOST:PORT`,
        optionally with `/NAME`.
      model: name of the model, where the address has none.
      seconds: how long a request may take.

    Raises:
      UserError: the address is none of these.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    path = parts.path.strip("/") if host else ""
    if host and parts.scheme in ("http", "https"):
        named = path if "v1/models/" in path else f"{path}/v1/models/{quote(model, safe='')}"
        address = parts._replace(path=f"/{named.lstrip('/')}", query="", fragment="").geturl()
        return RestEndpoint(url, address, seconds)
    if host and parts.scheme == "grpc":
        return GrpcEndpoint(url, parts.netloc, path or model, seconds)
    raise UserError(
        "expected http(s)://HOST:8501, with or without /v1/models/NAME, or grpc://HOST:8500, with "
        "or without /NAME",
        url,
    )


class _Image(BaseModel):
    b64: Base64Bytes


class _Outputs(BaseModel):
    image_bytes: list[_Image]
    digit: list[int]


class _Prediction(BaseModel):
    outputs: _Outputs


class _ModelSpec(BaseModel):
    version: int


class _Metadata(BaseModel):
    model_spec: _ModelSpec


_Answer = TypeVar("_Answer", bound=BaseModel)


class RestEndpoint(Endpoint):
    """A model by the REST API."""

    def __init__(self, url: str, address: str, seconds: float) -> None:
        """Takes the address of the model, `.../v1/models/NAME`."""
        super().__init__(url, seconds)
        self._address = address

    def version(self) -> int:
        """See `Endpoint`."""
        return self._call(_Metadata, "GET", "/metadata").model_spec.version

    def _predict(self, seeds: list[int], digits: list[int]) -> Drawn:
        body = {"signature_name": "serving_default", "inputs": {"seed": seeds, "digit": digits}}
        outputs = self._call(_Prediction, "POST", ":predict", json=body).outputs
        return Drawn([image.b64 for image in outputs.image_bytes], outputs.digit)

    def _call(self, kind: type[_Answer], method: str, path: str, **content: Any) -> _Answer:
        status, body = self._exchange(method, self._address + path, **content)
        shown = body[:_SHOWN].decode(errors="replace")
        if status != httpx.codes.OK:
            raise self._error(f"HTTP status {status}: {shown}")
        try:
            return kind.model_validate_json(body)
        except ValidationError:
            raise self._error(f"the answer is not TensorFlow Serving's: {shown}") from None

    def _exchange(self, method: str, url: str, **content: Any) -> tuple[int, bytes]:
        """Sends a request; returns the status and the body of the answer."""
        ends, body = time.monotonic() + self._seconds, b""
        try:
            with httpx.stream(method, url, timeout=self._seconds, **content) as response:
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > _MOST_BYTES:
                        raise self._error(f"an answer has more than {_MOST_BYTES >> 20} MiB")
                    if time.monotonic() > ends:
                        raise self._error(f"no whole answer within {self._seconds:g} s")
                return response.status_code, body
        except httpx.TimeoutException:
            raise self._error(f"no answer within {self._seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._error(f"{type(error).__name__}: {error}") from None


class GrpcEndpoint(Endpoint):
    """A model by the gRPC API."""

    def __init__(self, url: str, address: str, model: str, seconds: float) -> None:
        """Takes host and port, and the name of the model."""
        super().__init__(url, seconds)
        self._address, self._model = address, model

    def version(self) -> int:
        """See `Endpoint`."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        return self._call("GetModelMetadata", request).model_spec.version.value

    def _predict(self, seeds: list[int], digits: list[int]) -> Drawn:
        request = predict_pb2.PredictRequest()
        for name, values in (("seed", seeds), ("digit", digits)):
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values, tf.int64))
        outputs = self._call("Predict", request).outputs
        try:
            labels = [int(label) for label in tf.make_ndarray(outputs["digit"])]
        except (TypeError, ValueError):
            raise self._error("the answer has no digit [n]") from None
        return Drawn(list(outputs["image_bytes"].string_val), labels)

    def _call(self, method: str, request: Any) -> Any:
        request.model_spec.name = self._model
        with grpc.insecure_channel(self._address, _OWN_CONNECTION) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            try:
                return getattr(stub, method)(request, timeout=self._seconds)
            except grpc.RpcError as error:
                details = (error.details() or "")[:_SHOWN]
                raise self._error(f"{error.code().name}: {details}") from None
