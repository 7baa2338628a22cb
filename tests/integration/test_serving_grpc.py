"""The gRPC API of `local_runner.py serve`, as TensorFlow Serving's own clients call it."""

import base64
import concurrent.futures
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from serving.settings import MAX_BODY_BYTES

SECONDS = 60.0
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
SERVING = health_pb2.HealthCheckResponse.SERVING


class Stubs:
    """TensorFlow Serving's services and gRPC's own, over one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    def predict(self, request: predict_pb2.PredictRequest, timeout: float = SECONDS) -> Any:
        return self.prediction.Predict(request, timeout=timeout)


@pytest.fixture(scope="module")
def stubs(server) -> Iterator[Stubs]:
    options = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
    with grpc.insecure_channel(server.grpc_address, options) as channel:
        yield Stubs(channel)


@pytest.fixture(scope="module")
def rest(server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=SECONDS) as client:
        yield client


@pytest.fixture(scope="module")
def saved_model(exported) -> Any:
    return tf.saved_model.load(str(exported))


def inputs_of(signature: str, rows: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(rows)
    digits = random.integers(-1, 10, rows)
    if signature == "from_latent":
        return {"latent": random.standard_normal((rows, 6), np.float32), "digit": digits}
    return {"seed": random.integers(-(2**63), 2**63 - 1, rows), "digit": digits}


def request_of(
    signature: str = "", rows: int = 1, version: int | None = None, **inputs: Any
) -> predict_pb2.PredictRequest:
    """A valid request, but for the inputs that are given: arrays, protos, or None to leave out."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "digits"
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for name, value in {**inputs_of(signature, rows), **inputs}.items():
        if value is not None:
            is_proto = isinstance(value, tensor_pb2.TensorProto)
            request.inputs[name].CopyFrom(value if is_proto else tf.make_tensor_proto(value))
    return request


def arrays_of(response: predict_pb2.PredictResponse) -> dict[str, np.ndarray]:
    return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}


def refusal(call: Any, *arguments: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    return caught.value


def decoded(value: Any) -> Any:
    """A REST answer, in which base64 stands for bytes."""
    if isinstance(value, dict) and value.keys() == {"b64"}:
        return base64.b64decode(value["b64"])
    return [decoded(inner) for inner in value] if isinstance(value, list) else value


# Predict.


@pytest.mark.parametrize("rows", [0, 1, 70])
@pytest.mark.parametrize("signature", ["serving_default", "generate_pixels", "from_latent"])
def test_the_answers_are_those_of_rest_and_of_the_saved_model(
    stubs, rest, saved_model, signature, rows
):
    inputs = inputs_of(signature, rows)
    response = stubs.predict(request_of(signature, rows))
    found = arrays_of(response)
    expected = saved_model.signatures[signature](**{k: tf.constant(v) for k, v in inputs.items()})
    assert set(found) == set(expected)
    body = {"signature_name": signature, "inputs": {k: v.tolist() for k, v in inputs.items()}}
    by_rest = rest.post("/v1/models/digits:predict", json=body).json()["outputs"]
    for name, tensor in expected.items():
        array = tensor.numpy()
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        as_rest = np.array(decoded(by_rest[name]), array.dtype).reshape(array.shape)
        assert as_rest.tolist() == found[name].tolist()
        assert found[name].tolist() == array.tolist()
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("digits", 3, signature)


def test_the_signature_without_a_name_is_the_default(stubs):
    response = stubs.predict(request_of("", version=3))
    assert response.model_spec.signature_name == "serving_default"
    assert arrays_of(response)["image_bytes"][0].startswith(b"\x89PNG")


@pytest.mark.parametrize("names", [["image"], ["digit"], ["digit", "image"]])
def test_an_output_filter_leaves_the_others_out(stubs, names):
    request = request_of("generate_pixels", 2)
    request.output_filter.extend(names)
    assert set(stubs.predict(request).outputs) == set(names)


def test_each_form_of_a_tensor_is_read(stubs):
    """`tensor_content`, a list of values, and one value for all rows."""
    seeds = np.int64([5, 5, 5])
    forms = [
        tf.make_tensor_proto(seeds),
        tensor_pb2.TensorProto(
            dtype=types_pb2.DT_INT64, tensor_shape=tf.TensorShape([3]).as_proto(), int64_val=seeds
        ),
        tensor_pb2.TensorProto(
            dtype=types_pb2.DT_INT64, tensor_shape=tf.TensorShape([3]).as_proto(), int64_val=[5]
        ),
    ]
    digits = np.int64([1, 2, 3])
    answers = [stubs.predict(request_of(seed=form, digit=digits)).outputs for form in forms]
    assert len({str(arrays["image_bytes"]) for arrays in answers}) == 1


def int64s(shape: list[int], count: int, **fields: Any) -> tensor_pb2.TensorProto:
    """A tensor that claims a shape, with `count` values in it."""
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_INT64, **fields)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    if not fields:
        tensor.int64_val.extend([1] * count)
    return tensor


