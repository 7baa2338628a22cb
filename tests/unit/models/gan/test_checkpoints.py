"""Checkpoints under real faults: torn and altered files, kills, full disks, other trainings."""

import json
import logging
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from checkpoint_children import (
    KEY,
    filled,
    on_two_replicas,
    save_as_nobody,
    save_forever,
    save_on_a_full_disk,
    values,
)
from hypothesis import given
from hypothesis import strategies as st

from models.gan.checkpoints import FINISHED, CheckpointError, Checkpoints, checkpoint_key

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
LABELS = np.array([3, 7])
EXACT = {
    "float32": np.array(
        [0x7FC12345, 0x80000001, 0x00000001, 0x80000000, 0xFF800000, 0x3DCCCCCD], np.uint32
    ).view(np.float32),  # a NaN with a payload, the smallest denormals, -0, -inf, 0.1
    "float64": np.array([np.nan, 5e-324, -0.0, 0.1]),
    "int64": np.array([[-(2**63)], [2**63 - 1]]),
    "int32": np.array(-7, np.int32),
    "uint8": np.arange(256, dtype=np.uint8),
    "bool": np.array([True, False, True]),
    "empty": np.zeros([0, 3], np.float32),
    "gan/dense.1/kernel": np.ones([2, 3], np.float32),
    "save_counter": np.array(5, np.int64),
}
# Forks of a process that has TensorFlow imported but not started: a second each, not ten.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["tensorflow"])


def save(root: Path | str, step: int, **kwargs: Any) -> None:
    Checkpoints(str(root), KEY, filled(step), **kwargs).save(step, {"seconds": step / 3})


def restored(root: Path | str) -> int | None:
    """The step of the newest whole checkpoint, once all that it holds is found to be of it."""
    variables = filled(-1)
    found = Checkpoints(str(root), KEY, variables).restore()
    if found is None:
        assert values(variables) == values(filled(-1))
        return None
    step, extra = found
    assert extra == {"seconds": step / 3}
    assert values(variables) == values(filled(step))
    return step


def folders(root: Path) -> list[Path]:
    return sorted((root / KEY).iterdir())


def data_of(folder: Path) -> Path:
    return folder / "state.data-00000-of-00001"


def truncate(path: Path, length: int) -> None:
    os.truncate(path, length if length >= 0 else path.stat().st_size + length)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def edit(path: Path, old: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, old.replace(b"2", b"3")))


DATA, INDEX, MANIFEST = "state.data-00000-of-00001", "state.index", "manifest.json"
FAULTS: list[tuple[str, Callable[..., object], tuple[Any, ...]]] = [
    *((DATA, truncate, (length,)) for length in (0, 1, 600, -1)),
    *((DATA, flip, (position,)) for position in (0, 601, -1)),
    (DATA, extend, ()),
    *((file, Path.unlink, ()) for file in (DATA, INDEX, MANIFEST)),
    (INDEX, truncate, (20,)),
    (INDEX, flip, (40,)),
    *((MANIFEST, truncate, (length,)) for length in (0, 1, 200, -1)),
    *((MANIFEST, Path.write_text, (text,)) for text in ("[]", "{}", "null", '{"content": {}}')),
    (MANIFEST, Path.write_bytes, (b"\xff\xfe\x00{",)),
    (MANIFEST, edit, (b'"step": 2',)),
]


@pytest.mark.parametrize(("file", "damage", "arguments"), FAULTS)
def test_broken_newest_falls_back(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    file: str,
    damage: Callable[..., object],
    arguments: tuple[Any, ...],
) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    newest = folders(tmp_path)[-1]
    damage(newest / file, *arguments)
    assert restored(tmp_path) == 1
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("mnist_gan.progress", logging.WARNING)
    assert f"{newest}: " in record.message
    assert file in record.message


