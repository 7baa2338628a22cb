"""Ours and TFX's own pusher, killed at random moments under a process that loads what appears."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "tools" / "push_faults.py"


@pytest.mark.slow
def test_only_ours_never_shows_half_a_version():
    result = subprocess.run(
        [sys.executable, str(PROGRAM), "--kills", "20"], capture_output=True, text=True, check=True
    )
    ours, tfx = (json.loads(line) for line in result.stdout.splitlines())
    assert (ours["side"], tfx["side"]) == ("ours", "tfx")
    assert ours["pushes_killed"] == tfx["pushes_killed"] == 20
    assert ours["versions"] > 0
    assert (ours["incomplete"], ours["failed_loads"]) == (0, 0)
    assert tfx["incomplete"] > 0
    assert tfx["failed_loads"] > 0
