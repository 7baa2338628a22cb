"""Lines that come again and again are written once per interval."""

import logging

import pytest

from serving import log
from serving.log import OncePerInterval, is_not_of_a_lost_client


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(log, "time", made)
    return made


def record(
    line: int = 1, level: int = logging.ERROR, text: str = "%d is wrong"
) -> logging.LogRecord:
    return logging.LogRecord("serving", level, "file.py", line, text, (7,), None)


def test_one_record_of_a_call_site_in_an_interval(clock):
    once = OncePerInterval(seconds=10)
    assert [once.filter(record()) for _ in range(5)] == [True] + [False] * 4
    assert once.filter(record(line=2))
    assert once.filter(record(level=logging.WARNING, line=3))
    clock.now += 9.9
    assert not once.filter(record())
    clock.now += 0.2
    assert once.filter(record())
    assert not once.filter(record())


def test_the_next_record_says_how_many_were_left_out(clock):
    once = OncePerInterval(seconds=10)
    for _ in range(5):
        once.filter(record())
    clock.now += 11
    counted = record()
    assert once.filter(counted)
    assert counted.getMessage() == "7 is wrong (and 4 more like it)"
    clock.now += 11
    single = record()
    assert once.filter(single)
    assert single.getMessage() == "7 is wrong"


def test_what_is_no_warning_always_passes(clock):
    once = OncePerInterval(seconds=10)
    assert all(once.filter(record(level=logging.INFO)) for _ in range(5))


def test_call_sites_without_end_are_not_kept_without_end(clock):
    once = OncePerInterval(seconds=10)
    for line in range(10_000):
        assert once.filter(record(line=line))
    assert len(once._seen) <= log._MAX_KEYS


def test_the_server_writes_to_stderr_once_per_interval(capsys):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        log.configure()
        for number in range(100):
            logging.getLogger("asyncio").error("out of descriptors, %d", number)
        logging.getLogger("serving.watch").info("serving version 1")
        logging.getLogger("serving.watch").debug("nothing of interest")
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
        for handler in before:
            root.addHandler(handler)
        root.setLevel(level)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "out of descriptors, 0",
        "serving version 1",
    ]


@pytest.mark.parametrize(
    ("name", "is_written"), [("ExecuteBatchError", False), ("ValueError", True)]
)
def test_grpcios_traceback_for_a_lost_client_is_left_out(name, is_written):
    made = record()
    made.exc_info = (type(name, (Exception,), {}), None, None)
    assert is_not_of_a_lost_client(made) is is_written
