"""Runs the model for many clients at a time.

The generator draws 16 rows in the time of one, so requests that wait for a free worker are drawn
together. No request waits for others to come. A request of more rows than a batch is drawn in
slices, between which short requests have their turn: a client that asks for one image does not wait
for the thousand images of another.
"""

import asyncio
import collections
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.requests import Arrays, BusyError, PredictRequest, RequestError

if TYPE_CHECKING:
    from serving.loading import LoadedVersion

BATCH_ROWS = 64
MAX_WAITING = 256
MAX_WAITING_ROWS = 16 * 1024  # of requests that are drawn in slices
_WORKERS = 2
_SHORT_BATCHES_IN_TURN = 3  # after which a slice of a long request is drawn, if one waits


@dataclass(eq=False)
class _Call:
    model: "LoadedVersion"
    request: PredictRequest
    encode: Callable[[Arrays], Any]
    done: "asyncio.Future[list[Any]]"
    next_row: int = 0
    parts: dict[int, Any] = field(default_factory=dict)  # by their first row

    @property
    def is_long(self) -> bool:
        return self.request.rows > BATCH_ROWS


@dataclass(frozen=True)
class _Slice:
    """Rows `start` up to `stop` of a call."""

    call: _Call
    start: int
    stop: int

    @property
    def inputs(self) -> Arrays:
        inputs = self.call.request.inputs
        return {name: array[self.start : self.stop] for name, array in inputs.items()}


class Batcher:
    """A queue of requests and the threads that empty it."""

    def __init__(self) -> None:
        """Makes the threads; every other method belongs to one event loop."""
        self._short: collections.deque[_Call] = collections.deque()
        self._long: collections.deque[_Call] = collections.deque()
        self._short_in_turn = 0
        self._running = 0
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="predict")

    async def run(
        self, model: "LoadedVersion", request: PredictRequest, encode: Callable[[Arrays], Any]
    ) -> list[Any]:
        """Answers a request, maybe together with others.

        Args:
          model: which draws.
          request: its rows.
          encode: turns the outputs of some rows into a part of the answer, in a worker's thread.

        Returns:
          The parts, in the order of the rows.

        Raises:
          RequestError: the model refuses this request.
          BusyError: too many requests wait.
        """
        self.require_room(request.rows)
        call = _Call(model, request, encode, asyncio.get_running_loop().create_future())
        (self._long if call.is_long else self._short).append(call)
        self._start()
        return await call.done

    def close(self) -> None:
        """Takes no more requests; returns at once."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def require_room(self, rows: int) -> None:
        """Checks that a request of so many rows may wait.

        Raises:
          BusyError: too many requests wait.
        """
        self._forget_abandoned()
        if rows <= BATCH_ROWS:
            if len(self._short) >= MAX_WAITING:
                raise BusyError(f"{len(self._short)} requests wait already; try again")
            return
        waiting = sum(each.request.rows - each.next_row for each in self._long)
        if waiting and waiting + rows > MAX_WAITING_ROWS:
            raise BusyError(f"{waiting} rows wait already; try again, or ask for fewer rows")

    def _forget_abandoned(self) -> None:
        for waiting in (self._short, self._long):
            kept = [call for call in waiting if not call.done.done()]
            waiting.clear()
            waiting.extend(kept)

    def _start(self) -> None:
        while self._running < _WORKERS and (batch := self._take()):
            self._running += 1
            work = asyncio.get_running_loop().run_in_executor(self._pool, _answer, batch)
            work.add_done_callback(functools.partial(self._finish, batch))

    def _take(self) -> list[_Slice]:
        self._forget_abandoned()
        if self._long and (not self._short or self._short_in_turn >= _SHORT_BATCHES_IN_TURN):
            self._short_in_turn = 0
            return [self._take_slice()]
        self._short_in_turn += 1
        return self._take_alike()

    def _take_slice(self) -> _Slice:
        call = self._long[0]
        start = call.next_row
        call.next_row = min(start + BATCH_ROWS, call.request.rows)
        if call.next_row == call.request.rows:
            self._long.popleft()
        return _Slice(call, start, call.next_row)

    def _take_alike(self) -> list[_Slice]:
        """The oldest short request, and those that can be drawn with it."""
        batch: list[_Slice] = []
        rows, others = 0, []
        while self._short:
            call = self._short.popleft()
            if not batch or (
                _alike(batch[0].call, call) and rows + call.request.rows <= BATCH_ROWS
            ):
                batch.append(_Slice(call, 0, call.request.rows))
                rows += call.request.rows
            else:
                others.append(call)
        self._short.extend(others)
        return batch

    def _finish(self, batch: list[_Slice], work: "asyncio.Future[list[Any]]") -> None:
        self._running -= 1
        if work.cancelled():
            return
        for piece, answer in zip(batch, work.result(), strict=True):
            call = piece.call
            if call.done.done():
                continue
            if isinstance(answer, Exception):
                call.done.set_exception(answer)
                continue
            call.parts[piece.start] = answer
            starts = range(0, max(call.request.rows, 1), BATCH_ROWS)
            if len(call.parts) == len(starts):
                call.done.set_result([call.parts[start] for start in starts])
        self._start()


def _alike(first: _Call, second: _Call) -> bool:
    return first.model is second.model and first.request.signature == second.request.signature


def _answer(batch: list[_Slice]) -> list[Any]:
    """The encoded outputs of each slice, or the exception that it raised."""
    if len(batch) == 1:
        return [_answer_alone(batch[0])]
    try:
        outputs = _draw_together(batch)
    except RequestError:
        # One request is refused by the model; the others are answered.
        return [_answer_alone(piece) for piece in batch]
    except Exception as error:
        return [error] * len(batch)
    return [_encode(piece, part) for piece, part in zip(batch, outputs, strict=True)]


def _answer_alone(piece: _Slice) -> Any:
    call = piece.call
    try:
        outputs = call.model.call(call.request.signature, piece.inputs)
    except RequestError as error:
        return _name_row(call) if call.is_long else error
    except Exception as error:
        return error
    return _encode(piece, outputs)


def _name_row(call: _Call) -> Exception:
    """The model's refusal of a whole request, in which the number of the row is the request's."""
    try:
        call.model.call(call.request.signature, call.request.inputs)
    except Exception as error:
        return error
    return RequestError("the model refuses a row of the request")


def _draw_together(batch: list[_Slice]) -> list[Arrays]:
    first = batch[0].call
    inputs = {
        name: np.concatenate([piece.inputs[name] for piece in batch])
        for name in first.request.inputs
    }
    outputs = first.model.call(first.request.signature, inputs)
    ends = np.cumsum([piece.stop - piece.start for piece in batch])[:-1]
    parts = {name: np.split(array, ends) for name, array in outputs.items()}
    return [{name: parts[name][index] for name in parts} for index in range(len(batch))]


def _encode(piece: _Slice, outputs: Arrays) -> Any:
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            [row, *_] = np.argwhere(~np.isfinite(array))[0] + piece.start
            return RequestError(f"Output {name}: row {row} is not finite; its input is too large")
    try:
        return piece.call.encode(outputs)
    except Exception as error:
        return error
