"""Runs the model for many clients at a time.

The generator draws 16 rows in the time of one, so requests that wait for a free worker are drawn
together. Nobody waits for others to come.
"""

import asyncio
import collections
import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from serving.codec import PredictRequest, RequestError
from serving.loading import LoadedVersion

_Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class _Call:
    model: LoadedVersion
    request: PredictRequest
    done: asyncio.Future[_Outputs]


class Batcher:
    """A queue of requests and a few threads that empty it."""

    def __init__(self, workers: int, batch_rows: int) -> None:
        """See `ServeSettings`; to be used from one event loop."""
        self._workers = workers
        self._batch_rows = batch_rows
        self._waiting: collections.deque[_Call] = collections.deque()
        self._running = 0
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="predict")

    @property
    def waiting(self) -> int:
        """Requests that no worker has taken yet."""
        return len(self._waiting)

    async def run(self, model: LoadedVersion, request: PredictRequest) -> _Outputs:
        """Answers a request, maybe together with others.

        Raises:
          RequestError: when the model refuses this request.
        """
        call = _Call(model, request, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._start()
        return await call.done

    def close(self) -> None:
        """Waits for what runs."""
        self._pool.shutdown()

    def _start(self) -> None:
        while self._running < self._workers and (batch := self._take()):
            self._running += 1
            work = asyncio.get_running_loop().run_in_executor(self._pool, _answer, batch)
            work.add_done_callback(functools.partial(self._finish, batch))

    def _take(self) -> list[_Call]:
        """The oldest that nobody has given up on, and those that can be drawn with it."""
        batch: list[_Call] = []
        rows, others = 0, []
        while self._waiting:
            call = self._waiting.popleft()
            if call.done.done():
                continue
            if not batch or (
                _alike(batch[0], call) and rows + call.request.rows <= self._batch_rows
            ):
                batch.append(call)
                rows += call.request.rows
            else:
                others.append(call)
        self._waiting.extend(others)
        return batch

    def _finish(
        self, batch: list[_Call], work: "asyncio.Future[list[_Outputs | Exception]]"
    ) -> None:
        self._running -= 1
        for call, answer in zip(batch, work.result(), strict=True):
            if call.done.done():
                continue
            if isinstance(answer, Exception):
                call.done.set_exception(answer)
            else:
                call.done.set_result(answer)
        self._start()


def _alike(first: _Call, second: _Call) -> bool:
    return first.model is second.model and first.request.signature == second.request.signature


def _answer(batch: list[_Call]) -> list[_Outputs | Exception]:
    """The outputs of each call, or what went wrong with it."""
    if len(batch) == 1:
        return [_answer_alone(batch[0])]
    try:
        return list(_answer_together(batch))
    except RequestError:
        # One of them asks for what cannot be had; the others shall not suffer for it.
        return [_answer_alone(call) for call in batch]
    except Exception as error:
        return [error] * len(batch)


def _answer_alone(call: _Call) -> _Outputs | Exception:
    try:
        return call.model.call(call.request.signature, call.request.inputs)
    except Exception as error:
        return error


def _answer_together(batch: list[_Call]) -> list[_Outputs]:
    first = batch[0]
    inputs = {
        name: np.concatenate([call.request.inputs[name] for call in batch])
        for name in first.request.inputs
    }
    outputs = first.model.call(first.request.signature, inputs)
    ends = np.cumsum([call.request.rows for call in batch])[:-1]
    parts = {name: np.split(array, ends) for name, array in outputs.items()}
    return [{name: parts[name][index] for name in parts} for index in range(len(batch))]