def test_broken_one_does_not_push_out_a_whole_one(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    truncate(data_of(folders(tmp_path)[-1]), 10)
    resumed = Checkpoints(str(tmp_path), KEY, filled(2))
    assert resumed.restore() == (1, {"seconds": 1 / 3})
    resumed.save(2, {})
    assert len(folders(tmp_path)) == 2
    truncate(data_of(folders(tmp_path)[-1]), 10)
    assert restored(tmp_path) == 1


def test_nothing_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert restored(tmp_path) is None
    assert restored(tmp_path / "missing") is None
    assert not caplog.records
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_bits_and_names_are_kept(tmp_path: Path, scheme: str) -> None:
    root = f"{scheme}{tmp_path}/"
    extra = {
        "best": 0.1 + 0.2,
        "nan": float("nan"),
        "count": 2**60,
        "list": (1, None),
        2: "é\ud800",
    }
    saved = {name: tf.Variable(value) for name, value in EXACT.items()}
    Checkpoints(root, KEY, saved).save(12, extra)
    fresh = {name: tf.Variable(tf.zeros_like(value)) for name, value in EXACT.items()}
    reordered = dict(reversed(fresh.items()))
    found = Checkpoints(root, KEY, reordered).restore()
    assert found is not None
    assert repr(found) == repr((12, json.loads(json.dumps(extra))))
    for name, value in EXACT.items():
        assert fresh[name].dtype == value.dtype
        assert fresh[name].numpy().tobytes() == value.tobytes(), name


def test_keras_network_and_optimizer(tmp_path: Path) -> None:
    def made() -> tuple[keras.Model, keras.optimizers.Optimizer, dict[str, tf.Variable]]:
        network = keras.Sequential(
            [keras.Input([3]), keras.layers.Dense(2), keras.layers.BatchNormalization()]
        )
        optimizer = keras.optimizers.Adam(0.1)
        optimizer.build(network.trainable_variables)
        state = [*network.variables, *optimizer.variables]
        return network, optimizer, {f"{i}": variable.value for i, variable in enumerate(state)}

    def train(network: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(tf.eye(3), training=True) ** 3)
        optimizer.apply(tape.gradient(loss, network.trainable_variables))

    network, optimizer, state = made()
    train(network, optimizer)
    Checkpoints(str(tmp_path), KEY, state).save(1, {})
    train(network, optimizer)
    resumed_network, resumed_optimizer, resumed = made()
    assert Checkpoints(str(tmp_path), KEY, resumed).restore() == (1, {})
    train(resumed_network, resumed_optimizer)
    for name, variable in state.items():
        assert resumed[name].numpy().tobytes() == variable.numpy().tobytes()


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_keeps_the_newest(tmp_path: Path, keep: int) -> None:
    for step in range(1, 7):
        save(tmp_path, step, keep=keep)
        assert len(folders(tmp_path)) == min(step, keep)
    for step in range(6, 6 - keep, -1):
        assert restored(tmp_path) == step
        truncate(data_of(folders(tmp_path)[step - 7 + keep]), 0)
    assert restored(tmp_path) is None


def test_newest_is_the_last_saved(tmp_path: Path) -> None:
    for step in (9, 10, 10, 3):
        save(tmp_path, step)
        assert restored(tmp_path) == step


def test_leftovers_of_a_killed_save_go_at_the_next(tmp_path: Path) -> None:
    save(tmp_path, 1)
    leftover = tmp_path / KEY / "0000002-step-0000002"
    (leftover / "state_temp").mkdir(parents=True)
    (leftover / "state_temp" / "part").write_bytes(b"x")
    (tmp_path / KEY / "notes.txt").write_text("not a checkpoint")
    save(tmp_path, 2)
    assert [path.name for path in folders(tmp_path)] == [
        "0000001-step-0000001",
        "0000003-step-0000002",
        "notes.txt",
    ]
    assert restored(tmp_path) == 2


def test_clear_removes_this_key_only(tmp_path: Path) -> None:
    save(tmp_path, 1)
    other = Checkpoints(str(tmp_path), "other", filled(4))
    other.save(4, {})
    Checkpoints(str(tmp_path), KEY, filled(0)).clear()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert restored(tmp_path) is None
    assert other.restore() == (4, {})
    Checkpoints(str(tmp_path), KEY, filled(0)).clear()


def test_a_finished_training_can_be_resumed_until_it_is_cleared(tmp_path: Path) -> None:
    save(tmp_path, 1)
    checkpoints = Checkpoints(str(tmp_path), KEY, filled(0))
    checkpoints.mark_finished()
    assert (tmp_path / KEY / FINISHED).exists()
    assert restored(tmp_path) == 1
    checkpoints.clear()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"weights": np.zeros([2], np.float32)}, "weights"),
        ({"weights": np.zeros([300])}, "weights"),
        ({"step": np.zeros([1], np.int64)}, "step"),
        ({"new": np.array(0)}, "new"),
        ({"flag": None}, "flag"),
    ],
    ids=["shape", "dtype", "rank", "new", "gone"],
)
def test_other_variables_are_refused_and_none_set(
    tmp_path: Path, changed: dict[str, np.ndarray | None], name: str
) -> None:
    save(tmp_path, 1)
    mixed = {key: value for key, value in (filled(-1) | changed).items() if value is not None}
    variables = {key: tf.Variable(value) for key, value in mixed.items()}
    before = values(variables)
    with pytest.raises(CheckpointError, match=rf"variable {name}\b.*from the start"):
        Checkpoints(str(tmp_path), KEY, variables).restore()
    assert values(variables) == before


def test_refused_arguments(tmp_path: Path) -> None:
    variable = tf.Variable(1.0)
    with pytest.raises(ValueError, match="keep must be 1 or more, not 0"):
        Checkpoints(str(tmp_path), KEY, {"a": variable}, keep=0)
    with pytest.raises(ValueError, match="two names"):
        Checkpoints(str(tmp_path), KEY, {"a": variable, "b": variable})


def test_extra_that_json_cannot_hold(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(TypeError):
        Checkpoints(str(tmp_path), KEY, filled(2)).save(2, {"tensor": tf.zeros([])})
    assert len(folders(tmp_path)) == 1
    assert restored(tmp_path) == 1


def test_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / KEY).touch()
    for root in (tmp_path, tmp_path / "file"):
        with pytest.raises(CheckpointError, match=f"{root}/{KEY}: .*step 2"):
            save(root, 2)
    with pytest.raises(CheckpointError, match=f"{tmp_path}/{KEY}: cannot list"):
        restored(tmp_path)


