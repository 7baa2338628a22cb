"""Which version is served while others come, break, hang and go; models are stand-ins."""

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.layout import list_versions
from serving import watch
from serving.watch import AVAILABLE, FAILED, LOADING, VersionStatus, VersionWatch

SECONDS = 20.0


class Loaded:
    def __init__(self, number: int) -> None:
        self.number = number


class Folder:
    """A folder of versions and a watch on it, whose `load` reads one word of a file.

    Attributes:
      loads: the versions that were loaded, in turn.
      may_end: what a version of the word `hangs` waits for.
    """

    def __init__(self, base: Path) -> None:
        base.mkdir()
        self.base = base
        self.loads: list[int] = []
        self.may_end = threading.Event()
        self.watch = VersionWatch(base, self._load, poll_seconds=0.01)

    def _load(self, directory: Path) -> Loaded:
        number = int(directory.name)
        self.loads.append(number)
        word = (directory / "saved_model.pb").read_text()
        if word == "damaged":
            raise ValueError(f"version {number}\nis damaged")
        if word == "hangs":
            self.may_end.wait(SECONDS)
        return Loaded(number)

    def add(self, number: int, word: str = "intact") -> Path:
        incoming = self.base / f".incoming-{number}"
        (incoming / "variables").mkdir(parents=True)
        (incoming / "assets.extra").mkdir()
        (incoming / "saved_model.pb").write_text(word)
        (incoming / "variables" / "variables.index").write_text("the index")
        return incoming.rename(self.base / str(number))

    @property
    def served(self) -> int | None:
        return self.watch.served.number if self.watch.served else None

    @property
    def states(self) -> dict[int, str]:
        return {status.version: status.state for status in self.watch.statuses()}

    def wait_for(self, states: dict[int, str]) -> None:
        ends = time.monotonic() + SECONDS
        while self.states != states:
            assert time.monotonic() < ends, self.states
            time.sleep(0.005)

    def let_look(self) -> None:
        """Waits until the watch has looked at the folder again, by a version that fails."""
        number = 1 + max([*self.states, *list_versions(self.base), 0])
        self.add(number, "damaged")
        self.wait_for({**self.states, number: FAILED})
        shutil.rmtree(self.base / str(number))
        self.wait_for({each: state for each, state in self.states.items() if each != number})


@pytest.fixture
def folder(tmp_path) -> Iterator[Folder]:
    made = Folder(tmp_path / "digits")
    yield made
    made.may_end.set()
    made.watch.stop()


def test_the_newest_is_loaded_and_only_that(folder):
    for number in (2, 10, 9):
        folder.add(number)
    assert (folder.served, folder.watch.statuses()) == (None, [])
    folder.watch.start()
    folder.wait_for({10: AVAILABLE})
    folder.add(11)
    folder.wait_for({11: AVAILABLE})
    folder.add(3)
    folder.let_look()
    assert folder.served == 11
    assert [number for number in folder.loads if number < 12] == [10, 11]
    assert folder.watch.swaps == 2


def test_a_damaged_version_is_passed_over_and_tried_again_when_its_files_change(folder):
    folder.add(1)
    directory = folder.add(2, "damaged")
    folder.watch.start()
    folder.wait_for({2: FAILED, 1: AVAILABLE})
    assert folder.watch.statuses(2) == [VersionStatus(2, FAILED, "version 2 is damaged")]
    assert folder.watch.statuses(1) == [VersionStatus(1, AVAILABLE)]
    assert folder.watch.statuses(3) == []
    folder.let_look()
    assert folder.loads.count(2) == 1
    (directory / "saved_model.pb").write_text("intact")
    folder.wait_for({2: AVAILABLE})
    assert folder.loads.count(2) == 2


def test_files_that_others_add_do_not_make_it_try_again(folder):
    folder.add(1)
    directory = folder.add(2, "damaged")
    folder.watch.start()
    folder.wait_for({2: FAILED, 1: AVAILABLE})
    for name in (".DS_Store", "a note of the operator", "saved_model.pb.bak"):
        (directory / name).write_text("something")
    folder.let_look()
    assert folder.loads.count(2) == 1


def test_a_failed_version_that_goes_is_forgotten(folder):
    folder.add(1)
    directory = folder.add(2, "damaged")
    folder.watch.start()
    folder.wait_for({2: FAILED, 1: AVAILABLE})
    shutil.rmtree(directory)
    folder.wait_for({1: AVAILABLE})
    folder.add(2)
    folder.wait_for({2: AVAILABLE})


@pytest.mark.parametrize(
    "name",
    [
        "saved_model.pb",
        "saved_model.cpb",
        "saved_model.pbtxt",
        "fingerprint.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "assets/words.txt",
        "assets.extra/tf_serving_warmup_requests",
        "assets.extra/model_card.json",
    ],
)
@pytest.mark.parametrize("is_linked", [False, True])
def test_a_pipe_among_the_files_of_a_model_is_not_opened(folder, name, is_linked):
    folder.add(1)
    fifo = folder.add(2) / name
    fifo.parent.mkdir(exist_ok=True)
    fifo.unlink(missing_ok=True)
    pipe = folder.base / "pipe" if is_linked else fifo
    os.mkfifo(pipe)
    if is_linked:
        fifo.symlink_to(pipe)
    folder.watch.start()
    folder.wait_for({2: FAILED, 1: AVAILABLE})
    assert folder.loads == [1]
    folder.add(3)
    folder.wait_for({3: AVAILABLE, 2: FAILED})


