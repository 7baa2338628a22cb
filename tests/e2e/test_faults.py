"""Parts of what `tools/fault_matrix.py` and `tools/faults.py` do; without arguments they do all."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "true"]


def call(tool: str, *arguments: str) -> list[list[str]]:
    """Returns the cells of the rows that a tool prints."""
    try:
        subprocess.run(NAMESPACE, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespaces here")
    command = [sys.executable, str(TOOLS / tool), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line for line in result.stdout.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]


@pytest.mark.slow
@pytest.mark.nightly
def test_a_push_that_is_killed_or_finds_the_disk_full_is_made_good():
    rows = call("faults.py", "--fault", "kill", "--fault", "disk", "--node", "Pusher")
    assert [row[1] for row in rows] == [
        *(f"Pusher, {moment}" for moment in ("start", "middle", "end")),
        *(f"Pusher, {room} bytes left" for room in ("0", "200,000")),
    ]


@pytest.mark.slow
@pytest.mark.nightly
def test_commands_lose_nothing_in_a_read_only_folder_and_with_a_damaged_version():
    faults = ["read-only output folder", "variables gone", "half-written span"]
    options = [part for fault in faults for part in ("--fault", fault)]
    rows = call("fault_matrix.py", *options, "--command", "retrain", "--command", "rollback")
    assert rows == [[faults[0], "0", "2"], [faults[1], "0", "0"], [faults[2], "0", "n/a"]]
