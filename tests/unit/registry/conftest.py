"""Fixtures for what is served."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder that a server watches; it is not there yet."""
    return tmp_path / "serving" / "mnist_gan"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with the files of a SavedModel."""
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.data").write_bytes(os.urandom(10_000))
    return folder


@pytest.fixture
def another(model: Path) -> Callable[[str], Path]:
    """A function that gives the model another graph."""

    def change(graph: str) -> Path:
        (model / "saved_model.pb").write_text(graph)
        return model

    return change


@pytest.fixture
def files_of() -> Callable[[Path], dict[str, bytes]]:
    """A function that reads all files below a folder, by relative path."""

    def read(folder: Path) -> dict[str, bytes]:
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    return read
