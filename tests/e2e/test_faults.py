"""A part of the fault matrix; `tools/faults.py` without arguments is all of it."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "tools" / "faults.py"
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "true"]


@pytest.mark.slow
@pytest.mark.nightly
def test_a_push_that_is_killed_or_finds_the_disk_full_is_made_good():
    try:
        subprocess.run(NAMESPACE, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespaces here")
    command = [sys.executable, str(PROGRAM), "--fault", "kill", "--fault", "disk"]
    result = subprocess.run(
        [*command, "--node", "Pusher"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line for line in result.stdout.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[1] for row in rows] == [
        *(f"Pusher, {moment}" for moment in ("start", "middle", "end")),
        *(f"Pusher, {room} bytes left" for room in ("0", "200,000")),
    ]
