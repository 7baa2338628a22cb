"""What the webhook receives, and that nothing about it stops the pass."""

import contextlib
import dataclasses
import json
import math
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.retraining import webhook
from pipeline.retraining.webhook import ADDRESS_VARIABLE, RunReport, notify

DONE = RunReport(
    "not blessed", "the data are new", 3, "2026-11-23T09:00:00", 7, 12.25, ["recall"], 60.0
)


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (DONE, "MNIST GAN: not blessed (the data are new), FID 12.250, failed recall"),
        (
            RunReport("nothing to do", "why", quarantined=[2]),
            "MNIST GAN: nothing to do (why), quarantined span 2",
        ),
        (RunReport("failed", "why", error="DataGate: x"), "MNIST GAN: failed (why). DataGate: x"),
    ],
)
def test_the_webhook_is_told_as_slack_reads_it(httpserver, report, text):
    httpserver.expect_request("/hook", method="POST").respond_with_data("ok")
    notify({ADDRESS_VARIABLE: httpserver.url_for("/hook")}, report)
    [(request, _)] = httpserver.log
    assert request.get_json() == dataclasses.asdict(report) | {"text": text}


def test_a_webhook_that_fails_at_first_is_told(httpserver):
    httpserver.expect_ordered_request("/hook").respond_with_data("", status=500)
    httpserver.expect_ordered_request("/hook").respond_with_data("ok")
    notify({ADDRESS_VARIABLE: httpserver.url_for("/hook")}, DONE)
    assert [response.status_code for _, response in httpserver.log] == [500, 200]


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"fid": math.nan}, "fid", None),
        ({"reason": os.fsdecode(b"span-\xff")}, "reason", "span-?"),
        ({"error": "x" * 10_000_000}, "error", "x" * 2000),
        ({"quarantined": list(range(10_000))}, "quarantined", list(range(100))),
        ({"error": "no https://u:HUSH@h"}, "error", "no https://***@h"),
    ],
)
def test_what_json_cannot_hold_is_sent_too(httpserver, changes, field, value):
    httpserver.expect_request("/hook").respond_with_data("ok")
    notify({ADDRESS_VARIABLE: httpserver.url_for("/hook")}, dataclasses.replace(DONE, **changes))
    [(request, _)] = httpserver.log
    assert request.get_json()[field] == value
    assert json.loads(dataclasses.replace(DONE, **changes).as_json())[field] == value


@pytest.mark.parametrize(
    ("address", "environ"),
    [
        ("http://127.0.0.1:9/HUSH", {}),
        (f"http://{'a' * 64}.example/HUSH", {}),
        ("http://u:HUSH@[::1/", {}),
        ("HUSH", {}),
        ("http://h\x00/HUSH", {}),
        ("http://h.invalid/HUSH", {"ALL_PROXY": "socks5://127.0.0.1:9"}),
        ("http://h.invalid/HUSH", {"HTTP_PROXY": "foo://x"}),
        ("https://h.invalid/HUSH", {"SSL_CERT_FILE": "/no/such.pem"}),
    ],
)
def test_a_webhook_that_cannot_be_reached_is_one_line(capsys, monkeypatch, address, environ):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    notify({ADDRESS_VARIABLE: address}, DONE)
    [line] = capsys.readouterr().err.splitlines()
    assert "delivery failed" in line
    assert "HUSH" not in line
    assert ("socksio" in line) == ("ALL_PROXY" in environ)


@contextlib.contextmanager
def server(first: bytes, then: bytes, pause: float) -> Iterator[tuple[str, list[int]]]:
    """Answers `first` and then `then` again and again; the list gets the bytes that were sent."""
    sent: list[int] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with contextlib.suppress(OSError), connection:
                    connection.recv(1 << 16)
                    connection.sendall(first)
                    while True:
                        sent.append(connection.send(then))
                        time.sleep(pause)

    threading.Thread(target=answer, daemon=True).start()
    with listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/hook", sent
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def test_a_server_that_dribbles_is_left_at_the_deadline(monkeypatch, capsys):
    monkeypatch.setattr(webhook, "DEADLINE_SECONDS", 2.0)
    with server(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.3) as (address, _):
        started = time.monotonic()
        notify({ADDRESS_VARIABLE: address}, DONE)
        assert time.monotonic() - started < 4
    assert "delivery failed" in capsys.readouterr().err


def test_an_endless_answer_is_not_read(capsys):
    with server(b"HTTP/1.1 200 OK\r\n\r\n", bytes(1 << 20), 0.0) as (address, sent):
        started = time.monotonic()
        notify({ADDRESS_VARIABLE: address}, DONE)
        assert time.monotonic() - started < 5
        assert sum(sent) < 16 << 20
    assert capsys.readouterr().err == ""
