"""Older versions are served again, and versions are removed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from registry.errors import RegistryError
from registry.history import read_history
from registry.layout import list_versions, version_dir
from registry.push import push
from registry.records import read_record
from registry.rollback import retire, roll_back


@pytest.fixture
def versions(base: Path, another: Callable[[str], Path]) -> list[int]:
    """Three versions, with the graphs a, b and c."""
    return [push(another(graph), base) for graph in "abc"]


def graph(base: Path, version: int | None = None) -> str:
    """The graph of a version; of the newest where none is named."""
    number = list_versions(base)[-1] if version is None else version
    return (version_dir(base, number) / "saved_model.pb").read_text()


def test_rolling_back_pushes_an_older_model_under_a_new_number(base, versions):
    event = roll_back(base, None, "blurred")
    assert list_versions(base) == [*versions, event.made]
    assert graph(base) == "b"
    old, new, left = (
        read_record(version_dir(base, version))
        for version in (versions[1], event.made, versions[2])
    )
    assert new.model_fingerprint == old.model_fingerprint != left.model_fingerprint
    assert (new.copy_of, new.reason) == (versions[1], "blurred")
    assert (event.version, event.copy_of, event.reason) == (versions[2], versions[1], "blurred")
    assert read_history(base) == [event]


def test_files_that_others_added_are_not_served_again(base, versions):
    folder = version_dir(base, versions[0])
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / "loop").symlink_to("loop")
    made = roll_back(base, versions[0], "blurred").made
    assert not {".DS_Store", "loop"} & {path.name for path in version_dir(base, made).iterdir()}


def test_rolling_back_twice_goes_back_twice(base, versions):
    for expected in "ba":
        roll_back(base, None, "blurred")
        assert graph(base) == expected
    with pytest.raises(RegistryError):
        roll_back(base, None, "blurred")
    assert graph(base) == "a"


def test_what_cannot_be_rolled_back_to(base, another):
    with pytest.raises(RegistryError):
        roll_back(base, None, "")
    first = push(another("a"), base)
    for version in (None, first, 7):
        with pytest.raises(RegistryError) as caught:
            roll_back(base, version, "")
        assert str(first) in str(caught.value)
    assert list_versions(base) == [first]


def test_an_altered_version_is_not_rolled_back_to(base, another):
    first = push(another("a"), base)
    push(another("b"), base)
    (version_dir(base, first) / "saved_model.pb").write_text("other")
    for version in (first, None):
        with pytest.raises(RegistryError):
            roll_back(base, version, "why not")


def test_retiring_removes_any_version_but_the_newest(base, versions):
    first, second, third = versions
    retire(base, first, "old")
    assert list_versions(base) == [second, third]
    for version in (third, first):
        with pytest.raises(RegistryError):
            retire(base, version, "bad")
    assert list_versions(base) == [second, third]
    [event] = read_history(base)
    assert (event.event, event.version, event.reason) == ("retire", first, "old")
