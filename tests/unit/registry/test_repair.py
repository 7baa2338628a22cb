"""A served version that was altered or deleted is replaced, and never withdrawn before that."""

import errno
import os
import shutil
from pathlib import Path

import pytest

import storage
from registry import local
from registry.history import read_history
from registry.integrity import can_restore, find_damaged, is_intact
from registry.layout import PUSH_RECORD, list_versions, newest_version, version_dir
from registry.push import copy_version, push
from registry.repair import LostVersion, repair
from registry.rollback import roll_back


def alter(version: Path) -> None:
    (version / "variables" / "variables.data").write_bytes(b"other")


def served_graph(base: Path) -> str:
    return (version_dir(base, newest_version(base)) / "saved_model.pb").read_text()


@pytest.mark.parametrize("name", [".DS_Store", "._saved_model.pb", "Thumbs.db", "desktop.ini"])
def test_files_that_others_add_change_no_verdict(base, model, name):
    version = version_dir(base, push(model, base))
    (version / name).write_bytes(b"\0\1")
    (version / "variables" / name).write_bytes(b"\0\1")
    (version / "lost+found").mkdir()
    (version / "NOTES.txt").symlink_to("NOTES.txt")
    assert is_intact(version)
    assert repair(base) == []


@pytest.mark.parametrize("damage", ["delete", "cut", "folder", "loop", "same size"])
def test_files_that_are_not_those_pushed_are_damage(base, model, damage):
    version = version_dir(base, push(model, base))
    path = version / "variables" / "variables.data"
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "folder":
        path.mkdir()
    elif damage == "loop":
        path.symlink_to(path)
    elif damage == "same size":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not is_intact(version)


def test_a_file_that_may_not_be_read_is_no_damage(base, model, monkeypatch):
    push(model, base)

    def refuse(path: str) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(storage, "read", refuse)
    with pytest.raises(PermissionError):
        repair(base)
    monkeypatch.undo()
    assert is_intact(version_dir(base, newest_version(base)))


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"5", b"{}", b"[" * 100_000, b"\xff"])
def test_a_record_that_does_not_fit_is_no_record(base, model, content):
    version = push(model, base)
    (version_dir(base, version) / PUSH_RECORD).write_bytes(content)
    assert is_intact(version_dir(base, version))
    assert not can_restore(version_dir(base, version))
    assert repair(base) == []
    (version_dir(base, version) / "saved_model.pb").unlink()
    assert find_damaged(base) == [version]


def test_without_a_replacement_an_altered_version_stays_in_service(base, another):
    only = push(another("a"), base)
    alter(version_dir(base, only))
    assert repair(base) == []
    assert list_versions(base) == [only]


def test_an_altered_version_makes_way_for_the_one_before(base, another):
    old, new = (push(another(graph), base) for graph in "ab")
    (version_dir(base, new) / "saved_model.pb").unlink()
    [event] = repair(base)
    assert (event.event, event.version, event.made) == ("damaged", new, None)
    assert list_versions(base) == [old]
    assert (base / f".damaged-{new}").is_dir()
    assert repair(base) == []
    assert read_history(base) == [event]


def test_the_copy_is_served_before_the_altered_version_is_set_aside(
    base, another, tmp_path, monkeypatch
):
    push(another("a"), base)
    lost = push(another("b"), base)
    copy_version(base, lost, str(tmp_path / "copy"))
    alter(version_dir(base, lost))
    seen = []
    rename = os.rename

    def look(source: object, target: object) -> None:
        rename(source, target)
        seen.append(served_graph(base))

    monkeypatch.setattr(os, "rename", look)
    restored, damaged = repair(base, LostVersion(lost, tmp_path / "copy"))
    assert (restored.event, restored.version) == ("restore", lost)
    assert (damaged.event, damaged.version) == ("damaged", lost)
    assert seen == ["b", "b"]
    assert newest_version(base) == restored.made
    assert is_intact(version_dir(base, restored.made))


def test_a_full_disk_during_a_repair_withdraws_nothing(base, another, tmp_path, monkeypatch):
    lost = push(another("a"), base)
    copy_version(base, lost, str(tmp_path / "copy"))
    alter(version_dir(base, lost))

    def fail(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(local, "_write", fail)
    with pytest.raises(OSError, match="No space left on device") as caught:
        repair(base, LostVersion(lost, tmp_path / "copy"))
    assert caught.value.errno == errno.ENOSPC
    assert list_versions(base) == [lost]
    assert read_history(base) == []


def test_a_version_set_aside_never_removes_an_earlier_one(base, another):
    kept = push(another("a"), base)
    lost = push(another("b"), base)
    (base / f".damaged-{lost}").symlink_to("somewhere")
    (base / ".damaged-1").write_text("an operator's")
    shutil.copytree(version_dir(base, lost), base / f".damaged-{lost}-2")
    alter(version_dir(base, lost))
    repair(base)
    assert list_versions(base) == [kept]
    assert (base / f".damaged-{lost}").is_symlink()
    assert is_intact(base / f".damaged-{lost}-2")
    assert not is_intact(base / f".damaged-{lost}-3")
    assert (base / ".damaged-1").is_file()


def test_after_a_rollback_an_altered_version_does_not_bring_back_what_was_left(base, another):
    old, _ = (push(another(graph), base) for graph in "ab")
    rolled = roll_back(base, old, "blurred").made
    alter(version_dir(base, rolled))
    assert [event.event for event in repair(base)] == ["restore", "damaged"]
    assert served_graph(base) == "a"


def test_a_model_that_was_rolled_back_from_does_not_replace_an_altered_version(base, another):
    first, second, _ = (push(another(graph), base) for graph in "abc")
    rolled = roll_back(base, second, "blurred").made
    for version in (second, rolled):
        alter(version_dir(base, version))
    assert [event.event for event in repair(base)] == ["restore", "damaged"]
    assert served_graph(base) == "a"
    shutil.rmtree(version_dir(base, first))
    last = newest_version(base)
    alter(version_dir(base, last))
    assert repair(base) == []
    assert newest_version(base) == last


def test_a_copy_restores_a_version_that_was_deleted(base, model, files_of, tmp_path):
    lost, copy = push(model, base, extra_files={"assets.extra/card": b"card"}), tmp_path / "7"
    copy_version(base, lost, str(copy))
    shutil.rmtree(version_dir(base, lost))
    (copy / ".DS_Store").touch()
    [event] = repair(base, LostVersion(lost, copy))
    assert files_of(version_dir(base, event.made)).keys() == files_of(copy).keys() - {".DS_Store"}
    assert push(model, base) == event.made
    alter(copy)
    shutil.rmtree(base)
    assert repair(base, LostVersion(event.made, copy)) == []
    assert not base.exists()


def test_a_record_leads_to_no_file_outside_of_its_version(base, model, tmp_path):
    version, copy = push(model, base), tmp_path / "copy"
    copy_version(base, version, str(copy))
    text = (copy / PUSH_RECORD).read_text()
    for path in ("../model/saved_model.pb", str(model / "saved_model.pb")):
        (copy / PUSH_RECORD).write_text(text.replace("saved_model.pb", path))
        assert not can_restore(copy)
