"""What was damaged between runs is noticed and set aside."""

import json
import os
import shutil
from pathlib import Path

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from components.pusher.versions import list_versions, push_files, retire
from pipeline.config import Settings
from pipeline.local.damage import find_damage, mend
from pipeline.local.history import open_store
from pipeline.local.places import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """An output folder with a database and an artifact."""
    places = Places(tmp_path / "out")
    (places.artifacts / "Trainer" / "model" / "7").mkdir(parents=True)
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(places.database.file)
    pushed_model(MetadataStore(config), {})
    return places


@pytest.fixture
def settings(places: Places) -> Settings:
    return Settings(output_dir=str(places.root))


def pushed_model(store: MetadataStore, noted: dict[str, str], uri: str = "/nowhere") -> None:
    kind = store.put_artifact_type(metadata_store_pb2.ArtifactType(name="PushedModel"))
    artifact = metadata_store_pb2.Artifact(type_id=kind, uri=uri)
    for name, value in noted.items():
        artifact.custom_properties[name].string_value = value
    store.put_artifacts([artifact])


def garbage(database: Path) -> None:
    database.write_bytes(os.urandom(5000))


def cut(database: Path) -> None:
    database.write_bytes(database.read_bytes()[:10_000])


def holed(database: Path) -> None:
    content = database.read_bytes()
    middle = len(content) // 2
    database.write_bytes(content[: middle - 6000] + bytes(12_000) + content[middle + 6000 :])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (garbage, "not a database"),
        (cut, "malformed"),
        (holed, "damaged"),
        (lambda database: database.write_bytes(b""), "is gone"),
        (Path.unlink, "is gone"),
    ],
)
def test_a_damaged_database_takes_its_artifacts_with_it(places, settings, damage, said):
    assert find_damage(settings, places) == ""
    assert mend(settings, places) == []
    damage(places.database.file)
    assert said in find_damage(settings, places)
    [done] = mend(settings, places)
    assert "the history begins anew" in done
    [aside] = (places.root / "set-aside").iterdir()
    assert (aside / "artifacts" / "Trainer" / "model" / "7").is_dir()
    assert not places.artifacts.exists()
    assert not places.database.file.exists()
    assert find_damage(settings, places) == ""


def test_a_new_folder_has_no_damage(tmp_path):
    settings = Settings(output_dir=str(tmp_path / "new"))
    assert find_damage(settings, Places(tmp_path / "new")) == ""
    assert mend(settings, Places(tmp_path / "new")) == []


def test_a_push_without_a_copy_is_missed_only_while_nothing_is_served(places, settings, tmp_path):
    serving, model = places.serving / "mnist_gan", tmp_path / "model"
    model.mkdir()
    for content in (b"one", b"two"):
        (model / "saved_model.pb").write_bytes(content)
        version = push_files(str(model), str(serving))
    older = list_versions(str(serving))[0]
    pushed_model(open_store(places.database), {"pushed_destination": str(serving / str(version))})
    assert find_damage(settings, places) == ""
    (serving / str(version)).rename(tmp_path / "moved")
    assert find_damage(settings, places) == ""
    (serving / str(older)).rename(tmp_path / "moved-too")
    assert find_damage(settings, places) == f"version {version} was pushed and is gone"


def test_a_version_that_was_retired_is_not_missed(places, settings, tmp_path):
    serving, model = places.serving / "mnist_gan", tmp_path / "model"
    model.mkdir()
    for content in (b"one", b"two"):
        (model / "saved_model.pb").write_bytes(content)
        push_files(str(model), str(serving))
    first = list_versions(str(serving))[0]
    pushed_model(open_store(places.database), {"pushed_destination": str(serving / str(first))})
    retire(str(serving), first, "wrong span")
    assert find_damage(settings, places) == ""


def test_a_version_is_restored_as_often_as_it_is_lost(places, settings, tmp_path):
    serving, model = places.serving / "mnist_gan", tmp_path / "model"
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"graph")
    version = push_files(str(model), str(serving))
    copy = places.artifacts / "Pusher" / "pushed_model" / "9"
    shutil.copytree(serving / str(version), copy)
    pushed = {"pushed_destination": str(serving / str(version))}
    pushed_model(open_store(places.database), pushed, str(copy))
    for damage in ("deleted", "altered", "deleted"):
        [lost] = list_versions(str(serving))
        if damage == "deleted":
            shutil.rmtree(serving / str(lost))
        else:
            (serving / str(lost) / "saved_model.pb").write_bytes(b"other")
        assert str(lost) in find_damage(settings, places)
        assert f"version {lost} was gone and is served again" in mend(settings, places)[-1]
        assert find_damage(settings, places) == ""
        [made] = list_versions(str(serving))
        assert (serving / str(made) / "saved_model.pb").read_bytes() == b"graph"
    (serving / str(made)).rename(tmp_path / "moved")
    retired = {"event": "retire", "version": made, "reason": "by hand", "at": ""}
    with open(serving / ".history.jsonl", "a") as file:
        file.write(json.dumps(retired) + "\n")
    assert find_damage(settings, places) == ""
