"""The HTTP side: TensorFlow Serving's REST routes, health, metrics, and the page."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from serving import watch
from serving.batching import Batcher
from serving.codec import PredictRequest, RequestError, parse_request, render_outputs
from serving.loading import LoadedVersion
from serving.metrics import Metrics
from serving.settings import ServeSettings

PAGE = Path(__file__).parent / "page"
_log = logging.getLogger(__name__)
_RETRY = {"Retry-After": "1"}
_CLIENT_CLOSED_REQUEST = 499  # as TensorFlow Serving has it for CANCELLED
# Nothing but what lies beside the page, and the pictures that its script makes.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_ERROR = {"description": 'An error: {"error": message}'}
_PREDICT_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "signature_name": {"type": "string"},
                    "instances": {"type": "array", "items": {}},
                    "inputs": {},
                },
            }
        }
    },
}
_MODEL = "/v1/models/{name}"
_VERSION = _MODEL + "/versions/{version}"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
_LABEL = re.compile(r"/v1/models/[^/:]+/labels/([^/:]+)(/metadata|:\w+)?")
_METHOD = re.compile(r"/v1/models/[^/:]+(/versions/\d+)?:(classify|regress)")


def create_app(name: str, versions: watch.VersionWatch, settings: ServeSettings) -> FastAPI:
    """Makes the application.

    Args:
      name: of the model, as it stands in the addresses.
      versions: what is served; started and stopped with the application.
      settings: the limits.
    """
    server = _Server(name, versions, settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        await asyncio.to_thread(versions.start)
        yield
        await asyncio.to_thread(versions.stop)
        server.batcher.close()

    # Its documentation pages load scripts from elsewhere, so there are none.
    app = FastAPI(title="MNIST digit generator", lifespan=lifespan, docs_url=None, redoc_url=None)
    get: dict[str, Any] = {"response_class": Response, "responses": {404: _ERROR, 400: _ERROR}}
    post: dict[str, Any] = {
        "response_class": Response,
        "responses": dict.fromkeys((400, 404, 408, 413, 503), _ERROR),
        "openapi_extra": {"requestBody": _PREDICT_BODY},
    }
    app.get("/healthz", response_class=Response)(server.healthz)
    app.get("/readyz", response_class=Response, responses={503: _ERROR})(server.readyz)
    app.get("/metrics", response_class=Response)(server.show_metrics)
    app.get("/about", response_class=Response)(server.about)
    app.get(_MODEL + "/metadata", **get)(server.metadata)
    app.get(_VERSION + "/metadata", **get)(server.metadata_of_version)
    app.post(_MODEL + ":predict", **post)(server.predict)
    app.post(_VERSION + ":predict", **post)(server.predict_with_version)
    app.get(_MODEL, **get)(server.status)
    app.get(_VERSION, **get)(server.status_of_version)
    app.router.add_route("/v1/{rest:path}", _malformed, methods=_METHODS, include_in_schema=False)
    app.mount("/", _Page(directory=PAGE, html=True))
    app.add_exception_handler(HTTPException, _on_http_error)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _on_defect)
    return app


class _Page(StaticFiles):
    """The page's files, with headers that keep everything else out."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if "\0" in path:
            raise HTTPException(404, "Not Found")
        response = await super().get_response(path, scope)
        response.headers.update(_PAGE_HEADERS)
        return response


