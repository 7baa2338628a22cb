"""Proxies of TensorFlow Serving's APIs that alter requests or answers, in threads."""

import base64
import concurrent.futures
import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

SECONDS = 60.0


@dataclass(frozen=True)
class Fault:
    """What a proxy does: to the digits that are requested, and to each file of an answer."""

    digit: Callable[[int], int] = lambda digit: digit
    file: Callable[[bytes], bytes] = lambda file: file


@contextlib.contextmanager
def rest_proxy(server: str, fault: Fault) -> Iterator[str]:
    """The address of a proxy of the REST API at an address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(httpx.get(server + self.path, timeout=SECONDS).content)

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            inputs = request["inputs"]
            inputs["digit"] = [fault.digit(digit) for digit in inputs["digit"]]
            answer = httpx.post(server + self.path, json=request, timeout=SECONDS).json()
            for image in answer["outputs"]["image_bytes"]:
                image["b64"] = base64.b64encode(fault.file(base64.b64decode(image["b64"]))).decode()
            self._answer(json.dumps(answer).encode())

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()


class _Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, channel: grpc.Channel, fault: Fault) -> None:
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self._fault = fault

    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: Any
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        return self._stub.GetModelMetadata(request, timeout=SECONDS)

    def Predict(
        self, request: predict_pb2.PredictRequest, context: Any
    ) -> predict_pb2.PredictResponse:
        digits = tf.make_ndarray(request.inputs["digit"])
        altered = [self._fault.digit(int(digit)) for digit in digits]
        request.inputs["digit"].CopyFrom(tf.make_tensor_proto(altered, tf.int64))
        answer = self._stub.Predict(request, timeout=SECONDS)
        files = answer.outputs["image_bytes"].string_val
        files[:] = [self._fault.file(file) for file in files]
        return answer


@contextlib.contextmanager
def grpc_proxy(server: str, fault: Fault) -> Iterator[str]:
    """The address of a proxy of the gRPC API at a host and port."""
    proxy = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    port = proxy.add_insecure_port("127.0.0.1:0")
    with grpc.insecure_channel(server) as channel:
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _Service(channel, fault), proxy
        )
        proxy.start()
        yield f"grpc://127.0.0.1:{port}"
        proxy.stop(None)
