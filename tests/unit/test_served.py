"""Which served version a model is to be compared with."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from models.gan.warm_start import TrainingLineage, write_final_state
from pipeline.local.served import baseline_version, training_start


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


TRAIN = {"warm_start": "auto", "seed": 0}


def push(
    version: Path, weight: float, origin: str | None, digits: str, train: dict[str, Any]
) -> None:
    """What a version holds of the training behind it: its state, and what its card says."""
    course = TrainingLineage(origin=origin, is_warm=origin is not None)
    write_final_state(str(version), {"generator_000": tf.Variable(weight)}, 1, course)
    card = {"data": {"fingerprint": digits}, "settings": {"train": train}}
    (version / "assets.extra" / "model_card.json").write_text(json.dumps(card))


def test_a_training_begins_with_the_newest_version_and_a_repeated_one_where_it_began(tmp_path):
    def start(digits: str, train: dict[str, Any] = TRAIN) -> str:
        return training_start(tmp_path, train, digits)

    assert start("a") == ""
    push(tmp_path / "1", 1.0, None, "a", TRAIN)
    first = start("b")
    assert len(first) == 64
    assert start("a") == ""  # which is how version 1 itself began
    push(tmp_path / "2", 2.0, first, "b", TRAIN)
    assert start("b") == first
    second = start("c")
    assert len({"", first, second}) == 3
    assert start("b", TRAIN | {"seed": 1}) == second
    # Rolled back to: the same training, under another number.
    shutil.copytree(tmp_path / "1", tmp_path / "3")
    assert start("b") == first


def test_a_version_without_a_state_or_a_card_is_nothing_to_begin_with(tmp_path):
    write_model(tmp_path / "1", b"graph")
    assert training_start(tmp_path, TRAIN, "a") == ""
    push(tmp_path / "2", 1.0, None, "a", TRAIN)
    (tmp_path / "2" / "assets.extra" / "model_card.json").write_text("no card")
    assert len(training_start(tmp_path, TRAIN, "a")) == 64
