"""What was damaged between runs is noticed and set aside."""

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from pipeline.local.history import open_store
from pipeline.local.metadata import DatabaseUnreadableError
from pipeline.local.paths import Places
from pipeline.local.recovery import find_damage, lost_push, repair_damage
from registry.history import Event, add_event, now
from registry.layout import list_versions
from registry.push import copy_version
from registry.rollback import retire
from tests.unit.database_holders import holding, kill_in_transaction


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """An output folder with a database and an artifact."""
    places = Places(tmp_path / "out")
    (places.artifacts / "Trainer" / "model" / "7").mkdir(parents=True)
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(places.database.file)
    MetadataStore(config)
    return places


def pushed_model(store: MetadataStore, destination: Path, uri: str = "/nowhere") -> None:
    kind = store.put_artifact_type(metadata_store_pb2.ArtifactType(name="PushedModel"))
    artifact = metadata_store_pb2.Artifact(type_id=kind, uri=uri)
    artifact.custom_properties["pushed_destination"].string_value = str(destination)
    store.put_artifacts([artifact])


def garbage(database: Path) -> None:
    database.write_bytes(os.urandom(5000))


def cut(database: Path) -> None:
    database.write_bytes(database.read_bytes()[:10_000])


def empty(database: Path) -> None:
    database.write_bytes(b"")


def holed(database: Path) -> None:
    content = database.read_bytes()
    middle = len(content) // 2
    database.write_bytes(content[: middle - 6000] + bytes(12_000) + content[middle + 6000 :])


@pytest.mark.parametrize("damage", [garbage, cut, holed, empty, Path.unlink])
def test_a_damaged_database_takes_its_artifacts_with_it(places, damage):
    assert find_damage(places) == ""
    assert repair_damage(places) == []
    damage(places.database.file)
    assert find_damage(places)
    assert len(repair_damage(places)) == 1
    [aside] = (places.root / "set-aside").iterdir()
    assert (aside / "artifacts" / "Trainer" / "model" / "7").is_dir()
    assert not places.artifacts.exists()
    assert not places.database.file.exists()
    assert find_damage(places) == ""


def test_what_was_set_aside_earlier_is_kept(places):
    note = places.root / "metadata.sqlite.note"
    note.write_text("of the operator")
    for count in (1, 2, 3):
        garbage(places.database.file)
        repair_damage(places)
        assert len(list((places.root / "set-aside").iterdir())) == count
    assert note.exists()


def unlinked_target(database: Path) -> None:
    database.rename(database.with_name("away"))
    database.symlink_to("nowhere")


def folder(database: Path) -> None:
    database.unlink()
    database.mkdir()


def fifo(database: Path) -> None:
    database.unlink()
    os.mkfifo(database)


@pytest.mark.parametrize("obstacle", [unlinked_target, folder, fifo])
def test_a_database_that_cannot_be_read_is_not_damaged(places, obstacle):
    obstacle(places.database.file)
    before = sorted(os.walk(places.root))
    for look in (find_damage, repair_damage):
        with pytest.raises(DatabaseUnreadableError):
            look(places)
    assert sorted(os.walk(places.root)) == before


@pytest.mark.parametrize(("patience", "is_enough"), [(0.2, False), (30.0, True)])
def test_a_locked_database_is_waited_for(places, patience, is_enough):
    database = replace(places.database, retry_seconds=patience)
    expected = contextlib.nullcontext() if is_enough else pytest.raises(DatabaseUnreadableError)
    store = database.open()
    for look in (database.damage, store.get_artifacts):
        with holding(database.file, "BEGIN EXCLUSIVE", seconds=4.0), expected:
            look()


def test_a_reader_delays_a_write_until_it_is_done(places):
    store = places.database.open()
    kind = store.put_artifact_type(metadata_store_pb2.ArtifactType(name="Written"))
    with holding(places.database.file, "BEGIN", seconds=8.0):
        store.put_artifacts([metadata_store_pb2.Artifact(type_id=kind, uri="/written")])
    assert [each.uri for each in store.get_artifacts_by_type("Written")] == ["/written"]


def test_what_a_killed_process_left_half_written_is_undone(places):
    database = places.database
    before = database.open().get_artifacts()
    kill_in_transaction(database.file)
    assert len(database.files()) == 2
    assert find_damage(places) == ""
    assert repair_damage(places) == []
    assert database.files() == [database.file]
    assert database.open().get_artifacts() == before


def test_a_new_folder_has_no_damage(tmp_path):
    assert find_damage(Places(tmp_path / "new")) == ""
    assert repair_damage(Places(tmp_path / "new")) == []


def test_a_push_without_a_copy_is_missed_only_while_nothing_is_served(places, tmp_path, push_graph):
    serving = places.versions
    older, version = (push_graph(serving, graph) for graph in ("one", "two"))
    pushed_model(open_store(places.database), serving / str(version))
    assert find_damage(places) == ""
    (serving / str(version)).rename(tmp_path / "moved")
    assert find_damage(places) == ""
    (serving / str(older)).rename(tmp_path / "moved-too")
    assert str(version) in find_damage(places)


def test_a_version_that_was_retired_is_not_missed(places, push_graph):
    first, _ = (push_graph(places.versions, graph) for graph in ("one", "two"))
    pushed_model(open_store(places.database), places.versions / str(first))
    retire(places.versions, first, "wrong span")
    assert find_damage(places) == ""


def test_a_version_is_restored_as_often_as_it_is_lost(places, tmp_path, push_graph):
    serving, copy = places.versions, places.artifacts / "Pusher" / "pushed_model" / "9"
    version = push_graph(serving)
    copy_version(serving, version, str(copy))
    pushed_model(open_store(places.database), serving / str(version), str(copy))
    for damage in ("deleted", "altered", "deleted"):
        [lost] = list_versions(serving)
        if damage == "deleted":
            shutil.rmtree(serving / str(lost))
        else:
            (serving / str(lost) / "saved_model.pb").write_bytes(b"other")
        assert str(lost) in find_damage(places)
        assert any(f"version {lost} " in line for line in repair_damage(places))
        assert find_damage(places) == ""
        [made] = list_versions(serving)
        assert (serving / str(made) / "saved_model.pb").read_bytes() == b"graph"
    (serving / str(made)).rename(tmp_path / "moved")
    add_event(serving, Event(event="retire", at=now(), version=made, reason="by hand"))
    assert find_damage(places) == ""


def test_what_others_add_beside_a_version_is_no_damage(places, push_graph):
    version = push_graph(places.versions)
    destination = places.versions / str(version)
    pushed_model(open_store(places.database), destination)
    for name in (".DS_Store", "._saved_model.pb", "Thumbs.db", "desktop.ini", "NOTES.txt"):
        (destination / name).write_bytes(b"\0")
    for name in ("8", "9" * 20, "٣"):
        (places.versions / name).write_text("no version")
    assert find_damage(places) == ""
    assert repair_damage(places) == []
    assert list_versions(places.versions) == [version]


def test_the_only_version_stays_in_service_until_a_run_can_replace_it(places, push_graph):
    version = push_graph(places.versions)
    destination = places.versions / str(version)
    pushed_model(open_store(places.database), destination)
    (destination / "saved_model.pb").write_bytes(b"other")
    assert str(version) in find_damage(places)
    assert len(repair_damage(places)) == 1
    assert list_versions(places.versions) == [version]
    assert lost_push(places).version == version
    assert push_graph(places.versions) > version
    assert find_damage(places) == ""
