"""Answers predict requests, for the REST and the gRPC API alike."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from serving.batching import Batcher
from serving.metrics import Metrics
from serving.requests import Arrays, BusyError, NotServedError, PredictRequest, RequestError
from serving.settings import ServeSettings
from serving.watch import VersionWatch

if TYPE_CHECKING:
    from serving.loading import LoadedVersion

# The statuses of the REST API, by which /metrics counts the requests of both APIs.
HTTP_STATUS = {RequestError: 400, NotServedError: 404, BusyError: 503}
CLIENT_CLOSED_REQUEST = 499  # as in TensorFlow Serving, for CANCELLED


class Predictor:
    """Finds the version of a request, draws its rows, and counts it.

    Attributes:
      name: of the model.
      versions: what is in memory.
      settings: the limits.
      metrics: of both APIs.
      in_progress: requests that are being answered.
    """

    def __init__(self, name: str, versions: VersionWatch, settings: ServeSettings) -> None:
        self.name = name
        self.versions = versions
        self.settings = settings
        self.metrics = Metrics(versions)
        self.in_progress = 0
        self._batcher = Batcher()

    def find(self, name: str, version: int | None) -> "LoadedVersion":
        """Finds the version in memory.

        Args:
          name: of the model.
          version: None for the one that is served.

        Raises:
          NotServedError: it is another model, or another version.
        """
        served = self.versions.served
        if name != self.name or served is None or version not in (None, served.number):
            shown = name[:200]
            which = f"Latest({shown})" if version is None else f"Specific({shown}, {version})"
            raise NotServedError(f"Servable not found for request: {which}")
        return served

    def require_room(self, rows: int) -> None:
        """Checks that a request of so many rows may wait, before its values are parsed.

        Raises:
          BusyError: too many requests wait.
        """
        self._batcher.require_room(rows)

    async def draw(
        self, model: "LoadedVersion", request: PredictRequest, encode: Callable[[Arrays], Any]
    ) -> list[Any]:
        """Draws the rows of a request; see `Batcher.run`.

        Raises:
          RequestError: the model refuses the request.
          BusyError: too many requests wait, or the answer was not computed in time.
        """
        seconds = self.settings.timeout_seconds
        try:
            return await asyncio.wait_for(self._batcher.run(model, request, encode), seconds)
        except asyncio.TimeoutError:
            raise BusyError(f"not answered within {seconds:g} s") from None

    @contextlib.contextmanager
    def counted(self) -> Iterator["Drawn"]:
        """Counts a request by the exception that ends the block, and its rows if none does."""
        began, drawn, code = time.perf_counter(), Drawn(), 500
        self.in_progress += 1
        try:
            yield drawn
            code = 200
        except asyncio.CancelledError:
            code = CLIENT_CLOSED_REQUEST
            raise
        except tuple(HTTP_STATUS) as error:
            code = HTTP_STATUS[type(error)]
            raise
        finally:
            self.in_progress -= 1
            rows = drawn.rows if code == 200 else 0
            self.metrics.count(code, rows, time.perf_counter() - began)

    def close(self) -> None:
        """Takes no more requests."""
        self._batcher.close()


class Drawn:
    """How many rows a request was answered with."""

    rows = 0
