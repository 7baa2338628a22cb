"""The REST side: TensorFlow Serving's routes, health, metrics, and the page.

Called by `serving.http1`, which has read the body of a request before the application sees it.
"""

import asyncio
import functools
import ipaddress
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.layout import version_number
from serving.json_codec import JsonRequest, encode_slice, join_slices, parse_request
from serving.metrics import Metrics
from serving.predicting import HTTP_STATUS, Predictor
from serving.requests import BusyError, PredictError
from serving.watch import VersionStatus

if TYPE_CHECKING:
    from serving.loading import LoadedVersion

PAGE = Path(__file__).parent / "page"
_RETRY = {"Retry-After": "1"}
_NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}
# Nothing but what lies beside the page, and the images that its script makes.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
}
_ERROR = {"description": 'An error: {"error": message}'}
_SHORT_BODY_BYTES = 8 << 10  # parsed in less time than a thread takes to start on it
_MAX_WAITING_TO_PARSE = 16  # longer bodies
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
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
_LABEL = re.compile(r"/v1/models/[^/:]+/labels/([^/:]+)(/metadata|:\w+)?")
_METHOD = re.compile(r"/v1/models/[^/:]+(/versions/\d+)?:(classify|regress)")
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d*)?")


def create_app(predictor: Predictor, address: str) -> FastAPI:
    """Makes the ASGI application.

    Args:
      predictor: what answers predict requests.
      address: the IP address that the server listens on.
    """
    routes = _Routes(predictor)
    # Its documentation pages load scripts from elsewhere, so there are none.
    app = FastAPI(title="MNIST digit generator", docs_url=None, redoc_url=None)
    get: dict[str, Any] = {"response_class": Response, "responses": {404: _ERROR, 400: _ERROR}}
    post: dict[str, Any] = {
        "response_class": Response,
        "responses": dict.fromkeys((400, 404, 408, 413, 415, 503), _ERROR),
        "openapi_extra": {"requestBody": _PREDICT_BODY},
    }
    app.get("/healthz", response_class=Response)(routes.healthz)
    app.get("/readyz", response_class=Response, responses={503: _ERROR})(routes.readyz)
    app.get("/metrics", response_class=Response)(routes.show_metrics)
    app.get("/about", response_class=Response)(routes.about)
    app.get(_MODEL + "/metadata", **get)(routes.metadata)
    app.get(_VERSION + "/metadata", **get)(routes.metadata_of_version)
    app.post(_MODEL + ":predict", **post)(routes.predict)
    app.post(_VERSION + ":predict", **post)(routes.predict_with_version)
    app.get(_MODEL, **get)(routes.status)
    app.get(_VERSION, **get)(routes.status_of_version)
    app.router.add_route("/v1/{rest:path}", _malformed, methods=_METHODS, include_in_schema=False)
    app.mount("/", _Page(directory=PAGE, html=True))
    app.add_exception_handler(HTTPException, _on_http_error)  # type: ignore[arg-type]
    app.add_exception_handler(PredictError, _on_predict_error)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _on_defect)
    app.add_middleware(_HostCheck, allowed=predictor.settings.allowed_hosts, address=address)
    return app


