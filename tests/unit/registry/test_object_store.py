"""Pushes where there is no rename: TensorFlow's file system in memory stands for a bucket."""

import threading
import time
import uuid
from pathlib import Path

import pytest
import tensorflow as tf

import storage
from registry.layout import PUSH_RECORD, list_versions, version_address
from registry.push import push
from registry.records import read_record


@pytest.fixture
def bucket(monkeypatch) -> str:
    """An empty base; the file system in memory keeps no times, so each file counts as new."""
    monkeypatch.setattr(storage, "modified", lambda address: time.time())
    return f"ram://{uuid.uuid4().hex}/models"


def test_a_version_is_the_model_with_a_record_and_what_is_added(bucket, model):
    version = push(model, bucket, extra_files={"assets.extra/card.md": b"a card"})
    assert list_versions(bucket) == [version]
    place = f"{bucket}/{version}"
    assert storage.read(f"{place}/saved_model.pb") == b"graph"
    data = (model / "variables" / "variables.data").read_bytes()
    assert storage.read(f"{place}/variables/variables.data") == data
    assert storage.read(f"{place}/assets.extra/card.md") == b"a card"
    record = read_record(version_address(bucket, version))
    assert record.version == version
    assert {*record.files, PUSH_RECORD} == set(storage.files_in(place))


def test_the_newest_model_is_not_pushed_again(bucket, model):
    version = push(model, bucket)
    assert push(model, bucket) == version
    (model / "saved_model.pb").write_bytes(b"another")
    assert push(model, bucket) > version


class Killed(BaseException):
    """Stands for SIGKILL, after which nothing more is written."""


def test_a_push_that_ends_early_shows_no_saved_model(bucket, model, monkeypatch):
    """It is cut off before each of its writes in turn; the folder is then removed an hour later."""
    gfile, written = tf.io.gfile.GFile, []

    def at_time(claimed: float) -> None:
        """Stands for the time of a claim, which the file system in memory does not keep."""
        monkeypatch.setattr(storage, "modified", lambda address: claimed)

    def cut_off(after: int):
        def opened(path, mode="r"):
            if "w" in mode:
                if len(written) == after:
                    raise Killed
                written.append(path)
            return gfile(path, mode)

        return opened

    total = 1 + 2 + 1 + 1  # the claim, the model's files, the record, an extra file
    for after in range(total):
        written.clear()
        at_time(time.time())
        monkeypatch.setattr(tf.io.gfile, "GFile", cut_off(after))
        with pytest.raises(Killed):
            push(model, bucket, extra_files={"assets.extra/card.md": b"a card"})
        monkeypatch.undo()
        assert list_versions(bucket) == []
    at_time(time.time())
    partial = [n for n in tf.io.gfile.listdir(bucket) if n.strip("/").isdecimal()]
    assert partial
    push(model, bucket)
    assert set(partial) <= set(tf.io.gfile.listdir(bucket)), "a push may still be writing there"
    at_time(time.time() - 3601)
    (model / "saved_model.pb").write_bytes(b"another")
    push(model, bucket)
    names = [n.strip("/") for n in tf.io.gfile.listdir(bucket) if n.strip("/").isdecimal()]
    assert sorted(map(int, names)) == list_versions(bucket)


def test_pushes_at_once_take_numbers_of_their_own(bucket, tmp_path):
    models = []
    for name in "abcdef":
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_bytes(name.encode() * 1000)
        models.append(str(tmp_path / name))
    versions: dict[str, int] = {}
    start = threading.Barrier(len(models))

    def push_one(folder: str) -> None:
        start.wait()
        versions[folder] = push(folder, bucket)

    threads = [threading.Thread(target=push_one, args=[folder]) for folder in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions.values()) == list_versions(bucket)
    assert len(versions) == len(models)
    for folder, version in versions.items():
        assert (
            storage.read(f"{bucket}/{version}/saved_model.pb")
            == Path(folder, "saved_model.pb").read_bytes()
        )
