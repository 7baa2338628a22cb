"""Which Python the set-up takes, with stand-ins for what machines have."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WITH_HEADERS = "exit 0"
BARE = 'case "$2" in *Python.h*) exit 1 ;; esac'
NO_UV = "exit 1"
UV = """
case "$*" in
    "python find 3.10") echo python3.10 ;;
    "python find "*) echo {managed} ;;
esac
"""


@pytest.mark.parametrize(
    ("python", "uv", "taken"),
    [
        (WITH_HEADERS, UV, "python3.10"),
        (BARE, UV, "managed"),
        (BARE, NO_UV, "python3.10"),
        ("exit 1", UV, "managed"),
        ("exit 1", NO_UV, None),
    ],
    ids=["headers", "no headers, uv", "no headers, no uv", "no Python, uv", "neither"],
)
def test_a_python_that_pyfarmhash_can_be_built_with_comes_first(tmp_path, python, uv, taken):
    managed = tmp_path / "managed"
    programs = {"python3.10": python, "uv": uv.format(managed=managed), "pyenv": "exit 1"}
    for name, script in {**programs, "managed": WITH_HEADERS}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [ROOT / "scripts/setup.sh", "python"],
        env={"PATH": f"{tmp_path}:{os.defpath}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if taken:
        assert (done.returncode, Path(done.stdout.strip()).name) == (0, taken)
    else:
        assert done.returncode == 1
        assert "no Python 3.10 found" in done.stderr