def test_a_name_that_is_no_text_can_be_shown(folder):
    directory = folder.add(2)
    os.mkfifo(os.fsencode(directory / "variables") + b"/\xff")
    folder.watch.start()
    folder.wait_for({2: FAILED})
    [status] = folder.watch.statuses()
    assert status.error.encode()


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_a_link_to_itself_among_the_files_of_a_model_is_a_failure(folder, name):
    folder.add(1)
    link = folder.add(2) / name
    link.unlink()
    link.symlink_to(link)
    folder.watch.start()
    folder.wait_for({2: FAILED, 1: AVAILABLE})


def test_a_load_that_hangs_is_given_up_and_later_ones_go_on(folder, monkeypatch):
    folder.add(1)
    folder.add(2, "hangs")
    folder.watch.start()
    folder.wait_for({2: LOADING})
    assert folder.served is None
    monkeypatch.setattr(watch, "LOAD_SECONDS", 0.1)
    folder.wait_for({2: FAILED, 1: AVAILABLE})
    folder.add(3)
    folder.wait_for({3: AVAILABLE, 2: FAILED})
    folder.may_end.set()
    folder.wait_for({3: AVAILABLE})
    assert folder.watch.swaps == 2


def test_a_load_that_ends_late_is_taken(folder, monkeypatch):
    monkeypatch.setattr(watch, "LOAD_SECONDS", 0.1)
    folder.add(1)
    folder.add(2, "hangs")
    folder.watch.start()
    folder.wait_for({2: FAILED, 1: AVAILABLE})
    folder.may_end.set()
    folder.wait_for({2: AVAILABLE})
    assert folder.loads.count(2) == 1


def test_loads_that_hang_have_a_bound(folder, monkeypatch):
    monkeypatch.setattr(watch, "LOAD_SECONDS", 0.05)
    folder.add(1)
    folder.watch.start()
    folder.wait_for({1: AVAILABLE})
    for number in range(2, 9):
        folder.add(number, "hangs")
    hanging = 0
    while hanging < watch._MAX_LOADS:
        hanging = len(folder.loads) - 1
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(folder.loads) - 1 == watch._MAX_LOADS
    assert folder.served == 1
    folder.may_end.set()
    folder.wait_for({8: AVAILABLE})


def test_stopping_waits_for_no_load(folder):
    folder.add(1, "hangs")
    folder.watch.start()
    folder.wait_for({1: LOADING})
    folder.watch.stop()
    assert not folder.may_end.is_set()
    folder.may_end.set()
    while any(thread.name in {"versions", "load"} for thread in threading.enumerate()):
        time.sleep(0.01)
    assert folder.served is None


def test_a_version_in_service_that_goes_is_replaced_by_the_newest_that_is_left(folder):
    folder.add(1)
    folder.add(2)
    folder.watch.start()
    folder.wait_for({2: AVAILABLE})
    shutil.rmtree(folder.base / "2")
    folder.wait_for({1: AVAILABLE})
    folder.add(2)
    folder.wait_for({2: AVAILABLE})


@pytest.mark.parametrize("what", ["the version", "the folder"])
def test_the_last_version_is_served_though_its_files_go(folder, what, caplog):
    folder.add(1)
    folder.watch.start()
    folder.wait_for({1: AVAILABLE})
    shutil.rmtree(folder.base / "1" if what == "the version" else folder.base)
    time.sleep(0.1)
    assert (folder.served, folder.states) == (1, {1: AVAILABLE})
    folder.base.mkdir(exist_ok=True)
    folder.add(2)
    folder.wait_for({2: AVAILABLE})
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_folder_that_cannot_be_listed_is_said_and_looked_at_again(folder, caplog, monkeypatch):
    folder.add(1)
    folder.watch.start()
    folder.wait_for({1: AVAILABLE})
    with monkeypatch.context() as patch:
        patch.setattr(watch, "list_versions", _refuse)
        while not caplog.records:
            time.sleep(0.01)
    folder.add(2)
    folder.wait_for({2: AVAILABLE})
    assert str(folder.base) in caplog.records[0].getMessage()


def _refuse(base):
    raise PermissionError(13, "Permission denied")


def make_strange(base: Path) -> None:
    """Names in a served folder that are no versions, though they look like it."""
    (base / "7").write_text("a file")
    (base / "8").symlink_to(base / "8")
    (base / "elsewhere").mkdir()
    (base / "9").symlink_to(base / "elsewhere")
    (base / "10").symlink_to(base / "nowhere")
    os.mkfifo(base / "11")
    for name in ("9" * 20, "9" * 19, "1" * 100, "٣", "²", "007", "+7", "-7", "7_0", "1e3", " 7"):
        (base / name).mkdir()
    with contextlib.suppress(OSError):  # where the file system wants text
        os.mkdir(os.fsencode(base) + b"/7\xff")


def test_names_that_are_no_versions_are_never_looked_at(folder, caplog):
    make_strange(folder.base)
    folder.add(3)
    folder.watch.start()
    folder.wait_for({3: AVAILABLE})
    folder.add(4)
    folder.wait_for({4: AVAILABLE})
    assert folder.loads == [3, 4]
    assert {record.levelno for record in caplog.records} <= {logging.INFO}
