"""What `local_runner.py serve` refuses before it loads anything, and what it takes for granted."""

import os
import resource
import socket

import pytest

from serving import server
from serving.server import ServeError, serve
from serving.settings import ServeSettings


def refusal(base, *, host="127.0.0.1", port=0, grpc_port=0) -> str:
    with pytest.raises(ServeError) as caught:
        serve(base, ServeSettings(), host=host, port=port, grpc_port=grpc_port)
    return str(caught.value)


@pytest.fixture
def base(tmp_path):
    (tmp_path / "digits" / "1").mkdir(parents=True)
    return tmp_path / "digits"


def test_a_folder_that_may_not_be_read_is_said(base, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    assert "Permission denied" in refusal(base)


@pytest.mark.parametrize("name", ["", "nowhere", "digits/1/a file", "digits/1"])
def test_a_folder_without_a_version_is_said(base, name):
    (base / "1" / "a file").write_text("")
    (base / "1" / "007").mkdir()
    assert str(base.parent / name) in refusal(base.parent / name)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "x" * 300, "a\0b"])
def test_an_address_that_is_not_ours_is_said(base, host):
    assert "--host" in refusal(base, host=host)


def test_a_port_that_is_taken_is_said(base):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "--port" in refusal(base, port=port)


@pytest.mark.parametrize(
    ("hard", "wanted", "expected"),
    [
        (1024, 512, 512),
        (576, 512, 512),
        (575, 512, 511),
        (64, 512, 8),
        (1, 512, 8),
        (resource.RLIM_INFINITY, 100_000, 100_000),
    ],
)
def test_connections_fit_the_limit_on_open_files(monkeypatch, hard, wanted, expected):
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (min(hard, 32), hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: raised.append(limits))
    assert server._connections(wanted) == expected
    assert raised == [(hard, hard)]
