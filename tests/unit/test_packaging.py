"""What a wheel of the project takes with it."""

from pathlib import Path

import tomli

ROOT = Path(__file__).parents[2]


def test_a_wheel_has_every_file_that_is_no_module():
    setuptools = tomli.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    globs = setuptools["package-data"]
    rooms = [pattern.removesuffix("*") for pattern in setuptools["packages"]["find"]["include"]]
    packed = {
        path for package in globs for glob in globs[package] for path in (ROOT / package).glob(glob)
    }
    there = {
        path
        for package in rooms
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert there <= packed, sorted(map(str, there - packed))
