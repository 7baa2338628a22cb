"""Attempts of a node: real processes that fail in each of the ways in which a node does."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import psutil
import pytest

from pipeline.cli.errors import BAD_USAGE, STOPPED
from pipeline.kubeflow.container.store import ROOT_VARIABLE
from pipeline.kubeflow.container.supervisor import (
    GRACE_SECONDS,
    LONGEST_WAIT_SECONDS,
    TERMINATION_LOG,
    Supervision,
    main,
    pod_seconds,
)

# Counts its attempts in a file.
PRELUDE = """
import os, signal, subprocess, sys, time
with open({path!r}, "a") as file:
    file.write("x")
attempt = os.path.getsize({path!r})
def fail(status, text="error: no"):
    print(text, file=sys.stderr)
    sys.exit(status)
"""


@pytest.fixture
def supervision(tmp_path):
    """A function that makes the supervision of a piece of Python."""

    def made(code: str, retries: int = 2, seconds: float | None = None) -> Supervision:
        prelude = PRELUDE.format(path=str(tmp_path / "attempts"))
        command = [sys.executable, "-c", prelude + code]
        return Supervision(command, retries, seconds, wait_seconds=0.01, grace_seconds=10)

    return made


def attempts(tmp_path) -> int:
    return len((tmp_path / "attempts").read_text())


@pytest.mark.parametrize(
    "failure",
    [
        "fail(1)",
        "fail(7)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "os.abort()",
        "raise MemoryError",
    ],
)
def test_a_failed_attempt_is_followed_by_another(supervision, tmp_path, failure):
    assert supervision(f"if attempt < 3: {failure}").run() == (0, "")
    assert attempts(tmp_path) == 3


def test_an_attempt_that_takes_too_long_is_followed_by_another(supervision, tmp_path):
    assert supervision("if attempt == 1: time.sleep(60)", seconds=5.0).run().status == 0
    assert attempts(tmp_path) == 2


def test_an_attempt_that_takes_too_long_may_save_its_state(supervision, tmp_path):
    saved = tmp_path / "saved"
    code = f"signal.signal(signal.SIGTERM, lambda *_: (open({str(saved)!r}, 'w'), fail(143)))\n"
    ended = supervision(code + "time.sleep(60)", retries=0, seconds=4.0).run()
    assert (ended.status, saved.exists()) == (143, True)
    assert "timeout_seconds" in ended.error


def test_an_attempt_that_ignores_sigterm_is_killed(supervision):
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"
    supervised = supervision(code, retries=0, seconds=4.0)
    supervised.grace_seconds = 0.5
    assert supervised.run().status == 128 + signal.SIGKILL


def test_the_last_attempt_gives_status_and_error(supervision, tmp_path):
    ended = supervision("fail(5, f'error: number {attempt}')").run()
    assert ended == (5, "number 3 (attempt 3 of 3)")
    assert attempts(tmp_path) == 3


def test_a_mistake_of_the_user_is_not_retried(supervision, tmp_path):
    text = "error: bad data\n  - span 2: empty\n  where: here\n  fix: repair it"
    ended = supervision(f"fail(2, {text!r})").run()
    assert ended == (BAD_USAGE, "bad data; span 2: empty; where: here; fix: repair it")
    assert attempts(tmp_path) == 1


def test_without_retries_there_is_one_attempt(supervision, tmp_path):
    assert supervision("fail(1)", retries=0).run().status == 1
    assert attempts(tmp_path) == 1


def soon(condition: Callable[[], bool], action: Callable[[], None]) -> None:
    """Does something in another thread as soon as something is true."""

    def wait() -> None:
        while not condition():
            time.sleep(0.01)
        action()

    threading.Thread(target=wait, daemon=True).start()


def test_sigterm_is_passed_on_and_ends_the_attempts(supervision, tmp_path):
    ready = tmp_path / "ready"
    code = "signal.signal(signal.SIGTERM, lambda *_: fail(143, 'stopped: kept'))\n"
    supervised = supervision(f"{code}open({str(ready)!r}, 'w')\ntime.sleep(60)")
    soon(ready.exists, lambda: supervised.pass_on(signal.SIGTERM))
    assert supervised.run() == (STOPPED, "stopped by SIGTERM: kept")
    assert attempts(tmp_path) == 1


def test_sigterm_ends_the_wait_for_the_next_attempt(supervision, tmp_path, capfd):
    supervised = supervision("fail(1)")
    supervised.wait_seconds = 60.0
    shown: list[str] = []

    def waits() -> bool:
        shown.append(capfd.readouterr().err)
        return "the next in 60 s" in "".join(shown)

    started = time.monotonic()
    soon(waits, lambda: supervised.pass_on(signal.SIGTERM))
    assert supervised.run().status == 1
    assert time.monotonic() - started < 60
    assert attempts(tmp_path) == 1


def is_gone(process: int) -> bool:
    """Whether a process ends within five seconds; a zombie has."""
    for _ in range(100):
        if not psutil.pid_exists(process):
            return True
        if psutil.Process(process).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_no_process_of_an_attempt_outlives_it(supervision, tmp_path):
    child = tmp_path / "child"
    code = "import pathlib\nprocess = subprocess.Popen([sys.executable, '-c', 'import time; "
    code += f"time.sleep(60)'])\npathlib.Path({str(child)!r}).write_text(str(process.pid))\nfail(1)"
    supervision(code, retries=0).run()
    assert is_gone(int(child.read_text()))


def test_a_killed_attempt_says_so_without_secrets(supervision):
    code = "print('https://me:secret@host/x', file=sys.stderr)\nos.kill(os.getpid(), signal.{})"
    assert "SIGKILL" in supervision(code.format("SIGKILL"), retries=0).run().error
    error = supervision(code.format("SIGSEGV"), retries=0).run().error
    assert "SIGSEGV" in error
    assert "secret" not in error


def test_noise_of_tensorflow_is_left_out(supervision, capfdbinary, monkeypatch):
    noise = [
        "E cuda_dnn.cc:10575] Unable to register cuDNN factory: Attempting to register",
        "E0000 00:00:17 cuda_platform.cc:52] failed call to cuInit: INTERNAL: UNKNOWN ERROR (303)",
        "E0000 00:00:17 meta_optimizer.cc:967] remapper failed: INVALID_ARGUMENT: Mutation",
    ]
    kept = ["E cuda_driver.cc:1] failed call to cuInit: CUDA_ERROR_NO_DEVICE", "loss 0.5"]
    lines = [*noise, *kept]
    with open(2, "w", closefd=False) as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        supervision(f"for line in {lines}: print(line, file=sys.stderr)").run()
    assert capfdbinary.readouterr().err.decode().splitlines() == kept


@pytest.mark.parametrize(("retries", "waits"), [(0, 0), (1, 30), (2, 30 + 60), (6, 930 + 600)])
def test_a_pod_lives_as_long_as_all_attempts_take(retries, waits):
    attempts_seconds = (retries + 1) * (3600 + GRACE_SECONDS)
    assert attempts_seconds + waits <= pod_seconds(retries, 3600)
    assert pod_seconds(retries, 3600) <= attempts_seconds + waits + LONGEST_WAIT_SECONDS


def test_the_container_says_why_it_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    log = tmp_path / TERMINATION_LOG.lstrip("/")
    log.parent.mkdir()
    log.touch()
    values = {"run_id": "run-1", "failure_dir": str(tmp_path / "failures")}
    executor_input = json.dumps({"inputs": {"parameterValues": values}})
    code = "import sys; print('error: no digits', file=sys.stderr); sys.exit(2)"
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    umask = os.umask(0)
    try:
        status = main(
            ["--node=Trainer", "--json_serialized_invocation_args", executor_input],
            [sys.executable, "-c", code],
        )
    finally:
        used = os.umask(umask)
        for number, handler in before.items():
            signal.signal(number, handler)
    text = "Trainer: no digits"
    assert (status, used) == (BAD_USAGE, 0o022)
    assert log.read_text() == text
    assert (tmp_path / "failures" / "run-1" / "Trainer").read_text() == text
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {text}"
