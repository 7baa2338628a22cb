"""Pushes where there is no rename: TensorFlow's file system in memory stands for a bucket."""

import json
import threading
import uuid
from pathlib import Path

import pytest
import tensorflow as tf

from components.pusher.object_store import is_object_store, list_versions, push_objects


@pytest.fixture
def bucket() -> str:
    return f"ram://{uuid.uuid4().hex}/models"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.data").write_bytes(bytes(range(256)) * 100)
    return folder


def read(path: str) -> bytes:
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read()


def test_a_version_is_the_model_with_a_record_and_what_is_added(bucket, model):
    version = push_objects(str(model), bucket, {"assets.extra/card.md": b"a card"})
    assert list_versions(bucket) == [version]
    place = f"{bucket}/{version}"
    assert read(f"{place}/saved_model.pb") == b"graph"
    data = (model / "variables" / "variables.data").read_bytes()
    assert read(f"{place}/variables/variables.data") == data
    assert read(f"{place}/assets.extra/card.md") == b"a card"
    assert json.loads(read(f"{place}/assets.extra/push.json"))["version"] == version


def test_the_newest_model_is_not_pushed_again(bucket, model):
    version = push_objects(str(model), bucket, {})
    assert push_objects(str(model), bucket, {}) == version
    (model / "saved_model.pb").write_bytes(b"another")
    assert push_objects(str(model), bucket, {}) > version


class Killed(BaseException):
    """Stands for SIGKILL, after which nothing more is written."""


def test_a_push_that_ends_early_shows_no_saved_model(bucket, model, monkeypatch):
    """It is cut off before each of its writes in turn; the folder is then removed an hour later."""
    gfile, written = tf.io.gfile.GFile, []

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
        monkeypatch.setattr(tf.io.gfile, "GFile", cut_off(after))
        with pytest.raises(Killed):
            push_objects(str(model), bucket, {"assets.extra/card.md": b"a card"})
        monkeypatch.undo()
        assert list_versions(bucket) == []
    partial = [n for n in tf.io.gfile.listdir(bucket) if n.strip("/").isdecimal()]
    assert partial
    push_objects(str(model), bucket, {})
    assert set(partial) <= set(tf.io.gfile.listdir(bucket)), "a push may still be writing there"
    monkeypatch.setattr("components.pusher.object_store._ABANDONED_SECONDS", -1.0)
    (model / "saved_model.pb").write_bytes(b"another")
    push_objects(str(model), bucket, {})
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

    def push(folder: str) -> None:
        start.wait()
        versions[folder] = push_objects(folder, bucket, {})

    threads = [threading.Thread(target=push, args=[folder]) for folder in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions.values()) == list_versions(bucket)
    for folder, version in versions.items():
        assert (
            read(f"{bucket}/{version}/saved_model.pb")
            == Path(folder, "saved_model.pb").read_bytes()
        )


def test_what_is_an_object_store():
    assert is_object_store("gs://bucket/models")
    assert is_object_store("s3://bucket/models")
    assert not is_object_store("/var/models")
    assert not is_object_store("outputs/serving")
