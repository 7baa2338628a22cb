"""The programs that the README names for its figures begin as it says they are called."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(
    path.name for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()
)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_each_says_how_it_is_used(program: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / program), "--help"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage: " in result.stdout
