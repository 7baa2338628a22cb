"""Which served version a model is to be compared with."""

import shutil
from pathlib import Path

import pytest

from pipeline.local.served import baseline_version


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", b"graph")


def write_model(folder: Path, graph: bytes) -> Path:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(graph)
    (folder / "variables" / "variables.data").write_bytes(b"weights")
    return folder


def test_nothing_is_served(tmp_path, model):
    assert baseline_version(tmp_path / "serving", model) == ""
    (tmp_path / "serving" / ".incoming-7").mkdir(parents=True)
    assert baseline_version(tmp_path / "serving", model) == ""


def test_the_newest_by_number(tmp_path, model):
    for version in ("9", "10"):
        write_model(tmp_path / "serving" / version, version.encode())
    assert baseline_version(tmp_path / "serving", model) == "10"


def test_the_model_itself_is_passed_over(tmp_path, model):
    serving = tmp_path / "serving"
    write_model(serving / "1", b"another")
    shutil.copytree(model, serving / "2")
    (serving / "2" / "assets.extra").mkdir()
    (serving / "2" / "assets.extra" / "push.json").write_text("{}")
    assert baseline_version(serving, model) == "1"
    write_model(serving / "3", b"a third")
    assert baseline_version(serving, model) == "3"
    shutil.copytree(model, serving / "4")
    assert baseline_version(serving, model) == "3"
    for version in ("1", "3"):
        shutil.rmtree(serving / version)
    assert baseline_version(serving, model) == ""


def test_other_weights_are_another_model(tmp_path, model):
    serving = tmp_path / "serving"
    shutil.copytree(model, serving / "1")
    (serving / "1" / "variables" / "variables.data").write_bytes(b"WEIGHTS")
    assert baseline_version(serving, model) == "1"
