"""The lock of an output folder, held by real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.local.lock import LockedError, locked
from pipeline.local.places import Places

_HOLD = """
import sys, time
from pathlib import Path
from pipeline.local.lock import locked
from pipeline.local.places import Places
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


def test_the_message_says_who_where_and_for_how_long(tmp_path):
    child = _holder(tmp_path)
    try:
        with pytest.raises(LockedError) as caught, locked(Places(tmp_path)):
            pass
    finally:
        child.kill()
        child.wait()
    for part in (f"process {child.pid} of", os.uname().nodename, "for 0 min", str(tmp_path)):
        assert part in str(caught.value)


def test_a_dead_owner_holds_nothing(tmp_path):
    child = _holder(tmp_path)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with locked(Places(tmp_path)):
        pass
    assert not (tmp_path / ".lock-owner.json").exists()


def test_it_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyError, match="own"), locked(Places(tmp_path)):
        raise KeyError("own")
    with locked(Places(tmp_path)):
        pass