def in_child(target: Callable[..., None], *arguments: Any) -> str:
    here, there = CHILDREN.Pipe()
    child = CHILDREN.Process(target=target, args=(there, *arguments))
    child.start()
    there.close()
    try:
        return here.recv()
    finally:
        child.join()


@pytest.mark.parametrize(
    ("limit", "extra", "file"),
    [(0, {}, "state"), (8000, {}, "state"), (25_000, {"x": "x" * 30_000}, "manifest")],
    ids=["nothing fits", "part of the tensors fits", "part of the manifest fits"],
)
def test_full_disk(tmp_path: Path, limit: int, extra: dict, file: str) -> None:
    save(tmp_path, 1)
    before = folders(tmp_path)
    message = in_child(save_on_a_full_disk, str(tmp_path), limit, extra)
    assert message.startswith(f"{tmp_path}/{KEY}: ")
    assert file in message
    assert "; File too large; free some space" in message
    assert folders(tmp_path) == before
    assert restored(tmp_path) == 1
    save(tmp_path, 2)
    assert restored(tmp_path) == 2


def test_folder_of_someone_else(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / KEY).chmod(0o500)
    message = in_child(save_as_nobody, str(tmp_path))
    (tmp_path / KEY).chmod(0o700)
    assert message.startswith(f"{tmp_path}/{KEY}: ")
    assert "ermission denied" in message
    assert restored(tmp_path) == 1


def killed_while_saving(root: Path, delay: float) -> tuple[int, int]:
    """The step that a process began with, and the last that it reported before it was killed."""
    here, there = CHILDREN.Pipe()
    child = CHILDREN.Process(target=save_forever, args=(there, str(root)))
    child.start()
    there.close()
    began = last = here.recv()
    time.sleep(delay)
    child.kill()
    child.join()
    try:
        while True:
            last = here.recv()
    except EOFError:
        return began, last


def test_kills_while_saving(tmp_path: Path) -> None:
    delays = random.Random(0)
    done = 0
    for attempt in range(6):
        delay = (1 + attempt) * delays.uniform(0.05, 0.6)  # a busy machine saves slowly
        began, reported = killed_while_saving(tmp_path, delay)
        assert began == done
        variables = filled(-1, size=20_000)
        found = Checkpoints(str(tmp_path), KEY, variables).restore()
        done, extra = found or (0, {"seconds": 0.0})
        assert done in (reported, reported + 1)
        if found:
            assert extra == {"seconds": done / 3}
            assert values(variables) == values(filled(done, size=20_000))
    assert done > 0
    save(tmp_path, done + 1)
    assert len(folders(tmp_path)) == 2
    assert restored(tmp_path) == done + 1


def test_replicas_are_saved_once_and_all_set(tmp_path: Path) -> None:
    assert in_child(on_two_replicas, str(tmp_path)) == "all set"
    one = filled(0) | {"keras": tf.Variable([0.0, 0.0])}
    assert Checkpoints(str(tmp_path), KEY, one).restore() == (5, {})
    assert values(one)[:3] == values(filled(5))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
settings = st.dictionaries(st.text(), scalars | st.lists(scalars, max_size=3), max_size=6)


@given(settings, st.data())
def test_key_follows_every_setting(before: dict[str, Any], data: st.DataObject) -> None:
    key = checkpoint_key(before, IMAGES, LABELS)
    assert len(key) == 16
    assert checkpoint_key(dict(reversed(before.items())), IMAGES, LABELS) == key
    name = data.draw(st.sampled_from(sorted(before)) if before else st.text())
    after = before | {name: data.draw(scalars)}
    same = json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True)
    assert (checkpoint_key(after, IMAGES, LABELS) == key) == same
    if before:
        without = {other: value for other, value in before.items() if other != name}
        assert checkpoint_key(without, IMAGES, LABELS) != key


def test_key_follows_the_data() -> None:
    changed = IMAGES.copy()
    changed[-1, -1, -1] += 1
    keys = [
        checkpoint_key({}, images, labels)
        for images, labels in [
            (IMAGES, LABELS),
            (changed, LABELS),
            (IMAGES, LABELS[::-1]),
            (IMAGES, LABELS.astype(np.int32)),
            (IMAGES[..., np.newaxis], LABELS),
            (IMAGES.view(np.int8), LABELS),
            (IMAGES[:1], LABELS),
            (IMAGES[:0], LABELS),
            (LABELS, IMAGES),
        ]
    ]
    assert len(set(keys)) == len(keys)
    assert checkpoint_key({}, np.asfortranarray(IMAGES), LABELS.copy()) == keys[0]


def test_key_follows_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {checkpoint_key({}, IMAGES, LABELS)}
    for module in (tf, keras):
        with monkeypatch.context() as patched:
            patched.setattr(module, "__version__", "0.0.0")
            keys.add(checkpoint_key({}, IMAGES, LABELS))
    assert len(keys) == 3