class _Server:
    """What the routes do."""

    def __init__(self, name: str, versions: watch.VersionWatch, settings: ServeSettings) -> None:
        self._name = name
        self._versions = versions
        self._settings = settings
        self.batcher = Batcher(settings.workers, settings.batch_rows)
        self._metrics = Metrics(versions)
        self._arriving = 0
        self._arriving_bytes = 0

    async def healthz(self) -> Response:
        """Whether the process answers."""
        return _json({"status": "ok"})

    async def readyz(self) -> Response:
        """Whether a version is loaded."""
        if self._versions.served is None:
            raise HTTPException(503, "no version is loaded", _RETRY)
        return _json({"status": "ok", "version": self._versions.served.number})

    async def show_metrics(self) -> Response:
        """Prometheus' text format."""
        return Response(self._metrics.render(), media_type=Metrics.CONTENT_TYPE)

    async def about(self) -> Response:
        """What the page shows: versions, the model card, limits."""
        served = self._versions.served
        return _json(
            {
                "model": self._name,
                "version": served.number if served else None,
                "versions": [vars(status) for status in self._versions.statuses()],
                "card": served.card if served else None,
                "latent_dim": served.latent_dim if served else None,
                "max_rows": self._settings.max_rows,
            }
        )

    async def status(self, name: str) -> Response:
        """TensorFlow Serving's GetModelStatus, of every version."""
        return self._statuses(name, None)

    async def status_of_version(self, name: str, version: str) -> Response:
        """TensorFlow Serving's GetModelStatus, of one version."""
        return self._statuses(name, _number(version))

    async def metadata(self, name: str) -> Response:
        """TensorFlow Serving's GetModelMetadata."""
        return self._metadata(name, None)

    async def metadata_of_version(self, name: str, version: str) -> Response:
        """TensorFlow Serving's GetModelMetadata, of one version."""
        return self._metadata(name, _number(version))

    async def predict(self, name: str, request: Request) -> Response:
        """TensorFlow Serving's Predict, by the version that is served."""
        return await self._predict(name, None, request)

    async def predict_with_version(self, name: str, version: str, request: Request) -> Response:
        """TensorFlow Serving's Predict, by this version."""
        return await self._predict(name, _number(version), request)

    def _statuses(self, name: str, version: int | None) -> Response:
        if ":" in name:
            raise HTTPException(400, f"Malformed request: GET /v1/models/{name[:200]}")
        found = [
            status
            for status in self._versions.statuses()
            if name == self._name and version in (None, status.version)
        ]
        if not found and version is None:
            raise HTTPException(404, f"Could not find any versions of model {name}")
        if not found:
            raise HTTPException(404, f"Could not find version {version} of model {name}")
        return _json({"model_version_status": [_status(status) for status in found]})

    def _metadata(self, name: str, version: int | None) -> Response:
        model = self._find(name, version)
        return _json(
            {
                "model_spec": {"name": name, "signature_name": "", "version": str(model.number)},
                "metadata": {"signature_def": model.signature_def},
            }
        )

    def _find(self, name: str, version: int | None) -> LoadedVersion:
        served = self._versions.served
        if name != self._name or served is None or version not in (None, served.number):
            which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise HTTPException(404, f"Servable not found for request: {which}")
        return served

    async def _predict(self, name: str, version: int | None, request: Request) -> Response:
        began = time.perf_counter()
        code, rows = 500, 0
        try:
            model = self._find(name, version)
            # The body is in no variable: it would stay in memory while the request waits.
            asked = parse_request(
                await self._read(request), model.signatures, self._settings.max_rows
            )
            outputs = await self._draw(model, asked)
            answer = render_outputs(outputs, by_row=asked.by_row)
            code, rows = 200, asked.rows
            return Response(answer, media_type="application/json")
        except RequestError as error:
            code = 400
            raise HTTPException(code, str(error)) from None
        except HTTPException as error:
            code = error.status_code
            raise
        finally:
            self._metrics.count(code, rows, time.perf_counter() - began)

    async def _read(self, request: Request) -> bytes:
        """The body, if there is room for it, it is short enough and comes in time."""
        seconds = self._settings.timeout_seconds
        waiting = self._arriving + self.batcher.waiting
        if waiting >= self._settings.max_waiting:
            raise HTTPException(503, f"{waiting} requests wait already; try again", _RETRY)
        if encoding := request.headers.get("content-encoding"):
            raise HTTPException(400, f"Content-Encoding {encoding[:50]!r} is not supported")
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._settings.max_body_bytes:
            raise self._too_long()
        self._arriving += 1
        try:
            return await asyncio.wait_for(self._gather(request), seconds)
        except asyncio.TimeoutError:
            raise HTTPException(408, f"the body did not come within {seconds:g} s") from None
        except ClientDisconnect:
            raise HTTPException(_CLIENT_CLOSED_REQUEST, "the client has gone") from None
        finally:
            self._arriving -= 1

    async def _gather(self, request: Request) -> bytes:
        room = self._settings.max_arriving_bytes
        even_share = room // self._settings.max_waiting
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                self._arriving_bytes += len(chunk)
                if len(body) > self._settings.max_body_bytes:
                    raise self._too_long()
                others = self._arriving_bytes - len(body)
                if others > room and len(body) > even_share:
                    raise HTTPException(503, f"{others} bytes arrive already; try again", _RETRY)
            return bytes(body)
        finally:
            self._arriving_bytes -= len(body)

    def _too_long(self) -> HTTPException:
        limit = self._settings.max_body_bytes
        return HTTPException(413, f"the body is longer than the {limit} bytes allowed")

    async def _draw(self, model: LoadedVersion, asked: PredictRequest) -> dict[str, np.ndarray]:
        seconds = self._settings.timeout_seconds
        try:
            return await asyncio.wait_for(self.batcher.run(model, asked), seconds)
        except asyncio.TimeoutError:
            raise HTTPException(503, f"not answered within {seconds:g} s", _RETRY) from None


async def _malformed(request: Request) -> Response:
    """What is under /v1/ and is no route: TensorFlow Serving's INVALID_ARGUMENT, with its texts."""
    path = request.url.path
    if label := _LABEL.fullmatch(path):
        raise HTTPException(400, f"Unrecognized servable version label: {label[1][:100]}")
    if request.method == "POST" and (asked := _METHOD.fullmatch(path)):
        raise HTTPException(400, f"This server answers :predict only, not :{asked[2]}")
    if path.rstrip("/") == "/v1/models":
        raise HTTPException(400, "Missing model name in request.")
    raise HTTPException(400, f"Malformed request: {request.method} {path[:200]}")


def _number(version: str) -> int:
    # As TensorFlow Serving's addresses have it: an int64.
    if version.isascii() and version.isdecimal() and len(version) <= 19:
        return int(version)
    raise HTTPException(400, f"Malformed request: {version[:100]!r} is no version")


def _status(status: watch.VersionStatus) -> dict[str, Any]:
    code = "UNKNOWN" if status.error else "OK"
    return {
        "version": str(status.version),
        "state": status.state,
        "status": {"error_code": code, "error_message": status.error},
    }


def _json(content: Any, code: int = 200) -> Response:
    return Response(orjson.dumps(content), code, media_type="application/json")


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    del request
    response = _json({"error": str(error.detail)}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _on_defect(request: Request, error: Exception) -> Response:
    del request, error  # Starlette passes it on, and uvicorn logs it.
    return _json({"error": "internal error; the server's log has more"}, 500)