UNKNOWN_RANK = int64s([], 1)
UNKNOWN_RANK.tensor_shape.unknown_rank = True
MANY = np.ones(200_000, np.int64).tobytes()


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (request_of(version=4), NOT_FOUND, "Specific(digits, 4)"),
        (request_of("no"), INVALID, '"no"'),
        (request_of(seed=None), INVALID, "seed"),
        (request_of(noise=np.int64([1])), INVALID, "noise"),
        (request_of(seed=np.float32([1])), INVALID, "int64"),
        (request_of(seed=np.int32([1])), INVALID, "int64"),
        (request_of(seed=np.array([b"1"])), INVALID, "int64"),
        (request_of(seed=tensor_pb2.TensorProto()), INVALID, "seed"),
        (request_of(seed=np.int64(1)), INVALID, "[-1]"),
        (request_of(seed=np.int64([[1]])), INVALID, "[-1]"),
        (request_of(seed=np.int64([1, 2])), INVALID, "number of rows"),
        (request_of(seed=UNKNOWN_RANK), INVALID, "[-1]"),
        (request_of(seed=int64s([2**40], 1), digit=int64s([2**40], 1)), INVALID, "at most 100"),
        (request_of(seed=int64s([2**62], 1), digit=int64s([2**62], 1)), INVALID, "at most 100"),
        (request_of(seed=int64s([-1], 1), digit=int64s([-1], 1)), INVALID, "got [-1]"),
        (
            request_of(
                seed=int64s([-1], 0, tensor_content=MANY),
                digit=int64s([-1], 0, tensor_content=MANY),
            ),
            INVALID,
            "got [-1]",
        ),
        (request_of(seed=int64s([2], 3)), INVALID, "seed"),
        (request_of(seed=int64s([1], 0, tensor_content=b"1234567")), INVALID, "seed"),
        (request_of(seed=int64s([1], 0, tensor_content=b"x" * 16)), INVALID, "seed"),
        (request_of("from_latent", latent=np.ones([1, 5], np.float32)), INVALID, "[-1, 6]"),
        (request_of(rows=101), INVALID, "at most 100"),
        (request_of(digit=np.int64([11])), INVALID, "row [0] has [11]"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(stubs, request_, code, message):
    error = refusal(stubs.predict, request_)
    assert error.code() == code
    assert message in error.details()
    assert len(error.details()) < 1000


def test_a_refused_row_after_the_first_slice_is_named_by_its_number(stubs):
    digits = np.ones(90, np.int64)
    digits[77] = 12
    error = refusal(stubs.predict, request_of(rows=90, digit=digits))
    assert (error.code(), "row [77] has [12]" in error.details()) == (INVALID, True)


def test_an_output_filter_of_an_unknown_name_is_refused(stubs):
    request = request_of()
    request.output_filter.append("no")
    assert refusal(stubs.predict, request).code() == INVALID


@pytest.mark.parametrize(
    ("spec", "code"), [({"name": "no"}, NOT_FOUND), ({}, INVALID), ({"name": "x" * 999}, NOT_FOUND)]
)
def test_other_models_are_refused(stubs, spec, code):
    request = request_of()
    request.model_spec.Clear()
    request.model_spec.name = spec.get("name", "")
    error = refusal(stubs.predict, request)
    assert error.code() == code
    assert len(error.details()) < 500


def test_a_version_label_is_refused(stubs):
    request = request_of()
    request.model_spec.version_label = "stable"
    error = refusal(stubs.predict, request)
    assert (error.code(), "stable" in error.details()) == (INVALID, True)


def test_a_message_over_the_limit_is_refused(stubs):
    seeds = np.ones(MAX_BODY_BYTES // 8 + 1, np.int64)
    error = refusal(stubs.predict, request_of(seed=seeds))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stubs.predict(request_of()).outputs


@pytest.mark.parametrize(
    "method",
    [
        "PredictionService/Predict",
        "PredictionService/GetModelMetadata",
        "ModelService/GetModelStatus",
    ],
)
def test_bytes_that_are_no_message_are_refused(server, method):
    with grpc.insecure_channel(server.grpc_address) as channel:
        error = refusal(channel.unary_unary(f"/tensorflow.serving.{method}"), b"\xff" * 100)
    assert error.code() == INVALID


def test_a_deadline_ends_a_request_and_the_server_goes_on(stubs):
    error = refusal(stubs.predict, request_of("from_latent", 100), 0.001)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert stubs.predict(request_of()).outputs


def test_many_clients_at_once_get_the_images_of_their_own_seeds(stubs):
    """Over one connection, which refused everything after 64 requests that were not collected."""
    requests = [request_of(seed=np.int64([n % 7]), digit=np.int64([n % 5])) for n in range(210)]
    wrong = request_of(digit=np.int64([11]))

    def ask(request: predict_pb2.PredictRequest) -> dict[str, np.ndarray]:
        assert refusal(stubs.predict, wrong).code() == INVALID
        return arrays_of(stubs.predict(request))

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        found = list(pool.map(ask, requests))
    images = {}
    for number, arrays in enumerate(found):
        [image] = arrays["image_bytes"]
        assert images.setdefault((number % 7, number % 5), image) == image
        assert arrays["digit"].tolist() == [number % 5]


# Metadata and status.


def test_the_metadata_is_that_of_the_saved_model(stubs, exported):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "digits"
    response = stubs.prediction.GetModelMetadata(request, timeout=SECONDS)
    assert (response.model_spec.name, response.model_spec.version.value) == ("digits", 3)
    [(field, packed)] = response.metadata.items()
    definitions = get_model_metadata_pb2.SignatureDefMap()
    assert (field, packed.Unpack(definitions)) == ("signature_def", True)
    assert dict(definitions.signature_def) == signature_defs(exported)


def signature_defs(directory: Path) -> dict[str, Any]:
    content = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    found = content.meta_graphs[0].signature_def
    return {name: found[name] for name in ("serving_default", "generate_pixels", "from_latent")}


@pytest.mark.parametrize("fields", [[], ["no"], ["signature_def", "no"], ["x" * 10_000]])
def test_other_metadata_is_refused(stubs, fields):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = "digits"
    error = refusal(stubs.prediction.GetModelMetadata, request)
    assert error.code() == INVALID


@pytest.mark.parametrize("version", [None, 3])
def test_the_status_of_the_versions(stubs, version):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "digits"
    if version is not None:
        request.model_spec.version.value = version
    [status] = stubs.models.GetModelStatus(request, timeout=SECONDS).model_version_status
    assert (status.version, status.state) == (3, status.AVAILABLE)
    assert (status.status.error_code, status.status.error_message) == (0, "")


@pytest.mark.parametrize(("name", "version"), [("no", None), ("", None), ("digits", 4)])
def test_the_status_of_what_is_not_there(stubs, name, version):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    assert refusal(stubs.models.GetModelStatus, request).code() == NOT_FOUND


def test_what_a_generator_has_no_use_for_is_not_implemented(stubs):
    calls = [
        (stubs.prediction.Classify, classification_pb2.ClassificationRequest()),
        (stubs.prediction.Regress, regression_pb2.RegressionRequest()),
        (stubs.prediction.MultiInference, inference_pb2.MultiInferenceRequest()),
        (stubs.models.HandleReloadConfigRequest, model_management_pb2.ReloadConfigRequest()),
    ]
    for call, request in calls:
        assert refusal(call, request).code() == grpc.StatusCode.UNIMPLEMENTED


# Health and metrics.


@pytest.mark.parametrize(
    "service", ["", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"]
)
def test_health_as_grpc_health_probe_asks(stubs, service):
    request = health_pb2.HealthCheckRequest(service=service)
    watched = stubs.health.Watch(request, timeout=SECONDS)
    assert SERVING in (response.status for response in watched)  # after NOT_SERVING, maybe
    assert stubs.health.Check(request, timeout=SECONDS).status == SERVING
    watched.cancel()


def test_health_of_another_service(stubs):
    request = health_pb2.HealthCheckRequest(service="no")
    assert refusal(stubs.health.Check, request).code() == NOT_FOUND
    watched = stubs.health.Watch(request, timeout=SECONDS)
    assert next(watched).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watched.cancel()


def test_both_apis_count_in_the_same_metrics(stubs, rest):
    def read() -> dict[str, float]:
        return {
            sample.name.removeprefix("mnist_gan_serve_")
            + sample.labels.get("code", ""): sample.value
            for family in text_string_to_metric_families(rest.get("/metrics").text)
            for sample in family.samples
            if "le" not in sample.labels
        }

    before = read()
    stubs.predict(request_of(rows=5))
    rest.post("/v1/models/digits:predict", json={"inputs": {"seed": [1, 2], "digit": [1, 2]}})
    refusal(stubs.predict, request_of("no"))
    refusal(stubs.predict, request_of(version=4))
    refusal(stubs.predict, request_of(rows=101))
    after = read()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["images_total"] == 7
    assert grown["requests_total200"] == 2
    assert grown["requests_total400"] == 2
    assert grown["requests_total404"] == 1
    assert grown["request_seconds_count"] == 5
