"""The gRPC side: TensorFlow Serving's PredictionService and ModelService.

The messages are those of the package `tensorflow-serving-api`; importing this module imports
TensorFlow. Methods that a generator has no use for (Classify, Regress, MultiInference,
SessionRun, HandleReloadConfigRequest) answer UNIMPLEMENTED.
"""

import asyncio
import functools
from collections.abc import Iterable
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
)

from serving.loading import LoadedVersion
from serving.predicting import Predictor
from serving.requests import (
    DEFAULT_SIGNATURE,
    Arrays,
    BusyError,
    NotServedError,
    PredictError,
    PredictRequest,
    RequestError,
    TensorSpec,
    check_names,
    check_rows,
    check_shape,
    find_signature,
    predict_request,
)

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
_CODES = {
    RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    NotServedError: grpc.StatusCode.NOT_FOUND,
    BusyError: grpc.StatusCode.UNAVAILABLE,
}
_MAX_UNREAD_BYTES = 128 << 20  # of answers that clients have not taken
_SMALL_ANSWER_BYTES = 64 << 10  # for which there is always room
_State = get_model_status_pb2.ModelVersionStatus.State


def add_services(server: grpc.aio.Server, predictor: Predictor) -> None:
    """Adds both services to a server that has not started.

    Args:
      server: of `grpc.aio`.
      predictor: what answers predict requests; the REST API's too.
    """
    predictions, models = _PredictionService(predictor), _ModelService(predictor)
    methods: dict[str, dict[str, tuple[Any, Any]]] = {
        PREDICTION_SERVICE: {
            "Predict": (predictions.predict, predict_pb2.PredictRequest),
            "GetModelMetadata": (
                predictions.get_model_metadata,
                get_model_metadata_pb2.GetModelMetadataRequest,
            ),
        },
        MODEL_SERVICE: {
            "GetModelStatus": (
                models.get_model_status,
                get_model_status_pb2.GetModelStatusRequest,
            )
        },
    }
    for service, named in methods.items():
        handlers = {name: _handler(*method) for name, method in named.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


def _handler(answer: Any, request_type: Any) -> grpc.RpcMethodHandler:
    """Answers a call, or refuses bytes that are no such message, which grpcio has no code for."""

    async def parse_and_answer(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            request = request_type.FromString(body)
        except DecodeError:
            message = f"The request is no {request_type.DESCRIPTOR.full_name}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
            raise
        response = await answer(request, context)
        return response.SerializeToString()

    return grpc.unary_unary_rpc_method_handler(parse_and_answer)


class _PredictionService:
    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._unread_bytes = 0

    async def predict(
        self, request: predict_pb2.PredictRequest, context: grpc.aio.ServicerContext
    ) -> predict_pb2.PredictResponse:
        try:
            with self._predictor.counted() as drawn:
                model = _find(self._predictor, request.model_spec)
                asked = _parse(request, model, self._predictor)
                filtered = functools.partial(_filtered, names=request.output_filter)
                parts = await self._predictor.draw(model, asked, filtered)
                response = _response(request, model, asked, parts)
                self._count_unread(response.ByteSize())
                drawn.rows = asked.rows
                return response
        except PredictError as error:
            await context.abort(_CODES[type(error)], str(error))
            raise

    async def get_model_metadata(
        self,
        request: get_model_metadata_pb2.GetModelMetadataRequest,
        context: grpc.aio.ServicerContext,
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        try:
            model = _find(self._predictor, request.model_spec)
            _check_metadata_fields(request.metadata_field)
        except PredictError as error:
            await context.abort(_CODES[type(error)], str(error))
            raise
        definitions = any_pb2.Any()
        definitions.Pack(get_model_metadata_pb2.SignatureDefMap(signature_def=model.signature_defs))
        return get_model_metadata_pb2.GetModelMetadataResponse(
            model_spec=_model_spec(self._predictor.name, model.number),
            metadata={"signature_def": definitions},
        )

    def _count_unread(self, size: int) -> None:
        """Counts an answer until it is sent or its client has gone; refuses a large one over it.

        The task of this request ends then. `ServicerContext.add_done_callback` would do, but makes
        a cycle of references: until it is collected, which is never when nothing else happens, the
        request counts against `grpc.max_concurrent_streams`.
        """
        if size > _SMALL_ANSWER_BYTES and self._unread_bytes + size > _MAX_UNREAD_BYTES:
            raise BusyError("too many bytes of answers wait for their clients; try again")

        def release(_: object) -> None:
            self._unread_bytes -= size

        if task := asyncio.current_task():
            self._unread_bytes += size
            task.add_done_callback(release)


class _ModelService:
    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    async def get_model_status(
        self,
        request: get_model_status_pb2.GetModelStatusRequest,
        context: grpc.aio.ServicerContext,
    ) -> get_model_status_pb2.GetModelStatusResponse:
        name = request.model_spec.name
        version = _version(request.model_spec)
        found = self._predictor.versions.statuses(version) if name == self._predictor.name else []
        if not found:
            which = "any versions" if version is None else f"version {version}"
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"Could not find {which} of model {name[:200]}"
            )
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in found:
            state = _State.Value(status.state)
            added = response.model_version_status.add(version=status.version, state=state)
            if status.error:
                added.status.error_code = error_codes_pb2.UNKNOWN
                added.status.error_message = status.error
        return response


def _find(predictor: Predictor, spec: model_pb2.ModelSpec) -> LoadedVersion:
    if spec.version_label:
        raise RequestError(f"Unrecognized servable version label: {spec.version_label[:100]}")
    if not spec.name:
        raise RequestError("Missing ModelSpec")
    return predictor.find(spec.name[:200], _version(spec))


def _version(spec: model_pb2.ModelSpec) -> int | None:
    return spec.version.value if spec.HasField("version") else None


def _check_metadata_fields(fields: Iterable[str]) -> None:
    if list(fields) != ["signature_def"]:
        raise RequestError("GetModelMetadata gives the metadata field 'signature_def' alone")


def _parse(
    request: predict_pb2.PredictRequest, model: LoadedVersion, predictor: Predictor
) -> PredictRequest:
    signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
    specs = find_signature(signature, model.signatures)
    check_names(request.inputs, specs)
    unknown = set(request.output_filter) - set(model.signature_defs[signature].outputs)
    if unknown:
        raise RequestError(f"output tensor alias not found in signature: {min(unknown)[:100]}")
    for name, spec in specs.items():
        _check_tensor(name, request.inputs[name], spec, predictor)
    inputs = {name: _array(name, request.inputs[name]) for name in specs}
    return predict_request(signature, inputs)


def _check_tensor(
    name: str, tensor: tensor_pb2.TensorProto, spec: TensorSpec, predictor: Predictor
) -> None:
    """Checks type and shape before an array is made: a shape may claim any size."""
    expected = tf.as_dtype(tf.string if spec.dtype.kind == "O" else spec.dtype)
    if tensor.dtype != expected.as_datatype_enum:
        raise RequestError(f"Input {name}: expected the type {expected.name}")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if shape:
        check_rows(shape[0], predictor.settings.max_rows)
        predictor.require_room(shape[0])
    check_shape(name, shape, spec)


def _array(name: str, tensor: tensor_pb2.TensorProto) -> np.ndarray:
    try:
        return tf.make_ndarray(tensor)
    except (ValueError, TypeError) as error:
        raise RequestError(f"Input {name}: {error}") from None


def _filtered(outputs: Arrays, *, names: Iterable[str]) -> Arrays:
    return {name: outputs[name] for name in names} if names else outputs


def _response(
    request: predict_pb2.PredictRequest,
    model: LoadedVersion,
    asked: PredictRequest,
    parts: list[Arrays],
) -> predict_pb2.PredictResponse:
    response = predict_pb2.PredictResponse(
        model_spec=_model_spec(request.model_spec.name, model.number, asked.signature)
    )
    for name in parts[0]:
        _fill(response.outputs[name], [part[name] for part in parts])
    return response


def _fill(tensor: tensor_pb2.TensorProto, parts: list[np.ndarray]) -> None:
    array = np.concatenate(parts) if len(parts) > 1 else parts[0]
    is_text = array.dtype.kind == "O"
    tensor.dtype = tf.as_dtype(tf.string if is_text else array.dtype).as_datatype_enum
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if is_text:
        tensor.string_val.extend(array.ravel().tolist())
    else:
        tensor.tensor_content = array.tobytes()


def _model_spec(name: str, number: int, signature: str = "") -> Any:
    spec = model_pb2.ModelSpec(name=name, signature_name=signature)
    spec.version.value = number
    return spec
