"""Which requests are drawn together, in which order, and what one request does to the others."""

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import batching
from serving.batching import BATCH_ROWS, Batcher
from serving.requests import BusyError, PredictRequest, RequestError

DEFAULT = "serving_default"
TIMEOUT = 30.0


class Model:
    """Gives its input back; refuses negative rows as a generator's assertion does.

    Attributes:
      calls: the rows of each call.
      may_answer: what every call waits for.
    """

    def __init__(self, *, waits: bool = False) -> None:
        self.calls: list[list[int]] = []
        self.may_answer = threading.Event()
        if not waits:
            self.may_answer.set()

    def call(self, signature, inputs):
        seeds = inputs["seed"]
        self.calls.append(seeds.tolist())
        self.may_answer.wait(TIMEOUT)
        if signature == "fail":
            raise ValueError("a defect of the model")
        if (wrong := np.flatnonzero(seeds < 0)).size:
            raise RequestError(f"row [{wrong[0]}] has [{seeds[wrong[0]]}]")
        if signature == "divide":
            with np.errstate(divide="ignore"):
                return {"seed": seeds, "quotient": 1 / np.stack([np.ones(len(seeds)), seeds], 1)}
        return {"seed": seeds}


@pytest.fixture
def model():
    made = Model(waits=True)
    yield made
    made.may_answer.set()


def rows_of(*seeds: int, signature: str = DEFAULT) -> PredictRequest:
    return PredictRequest(signature, {"seed": np.array(seeds, np.int64)}, len(seeds))


def seeds_in(parts: list) -> list[int]:
    return np.concatenate(parts).tolist()


class Asking:
    """A batcher and the requests that were sent to it, within a running loop."""

    def __init__(self, model) -> None:
        self.batcher = Batcher()
        self.model = model
        self.finished: list[int] = []  # by the first seed

    def ask(self, *seeds: int, signature: str = DEFAULT, model=None) -> "asyncio.Task[list]":
        request = rows_of(*seeds, signature=signature)
        work = self.batcher.run(model or self.model, request, lambda outputs: outputs["seed"])
        task = asyncio.get_running_loop().create_task(asyncio.wait_for(work, TIMEOUT))
        task.add_done_callback(lambda _: self.finished.append(seeds[0] if seeds else -1))
        return task

    async def keep_workers_busy(self) -> "list[asyncio.Task[list]]":
        """A request for each worker; those that are asked later wait."""
        tasks = [self.ask(10**6 + number) for number in range(batching._WORKERS)]
        while len(self.model.calls) < len(tasks):
            await asyncio.sleep(0.001)
        return tasks


def run(scenario, model):
    """Runs `scenario(asking)` in a loop of its own."""

    async def within() -> None:
        asking = Asking(model)
        try:
            await scenario(asking)
        finally:
            model.may_answer.set()
            asking.batcher.close()

    asyncio.run(within())


LONG = range(5 * BATCH_ROWS)


def test_requests_that_wait_are_drawn_together(model):
    async def scenario(asking):
        await asking.keep_workers_busy()
        waiting = [asking.ask(number, number) for number in range(10)]
        other = asking.ask(77, signature="other")
        await asyncio.sleep(0)
        model.may_answer.set()
        for number, task in enumerate(waiting):
            assert seeds_in(await task) == [number, number]
        assert seeds_in(await other) == [77]

    run(scenario, model)
    together = [number for number in range(10) for _ in range(2)]
    assert sorted(model.calls[batching._WORKERS :]) == [together, [77]]


def test_a_batch_has_a_bound(model):
    async def scenario(asking):
        await asking.keep_workers_busy()
        waiting = [asking.ask(*[number] * (BATCH_ROWS - 1)) for number in range(4)]
        await asyncio.sleep(0)
        model.may_answer.set()
        for number, task in enumerate(waiting):
            assert seeds_in(await task) == [number] * (BATCH_ROWS - 1)

    run(scenario, model)
    assert max(map(len, model.calls)) < BATCH_ROWS
    assert len(model.calls) == batching._WORKERS + 4


