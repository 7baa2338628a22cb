"""The benchmarks and tools start as docs/benchmarks.md says they are called."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("benchmarks", "tools")
    for path in (ROOT / folder).glob("*.py")
    if "__main__" in path.read_text()
)
COMMANDS = sorted(
    set(re.findall(r"`((?:benchmarks|tools)/[^`]+)`", (ROOT / "docs/benchmarks.md").read_text()))
)
# The program as far as its arguments.
READ_ARGUMENTS = """
import argparse, os, runpy, sys
parse = argparse.ArgumentParser.parse_args
argparse.ArgumentParser.parse_args = lambda self: sys.exit(parse(self) is None)
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_each_says_how_it_is_used(program: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / program), "--help"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage: " in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_each_documented_command_is_understood(command: str, tmp_path: Path) -> None:
    program, *arguments = shlex.split(command)
    python = [sys.executable, "-c", READ_ARGUMENTS, str(ROOT / program), *arguments]
    result = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
