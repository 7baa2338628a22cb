"""Which names in a base are versions."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import storage
from registry.history import read_history
from registry.layout import list_versions, newest_version, version_number
from registry.push import push
from registry.rollback import roll_back

ROOT = Path(__file__).parents[3]


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 5))
def test_a_number_that_an_int64_holds_is_a_version(number, zeros):
    padded = str(number).rjust(zeros, "0")
    assert version_number(str(number)) == number
    assert version_number(padded) == number
    assert version_number(str(number + 2**63)) is None


@settings(deadline=None)
@given(st.text() | st.from_regex(r"[-+ ]?\d+[\n_.e ]?\d*", fullmatch=True))
def test_any_name_is_a_version_or_none(name):
    number = version_number(name)
    is_ascii_digits = name != "" and set(name) <= set("0123456789") and len(name) < 20
    assert number == (int(name) if is_ascii_digits and int(name) < 2**63 else None)


@pytest.fixture
def odd_names(base: Path) -> Path:
    """A base with version 7, and with what is no version under names that look like one."""
    (base / "7").mkdir(parents=True)
    (base / "7" / "saved_model.pb").write_bytes(b"graph")
    (base / "8").write_text("a plain file")
    (base / "9").symlink_to("7")
    (base / "10").symlink_to("10")
    for name in ("٣", "9" * 20, "011", ".incoming-12", "13.bak"):
        (base / name).mkdir()
    return base


def test_only_real_folders_with_the_name_of_a_version_are_versions(odd_names):
    assert list_versions(odd_names) == [7]
    assert newest_version(odd_names) == 7


def test_odd_names_disturb_no_push_and_no_rollback(odd_names, model, another):
    first = push(model, odd_names, keep_versions=2)
    second = push(another("other"), odd_names, keep_versions=2)
    roll_back(odd_names, first, "blurred")
    assert list_versions(odd_names)[:2] == [first, second]
    assert (odd_names / "8").is_file()
    assert (odd_names / "9").is_symlink()
    assert (odd_names / "٣").is_dir()


@pytest.mark.parametrize("kind", ["file", "link", "loop"])
def test_a_version_is_above_whatever_has_a_number_for_a_name(base, model, kind):
    """A server takes the name for a version, and looks no further where it is the highest."""
    base.mkdir(parents=True)
    name = base / str(10**12)
    if kind == "file":
        name.write_text("no version")
    else:
        name.symlink_to(name if kind == "loop" else base.parent)
    assert push(model, base) == 10**12 + 1


def test_no_folder_has_no_versions(tmp_path):
    (tmp_path / "file").touch()
    for base in ("", tmp_path / "nowhere", tmp_path / "file", tmp_path):
        assert list_versions(base) == []
        assert newest_version(base) is None
        assert read_history(base) == []


def test_an_object_store_shows_what_was_written_whole():
    for path in ("3/saved_model.pb", "12/saved_model.pb", "13/variables/data", "x/saved_model.pb"):
        storage.write(f"ram://serving/{path}", b"graph")
    storage.write("ram://serving/٣/saved_model.pb", b"graph")
    assert list_versions("ram://serving") == [3, 12]
    assert newest_version("ram://serving") == 12


def test_a_local_base_is_read_and_changed_without_tensorflow(base, model):
    code = """
import sys
from registry import baselines, layout, model_card, push, repair, rollback
version = push.push(*sys.argv[1:])
assert layout.newest_version(sys.argv[2]) == version
assert repair.repair(sys.argv[2]) == []
sys.exit(bool({"tensorflow", "tfx", "s3fs"} & set(sys.modules)))
"""
    subprocess.run([sys.executable, "-c", code, str(model), str(base)], cwd=ROOT, check=True)
