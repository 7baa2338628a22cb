"""The state that a warm start takes, as part of the cache key."""

import json
import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf

from models.gan.warm_start import TrainingLineage, write_final_state
from pipeline.local.warm_start import training_start
from registry.layout import MODEL_CARD, TRAINING_STATE

TRAIN = {"warm_start": "auto", "seed": 0}


def push(
    version: Path, weight: float, origin: str | None, digits: str, train: dict[str, Any]
) -> None:
    """What a version holds of the training behind it: its state, and what its card says."""
    lineage = TrainingLineage(origin=origin, is_warm=origin is not None)
    variables = {"generator_000": tf.Variable(weight)}
    write_final_state(str(version / TRAINING_STATE), variables, 1, lineage)
    card = {"data": {"fingerprint": digits}, "settings": {"train": train}}
    (version / MODEL_CARD).write_text(json.dumps(card))


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
    (tmp_path / "1").mkdir()
    assert training_start(tmp_path, TRAIN, "a") == ""
    push(tmp_path / "2", 1.0, None, "a", TRAIN)
    (tmp_path / "2" / MODEL_CARD).write_text("no card")
    assert len(training_start(tmp_path, TRAIN, "a")) == 64