class _HostCheck:
    """ASGI middleware: refuses other host names, which a browser sends after DNS rebinding.

    Also adds the header that keeps browsers from guessing an answer's type.
    """

    def __init__(self, app: ASGIApp, allowed: tuple[str, ...], address: str) -> None:
        self._app = app
        self._allowed = {name.lower() for name in allowed}
        self._loopback_only = not allowed and _is_loopback(address)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_header(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_NO_SNIFFING)
            await send(message)

        app: ASGIApp = self._app
        host = Headers(scope=scope).get("host")
        # HTTP/1.0, which no browser speaks, has no host.
        if host is not None and not self._allows(host):
            message = f"Host {host[:100]!r} is not served here; see the setting serve.allowed_hosts"
            app = _json({"error": message}, 400)
        await app(scope, receive, send_with_header)

    def _allows(self, host: str) -> bool:
        if not (parts := _HOST.fullmatch(host)):
            return False
        name = parts[1].strip("[]").rstrip(".").lower()
        if self._loopback_only:
            return name == "localhost" or _is_loopback(name)
        return not self._allowed or name in self._allowed


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class _Page(StaticFiles):
    """The page's files, with headers that keep everything else out."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if "\0" in path:
            raise HTTPException(404, "Not Found")
        response = await super().get_response(path, scope)
        response.headers.update(_PAGE_HEADERS)
        return response


class _Routes:
    """What the routes do."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._versions = predictor.versions
        self._waiting_to_parse = 0
        self._parsing = ThreadPoolExecutor(1, thread_name_prefix="parse")

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
        return Response(self._predictor.metrics.render(), media_type=Metrics.CONTENT_TYPE)

    async def about(self) -> Response:
        """What the page shows: versions, the model card, limits."""
        served = self._versions.served
        return _json(
            {
                "model": self._predictor.name,
                "version": served.number if served else None,
                "versions": [vars(status) for status in self._versions.statuses()],
                "card": served.card if served else None,
                "latent_dim": served.latent_dim if served else None,
                "max_rows": self._predictor.settings.max_rows,
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
        found = self._versions.statuses(version) if name == self._predictor.name else []
        if not found and version is None:
            raise HTTPException(404, f"Could not find any versions of model {name[:200]}")
        if not found:
            raise HTTPException(404, f"Could not find version {version} of model {name[:200]}")
        return _json({"model_version_status": [_status(status) for status in found]})

    def _metadata(self, name: str, version: int | None) -> Response:
        model = self._predictor.find(name, version)
        return _json(
            {
                "model_spec": {"name": name, "signature_name": "", "version": str(model.number)},
                "metadata": {"signature_def": model.signature_def_json()},
            }
        )

    async def _predict(self, name: str, version: int | None, request: Request) -> Response:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            # A web page of another site may send other types without being asked for permission.
            raise HTTPException(415, "Expected the header Content-Type: application/json")
        with self._predictor.counted() as drawn:
            model = self._predictor.find(name, version)
            asked = await self._parse(await request.body(), model)
            encode = functools.partial(encode_slice, by_row=asked.by_row)
            slices = await self._predictor.draw(model, asked.request, encode)
            drawn.rows = asked.request.rows
            body = join_slices(slices, by_row=asked.by_row)
        return Response(body, media_type="application/json")

    async def _parse(self, body: bytes, model: "LoadedVersion") -> JsonRequest:
        arguments = (body, model.signatures, self._predictor.settings.max_rows)
        if len(body) <= _SHORT_BODY_BYTES:
            return parse_request(*arguments)
        if self._waiting_to_parse >= _MAX_WAITING_TO_PARSE:
            raise BusyError(f"{self._waiting_to_parse} long requests wait already; try again")
        self._predictor.require_room(self._predictor.settings.max_rows)
        self._waiting_to_parse += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._parsing, parse_request, *arguments)
        finally:
            self._waiting_to_parse -= 1


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
    number = version_number(version)
    if number is None:
        raise HTTPException(400, f"Malformed request: {version[:100]!r} is no version")
    return number


def _status(status: VersionStatus) -> dict[str, Any]:
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


async def _on_predict_error(request: Request, error: PredictError) -> Response:
    del request
    response = _json({"error": str(error)}, HTTP_STATUS[type(error)])
    if isinstance(error, BusyError):
        response.headers.update(_RETRY)
    return response


async def _on_defect(request: Request, error: Exception) -> Response:
    del request, error  # Starlette raises it again, and serving.http1 logs it.
    response = _json({"error": "internal error; the server's log has more"}, 500)
    response.headers.update(_NO_SNIFFING)  # Starlette answers outside the middleware.
    return response
