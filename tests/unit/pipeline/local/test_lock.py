"""The lock of an output folder, held by real processes."""

import errno
import fcntl
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.local.lock import LockedError, LockUnavailableError, locked
from pipeline.local.paths import Places, UsageError

_HOLD = """
import sys, time
from pathlib import Path
from pipeline.local.lock import locked
from pipeline.local.paths import Places
with locked(Places(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""


def _holder(root: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_the_message_names_the_holder(tmp_path):
    child = _holder(tmp_path)
    try:
        with pytest.raises(LockedError) as caught, locked(Places(tmp_path)):
            pass
    finally:
        child.kill()
        child.wait()
    assert caught.value.what.startswith(f"process {child.pid} on {os.uname().nodename}, since 20")
    assert caught.value.where == str(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_mount_without_locks_is_used_with_one_warning(tmp_path, monkeypatch, capsys, number):
    def refuse(fd, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        with locked(Places(tmp_path)):
            pass
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(LockUnavailableError), locked(Places(tmp_path / "out")):
        pass


def test_a_dead_owner_holds_nothing(tmp_path):
    child = _holder(tmp_path)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with locked(Places(tmp_path)):
        pass
    assert not (tmp_path / ".lock-holder").exists()


def test_an_error_leaves_nothing_that_was_not_there(tmp_path):
    for root in (tmp_path / "new" / "out", tmp_path):
        with pytest.raises(UsageError), locked(Places(root)):
            raise UsageError("no data")
        assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_what_was_there_or_was_put_there(tmp_path):
    places = Places(tmp_path / "out")

    def fail() -> None:
        places.serving.mkdir()
        raise UsageError("")

    with pytest.raises(UsageError), locked(places):
        fail()
    assert list(places.root.iterdir()) == [places.serving]
    with locked(places):
        pass
    with pytest.raises(UsageError), locked(places):
        raise UsageError("")
    assert {path.name for path in places.root.iterdir()} == {"serving", ".lock"}


_FAIL_OFTEN = """
import sys, time
from pathlib import Path
from pipeline.local.lock import locked
from pipeline.local.paths import Places, UsageError
until = time.monotonic() + 3
while time.monotonic() < until:
    try:
        with locked(Places(Path(sys.argv[1]))):
            began = time.monotonic_ns()
            time.sleep(0.001)
            ended = time.monotonic_ns()
            raise UsageError("")
    except UsageError:
        if "ended" in globals():
            print(began, ended)
            del ended
"""


def test_two_never_hold_a_folder_that_comes_and_goes(tmp_path):
    command = [sys.executable, "-c", _FAIL_OFTEN, str(tmp_path / "out")]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    held = [line.split() for child in children for line in child.communicate()[0].splitlines()]
    assert [child.returncode for child in children] == [0] * 3
    times = sorted((int(began), int(ended)) for began, ended in held)
    assert len(times) > 100
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(times))