def test_requests_of_two_versions_are_drawn_apart(model):
    newer = Model()

    async def scenario(asking):
        await asking.keep_workers_busy()
        waiting = [asking.ask(1), asking.ask(2, model=newer), asking.ask(3)]
        await asyncio.sleep(0)
        model.may_answer.set()
        assert [seeds_in(await task) for task in waiting] == [[1], [2], [3]]

    run(scenario, model)
    assert model.calls[batching._WORKERS :] == [[1, 3]]
    assert newer.calls == [[2]]


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 3 * BATCH_ROWS), min_size=1, max_size=8))
def test_every_request_gets_its_rows_in_their_order(sizes):
    async def scenario(asking):
        ends = np.cumsum(sizes)
        tasks = [asking.ask(*range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
        for size, end, task in zip(sizes, ends, tasks, strict=True):
            parts = await task
            assert len(parts) == max(1, -(-size // BATCH_ROWS))
            assert seeds_in(parts) == list(range(end - size, end))

    run(scenario, Model())


def test_short_requests_pass_a_long_one(model):
    async def scenario(asking):
        await asking.keep_workers_busy()
        long = asking.ask(*LONG)
        # Each in a batch of its own, for they do not fit with another.
        short = [asking.ask(number, *[1] * 60) for number in (1001, 1002)]
        await asyncio.sleep(0)
        model.may_answer.set()
        await asyncio.gather(long, *short)
        assert asking.finished.index(0) > max(map(asking.finished.index, (1001, 1002)))

    run(scenario, model)


@pytest.fixture
def one_worker(monkeypatch):
    """Batches are then drawn in the order in which they are taken, however busy the machine is."""
    monkeypatch.setattr(batching, "_WORKERS", 1)


def test_a_long_request_is_not_starved_by_short_ones(model, one_worker):
    async def scenario(asking):
        await asking.keep_workers_busy()
        short = [asking.ask(1000 + number, *[1] * 60) for number in range(60)]
        long = asking.ask(*LONG)
        await asyncio.sleep(0)
        model.may_answer.set()
        await asyncio.gather(long, *short)

    run(scenario, model)
    first_rows = [rows[0] for rows in model.calls]
    is_slice = [first in LONG for first in first_rows]
    assert sum(is_slice) == len(LONG) // BATCH_ROWS
    last = len(is_slice) - is_slice[::-1].index(True)
    assert last <= 1 + (batching._SHORT_BATCHES_IN_TURN + 1) * sum(is_slice)


def test_a_refused_row_of_a_long_request_is_named_by_its_number(model):
    model.may_answer.set()
    seeds = [*LONG]
    seeds[3 * BATCH_ROWS + 7] = -5

    async def scenario(asking):
        with pytest.raises(RequestError, match=rf"^row \[{3 * BATCH_ROWS + 7}\] has \[-5\]$"):
            await asking.ask(*seeds)
        assert seeds_in(await asking.ask(1)) == [1]

    run(scenario, model)


def test_a_refused_long_request_is_not_drawn_to_its_end(model, one_worker):
    async def scenario(asking):
        await asking.keep_workers_busy()
        refused = asking.ask(-1, *range(100 * BATCH_ROWS))
        await asyncio.sleep(0)
        model.may_answer.set()
        with pytest.raises(RequestError):
            await refused
        assert seeds_in(await asking.ask(1)) == [1]

    run(scenario, model)
    assert len(model.calls) < 20


@pytest.mark.parametrize("signature", [DEFAULT, "fail"])
def test_a_refused_request_hurts_no_other_in_its_batch(model, signature):
    async def scenario(asking):
        await asking.keep_workers_busy()
        waiting = [asking.ask(number) for number in range(5)]
        refused = asking.ask(-1, signature=signature)
        waiting += [asking.ask(number) for number in range(5, 10)]
        await asyncio.sleep(0)
        model.may_answer.set()
        assert [seeds_in(await task) for task in waiting] == [[number] for number in range(10)]
        with pytest.raises(ValueError if signature == "fail" else RequestError):
            await refused

    run(scenario, model)


def test_an_answer_that_cannot_be_encoded_is_that_requests_error_alone(model):
    def encode(outputs):
        if outputs["seed"][0] == 3:
            raise OverflowError
        return outputs["seed"]

    async def scenario(asking):
        await asking.keep_workers_busy()
        waiting = [
            asyncio.ensure_future(asking.batcher.run(model, rows_of(number), encode))
            for number in range(6)
        ]
        await asyncio.sleep(0)
        model.may_answer.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(answers.pop(3), OverflowError)
        assert [seeds_in(answer) for answer in answers] == [[0], [1], [2], [4], [5]]

    run(scenario, model)


def test_an_output_that_is_not_finite_is_a_request_error_that_names_output_and_row():
    seeds = [*range(1, 200)]
    seeds[130] = 0

    async def scenario(asking):
        for refused, row in (([4, 0, 5], 1), (seeds, 130)):
            with pytest.raises(RequestError, match=f"^Output quotient: row {row} is not finite"):
                await asking.ask(*refused, signature="divide")
        assert seeds_in(await asking.ask(4, 5, signature="divide")) == [4, 5]

    run(scenario, Model())


def test_an_empty_request_is_answered_by_one_empty_part():
    async def scenario(asking):
        [part] = await asking.ask()
        assert part.shape == (0,)

    run(scenario, Model())


def test_short_requests_that_wait_have_a_bound(model):
    async def scenario(asking):
        busy = await asking.keep_workers_busy()
        waiting = [asking.ask(number) for number in range(batching.MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await asking.ask(1)
        long = asking.ask(*LONG)  # which waits elsewhere
        await asyncio.sleep(0)
        model.may_answer.set()
        await asyncio.gather(*busy, *waiting, long)
        assert seeds_in(await asking.ask(1)) == [1]

    run(scenario, model)


def test_rows_of_long_requests_that_wait_have_a_bound(model, monkeypatch):
    monkeypatch.setattr(batching, "MAX_WAITING_ROWS", 2 * len(LONG))

    async def scenario(asking):
        busy = await asking.keep_workers_busy()
        waiting = [asking.ask(*LONG), asking.ask(*LONG)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await asking.ask(*range(BATCH_ROWS + 1))
        short = asking.ask(7)
        await asyncio.sleep(0)
        model.may_answer.set()
        await asyncio.gather(*busy, *waiting)
        assert seeds_in(await short) == [7]
        # Where none waits, one of any length is drawn.
        assert len(await asking.ask(*range(3 * len(LONG)))) == 3 * len(LONG) // BATCH_ROWS

    run(scenario, model)


@pytest.mark.parametrize("seeds", [(1, 2), tuple(LONG)])
def test_requests_whose_clients_have_gone_are_forgotten(model, monkeypatch, seeds):
    monkeypatch.setattr(batching, "MAX_WAITING", 4)
    monkeypatch.setattr(batching, "MAX_WAITING_ROWS", 4 * len(LONG))

    async def scenario(asking):
        busy = await asking.keep_workers_busy()
        for _ in range(3):
            gone = [asking.ask(*seeds) for _ in range(4)]
            await asyncio.sleep(0)
            with pytest.raises(BusyError):
                await asking.ask(*seeds)
            for task in gone:
                task.cancel()
            await asyncio.gather(*gone, return_exceptions=True)
        kept = asking.ask(*seeds)
        await asyncio.sleep(0)
        model.may_answer.set()
        await asyncio.gather(*busy, kept)

    run(scenario, model)
    drawn = sum(map(len, model.calls)) - batching._WORKERS
    assert drawn == len(seeds)


def test_a_client_that_goes_amid_a_long_request_ends_it(model):
    async def scenario(asking):
        long = asking.ask(*range(100 * BATCH_ROWS))
        while not model.calls:
            await asyncio.sleep(0.001)
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)
        model.may_answer.set()
        assert seeds_in(await asking.ask(1)) == [1]

    run(scenario, model)
    assert len(model.calls) <= batching._WORKERS + 1
