"""A push shows a whole version or nothing, and never the same model twice."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from registry.errors import RegistryError, RolledBackError
from registry.history import read_history
from registry.integrity import is_intact
from registry.layout import PUSH_RECORD, list_versions, version_dir
from registry.local import leftovers
from registry.push import copy_version, push
from registry.records import read_record
from registry.rollback import roll_back

ROOT = Path(__file__).parents[3]


def test_a_version_is_the_model_and_a_record(base, model, files_of):
    version = push(model, base)
    pushed = files_of(version_dir(base, version))
    assert pushed.pop(PUSH_RECORD)
    assert pushed == files_of(model)
    record = read_record(version_dir(base, version))
    assert (record.version, record.copy_of) == (version, None)
    assert set(record.files) == set(pushed)
    assert abs(record.pushed_at.timestamp() - time.time()) < 3600
    assert abs(version - time.time()) < 3600


def test_the_newest_model_is_not_pushed_again(base, model):
    assert push(model, base) == push(model, base, extra_files={"other": b""})
    assert len(list_versions(base)) == 1


def test_an_altered_version_is_not_taken_for_the_model(base, model):
    """Else nothing could replace it: its run is repeated, and finds it pushed already."""
    first = push(model, base)
    (version_dir(base, first) / "saved_model.pb").unlink()
    assert push(model, base) > first
    assert is_intact(version_dir(base, list_versions(base)[-1]))


def test_an_older_model_becomes_the_newest_again(base, another):
    first, second, third = (push(another(graph), base) for graph in ("a", "b", "a"))
    assert first < second < third


def test_versions_grow_where_the_clock_jumps_back(base, model):
    future = int(time.time()) + 10**6
    version_dir(base, future).mkdir(parents=True)
    assert push(model, base) == future + 1


def test_what_is_added_stands_beside_the_model(base, model):
    version = push(model, base, extra_files={"assets.extra/card.md": b"a card"})
    assert (version_dir(base, version) / "assets.extra" / "card.md").read_bytes() == b"a card"
    assert "assets.extra/card.md" in read_record(version_dir(base, version)).files


def test_what_is_no_model_is_not_pushed(base, model):
    (model / "saved_model.pb").unlink()
    with pytest.raises(RegistryError):
        push(model, base)
    with pytest.raises(FileNotFoundError):
        push(model / "nowhere", base)
    assert not base.exists()


def test_a_model_that_was_rolled_back_from_is_not_pushed_again_unasked(base, another):
    _, second, third = (push(another(graph), base) for graph in "abc")
    made = roll_back(base, None, "blurred").made
    with pytest.raises(RolledBackError, match=f"{third}.*blurred"):
        push(another("c"), base)
    assert list_versions(base)[-1] == made
    roll_back(base, third, "it was not that bad")
    fourth = push(another("d"), base)
    assert push(another("c"), base) > fourth
    assert [(event.event, event.copy_of) for event in read_history(base)] == [
        ("rollback", second),
        ("rollback", third),
    ]


@pytest.mark.parametrize(("keep", "left"), [(None, "abcde"), (3, "cde"), (2, "de"), (1, "de")])
def test_only_so_many_versions_are_kept(base, another, keep, left):
    for graph in "abcde":
        push(another(graph), base, keep_versions=keep)
    kept = [(version_dir(base, version) / "saved_model.pb") for version in list_versions(base)]
    assert [path.read_text() for path in kept] == list(left)
    assert leftovers(base) == []


def test_a_copy_of_a_version_holds_what_was_pushed_alone(base, model, files_of, tmp_path):
    version = push(model, base, extra_files={"assets.extra/card.md": b"a card"})
    whole = files_of(version_dir(base, version))
    (version_dir(base, version) / "NOTES.txt").write_text("ours")
    copy_version(base, version, str(tmp_path / "copy"))
    assert files_of(tmp_path / "copy") == whole


def test_a_full_disk_leaves_nothing_visible(base, model):
    """A quota of the process stands for the disk: writing beyond it fails as ENOSPC would."""
    (model / "variables" / "variables.data").write_bytes(os.urandom(3_000_000))
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000));"
        "from registry.push import push; push(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, str(model), str(base)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 1
    assert os.listdir(base) == [".push.lock"]


def test_pushes_at_once_take_numbers_of_their_own(base, tmp_path):
    models = []
    for name in "abcdef":
        folder = tmp_path / name
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(name.encode() * 100_000)
        models.append(folder)
    script = (
        "import sys; from registry.push import push;"
        "sys.stdin.readline(); print(push(*sys.argv[1:]))"
    )
    pushes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(folder), str(base)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for folder in models
    ]
    for process in pushes:
        process.stdin.write("go\n")
        process.stdin.flush()
    versions = [int(process.communicate()[0]) for process in pushes]
    assert sorted(versions) == list_versions(base)
    for folder, version in zip(models, versions, strict=True):
        kept = (version_dir(base, version) / "saved_model.pb").read_bytes()
        assert kept == (folder / "saved_model.pb").read_bytes()


def test_leftovers_of_any_kind_are_no_versions_and_go_with_the_next_push(base, model, tmp_path):
    (base / ".incoming-folder" / "variables").mkdir(parents=True)
    (base / ".incoming-file").write_text("half")
    (base / ".incoming-loop").symlink_to(".incoming-loop")
    (tmp_path / "kept").mkdir()
    (base / ".removed-1").symlink_to(tmp_path / "kept")
    assert list_versions(base) == []
    assert len(leftovers(base)) == 4
    version = push(model, base)
    assert sorted(os.listdir(base)) == [".push.lock", str(version)]
    assert (tmp_path / "kept").is_dir()


PUSH_FOR_EVER = """
import sys
from pathlib import Path
from registry.push import push
model, base = sys.argv[1:]
count = 0
print("ready", flush=True)
while True:
    count += 1
    Path(model, "saved_model.pb").write_text(str(count))
    push(model, base)
"""


def test_a_killed_push_leaves_whole_versions_only(base, model):
    (model / "variables" / "variables.data").write_bytes(os.urandom(5_000_000))
    command = [sys.executable, "-c", PUSH_FOR_EVER, str(model), str(base)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    while not list(base.glob(".incoming-*")):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    folders = [version_dir(base, version) for version in list_versions(base)]
    assert all(read_record(folder) and is_intact(folder) for folder in folders)
    push(model, base)
    assert leftovers(base) == []


@pytest.mark.parametrize("umask", [0, 0o077])
def test_servers_read_a_version_and_others_write_nothing(base, model, umask):
    before = os.umask(umask)
    try:
        version = push(model, base)
    finally:
        os.umask(before)
    folder = base / str(version)
    modes = {
        path.is_dir(): stat.S_IMODE(path.stat().st_mode)
        for path in (base.parent, base, folder, *folder.rglob("*"))
    }
    assert modes == {True: 0o755, False: 0o644}
