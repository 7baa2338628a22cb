"""Log lines as JSON: one object a line, with the run, span and node that it belongs to."""

import datetime
import io
import json
import logging

from hypothesis import given
from hypothesis import strategies as st

from pipeline.local.console import PROGRESS_LOGGER
from pipeline.local.json_log import JsonLog, json_line


@given(
    message=st.text(),
    more=st.dictionaries(
        st.sampled_from(["run", "span", "node", "seconds"]),
        st.none() | st.booleans() | st.integers() | st.text(),
    ),
)
def test_whatever_is_said_is_one_line(message, more):
    line = json_line("node ended", message, "warning", **more)
    assert len(line.splitlines()) == 1
    found = json.loads(line)
    assert datetime.datetime.fromisoformat(found.pop("time")).utcoffset() == datetime.timedelta(0)
    known = {key: value for key, value in more.items() if value is not None}
    expected = {"level": "warning", "event": "node ended", "message": message}
    assert found == known | expected


def test_a_run_is_told_node_by_node():
    stream = io.StringIO()
    log = JsonLog(stream, span=3)
    log.say("run started", "a folder", run="2026-11-23T03:00:00", preset="smoke")
    log.node_started("Trainer", 7, 10)
    with log.listening():
        logging.getLogger(PROGRESS_LOGGER).warning("step %d", 20)
    logging.getLogger(PROGRESS_LOGGER).info("not within")
    log.node_ended("Trainer", 1.23456, cached=False)
    log.node_started("Pusher", 10, 10)
    log.node_failed("Pusher", 0.5)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {line["run"] for line in lines} == {"2026-11-23T03:00:00"}
    assert {line["span"] for line in lines} == {3}
    assert [(each["event"], each.get("node"), each["level"]) for each in lines] == [
        ("run started", None, "info"),
        ("node started", "Trainer", "info"),
        ("progress", "Trainer", "warning"),
        ("node ended", "Trainer", "info"),
        ("node started", "Pusher", "info"),
        ("node failed", "Pusher", "error"),
    ]
    assert lines[2]["message"] == "step 20"
    assert (lines[3]["seconds"], lines[3]["cached"]) == (1.235, False)


def test_other_handlers_write_json_meanwhile():
    stream, plain = io.StringIO(), logging.Formatter("plain %(message)s")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(plain)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        log = JsonLog(io.StringIO(), span=1)
        log.say("run started", "", run="the run")
        with log.listening():
            log.node_started("StatisticsGen", 2, 10)
            try:
                raise ValueError("two\nlines")
            except ValueError:
                root.exception("it failed with %s", "this")
        root.warning("afterwards")
    finally:
        root.removeHandler(handler)
    first, second = stream.getvalue().splitlines()
    found = json.loads(first)
    assert (found["run"], found["node"], found["level"]) == ("the run", "StatisticsGen", "error")
    assert (found["logger"], found["message"]) == ("root", "it failed with this")
    assert "ValueError: two\nlines" in found["trace"]
    assert second == "plain afterwards"
    assert handler.formatter is plain
