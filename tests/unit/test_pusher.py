"""A push shows a whole version or nothing, and never the same model twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.pusher.versions import (
    PushError,
    RolledBackError,
    can_restore,
    is_intact,
    list_versions,
    push_files,
    read_history,
    read_record,
    restore,
    retire,
    roll_back,
    set_aside_damaged,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.data").write_bytes(os.urandom(10_000))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_version_is_the_model_and_a_record(tmp_path, model):
    version = push_files(str(model), str(tmp_path / "serving"))
    pushed = files(tmp_path / "serving" / str(version))
    record = json.loads(pushed.pop(os.path.join("assets.extra", "push.json")))
    assert pushed == files(model)
    assert len(record["model_fingerprint"]) == 64
    assert abs(version - time.time()) < 3600


def test_the_newest_model_is_not_pushed_again(tmp_path, model):
    serving = str(tmp_path / "serving")
    assert push_files(str(model), serving) == push_files(str(model), serving)
    assert len(list_versions(serving)) == 1


def test_an_older_model_becomes_the_newest_again(tmp_path, model):
    serving = str(tmp_path / "serving")
    first = push_files(str(model), serving)
    (model / "saved_model.pb").write_bytes(b"another graph")
    second = push_files(str(model), serving)
    (model / "saved_model.pb").write_bytes(b"graph")
    third = push_files(str(model), serving)
    assert first < second < third


def test_versions_grow_where_the_clock_jumps_back(tmp_path, model):
    future = int(time.time()) + 10**6
    (tmp_path / "serving" / str(future)).mkdir(parents=True)
    assert push_files(str(model), str(tmp_path / "serving")) == future + 1


def test_what_is_added_stands_beside_the_model(tmp_path, model):
    serving = tmp_path / "serving"
    version = push_files(str(model), str(serving), extra_files={"assets.extra/card.md": b"a card"})
    assert (serving / str(version) / "assets.extra" / "card.md").read_bytes() == b"a card"
    assert push_files(str(model), str(serving), extra_files={"other": b""}) == version


def another(model: Path, name: str) -> str:
    (model / "saved_model.pb").write_bytes(name.encode())
    return str(model)


def push_three(serving: Path, model: Path) -> list[int]:
    return [push_files(another(model, name), str(serving)) for name in "abc"]


def test_rolling_back_pushes_an_older_model_under_a_new_number(tmp_path, model):
    serving = tmp_path / "serving"
    versions = push_three(serving, model)
    made = roll_back(str(serving), None, "blurred")
    assert list_versions(str(serving)) == [*versions, made]
    assert (serving / str(made) / "saved_model.pb").read_bytes() == b"b"
    old, new, left = (read_record(str(serving), v) for v in (versions[1], made, versions[2]))
    assert new["model_fingerprint"] == old["model_fingerprint"] != left["model_fingerprint"]
    assert (new["rolled_back_to"], new["rolled_back_from"]) == tuple(versions[1:])
    assert new["reason"] == "blurred"


def test_a_model_that_was_rolled_back_from_is_not_pushed_again_unasked(tmp_path, model):
    serving = tmp_path / "serving"
    *_, third = push_three(serving, model)
    made = roll_back(str(serving), None, "blurred")
    with pytest.raises(RolledBackError, match=f"was version {third}, .*: blurred. Train another"):
        push_files(str(model), str(serving))
    assert list_versions(str(serving))[-1] == made
    roll_back(str(serving), third, "it was not that bad")
    fourth = push_files(another(model, "d"), str(serving))
    assert push_files(another(model, "c"), str(serving)) > fourth
    assert [event["event"] for event in read_history(str(serving))] == ["rollback"] * 2


def test_rolling_back_twice_goes_back_twice(tmp_path, model):
    serving, contents = str(tmp_path / "serving"), [b"a", b"b", b"c"]
    for content in contents:
        (model / "saved_model.pb").write_bytes(content)
        push_files(str(model), serving)

    def served() -> bytes:
        newest = list_versions(serving)[-1]
        return Path(serving, str(newest), "saved_model.pb").read_bytes()

    for expected in (b"b", b"a"):
        roll_back(serving, None, "blurred")
        assert served() == expected
    with pytest.raises(PushError, match="other than those rolled back from"):
        roll_back(serving, None, "blurred")
    assert served() == b"a"


def test_what_cannot_be_rolled_back_to(tmp_path, model):
    serving = tmp_path / "serving"
    with pytest.raises(PushError, match="no version is in"):
        roll_back(str(serving), None, "")
    first = push_files(another(model, "a"), str(serving))
    with pytest.raises(PushError, match=f"{first} is the only version"):
        roll_back(str(serving), None, "")
    with pytest.raises(PushError, match=f"version {first} is the newest"):
        roll_back(str(serving), first, "")
    with pytest.raises(PushError, match=f"no version 7 in .*; there are {first}"):
        roll_back(str(serving), 7, "")
    assert list_versions(str(serving)) == [first]


def test_retiring_removes_any_version_but_the_newest(tmp_path, model):
    serving = tmp_path / "serving"
    first, second, third = push_three(serving, model)
    retire(str(serving), first, "old")
    assert list_versions(str(serving)) == [second, third]
    with pytest.raises(PushError, match=r"is served\. Roll back first"):
        retire(str(serving), third, "bad")
    with pytest.raises(PushError, match=f"no version {first}"):
        retire(str(serving), first, "again")
    assert list_versions(str(serving)) == [second, third]
    [event] = read_history(str(serving))
    assert (event["event"], event["version"], event["reason"]) == ("retire", first, "old")


@pytest.mark.parametrize(("keep", "left"), [(None, "abcde"), (3, "cde"), (2, "de"), (1, "de")])
def test_only_so_many_versions_are_kept(tmp_path, model, keep, left):
    serving = tmp_path / "serving"
    for name in "abcde":
        push_files(another(model, name), str(serving), keep_versions=keep)
    found = [
        (serving / str(version) / "saved_model.pb").read_text()
        for version in list_versions(str(serving))
    ]
    assert found == list(left)
    assert not list(serving.glob(".removed-*"))


def test_a_full_disk_leaves_nothing_visible(tmp_path, model):
    """A quota of the process stands for the disk: writing beyond it fails as ENOSPC would."""
    (model / "variables" / "variables.data").write_bytes(os.urandom(3_000_000))
    serving = tmp_path / "serving"
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000));"
        "from components.pusher.versions import push_files; push_files(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, str(model), str(serving)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "File too large" in result.stderr
    assert {path.name for path in serving.iterdir()} == {".push.lock"}


def test_pushes_at_once_take_numbers_of_their_own(tmp_path, model):
    serving = tmp_path / "serving"
    models = []
    for name in "abcdef":
        folder = tmp_path / name
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(name.encode() * 100_000)
        models.append(str(folder))
    script = (
        "import sys; from components.pusher.versions import push_files;"
        "sys.stdin.readline(); print(push_files(*sys.argv[1:]))"
    )
    pushes = [
        subprocess.Popen(
            [sys.executable, "-c", script, folder, str(serving)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for folder in models
    ]
    for push in pushes:
        push.stdin.write("go\n")
        push.stdin.flush()
    versions = [int(push.communicate()[0]) for push in pushes]
    assert sorted(versions) == list_versions(str(serving))
    for folder, version in zip(models, versions, strict=True):
        kept = (serving / str(version) / "saved_model.pb").read_bytes()
        assert kept == Path(folder, "saved_model.pb").read_bytes()


def test_leftovers_are_no_versions_and_go_with_the_next_push(tmp_path, model):
    leftover = tmp_path / "serving" / ".incoming-abc"
    leftover.mkdir(parents=True)
    assert list_versions(str(leftover.parent)) == []
    push_files(str(model), str(leftover.parent))
    assert not leftover.exists()


PUSH_FOR_EVER = """
import sys
from pathlib import Path
from components.pusher.versions import push_files
model, serving = sys.argv[1:]
print("ready", flush=True)
count = 0
while True:
    count += 1
    Path(model, "saved_model.pb").write_bytes(str(count).encode())
    push_files(model, serving)
"""


def test_a_killed_push_leaves_whole_versions_only(tmp_path, model):
    (model / "variables" / "variables.data").write_bytes(os.urandom(5_000_000))
    serving = tmp_path / "serving"
    expected = set(files(model)) | {os.path.join("assets.extra", "push.json")}
    process = subprocess.Popen(
        [sys.executable, "-c", PUSH_FOR_EVER, str(model), str(serving)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    while not list(serving.glob(".incoming-*")):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    for version in list_versions(str(serving)):
        assert set(files(serving / str(version))) == expected
    push_files(str(model), str(serving))
    assert not list(serving.glob(".incoming-*"))


def alter(version: Path) -> None:
    (version / "variables" / "variables.data").write_bytes(b"other")


def test_an_altered_version_makes_way_for_the_one_before(tmp_path, model):
    serving = tmp_path / "serving"
    old = push_files(str(model), str(serving))
    alter(model)
    new = push_files(str(model), str(serving))
    assert is_intact(str(serving), new)
    (serving / str(new) / "saved_model.pb").unlink()
    assert not is_intact(str(serving), new)
    assert set_aside_damaged(str(serving)) == [new]
    assert list_versions(str(serving)) == [old]
    assert (serving / f".damaged-{new}").is_dir()
    assert set_aside_damaged(str(serving)) == []
    [event] = read_history(str(serving))
    assert (event["event"], event["version"]) == ("damaged", new)


def test_after_a_rollback_an_altered_version_does_not_bring_back_what_was_left(tmp_path, model):
    serving = tmp_path / "serving"
    old = push_files(str(model), str(serving))
    good = files(model)
    alter(model)
    new = push_files(str(model), str(serving))
    rolled = roll_back(str(serving), old, "blurred")
    alter(serving / str(rolled))
    assert set_aside_damaged(str(serving)) == [rolled]
    served = list_versions(str(serving))[-1]
    assert served > new
    assert good.items() <= files(serving / str(served)).items()


def test_a_copy_restores_a_version_that_was_deleted(tmp_path, model):
    serving, copy = tmp_path / "serving", tmp_path / "pushed_model" / "7"
    version = push_files(str(model), str(serving), extra_files={"assets.extra/card": b"card"})
    shutil.copytree(serving / str(version), copy)
    whole = files(copy)
    shutil.rmtree(serving / str(version))
    assert can_restore(str(copy))
    made = restore(str(copy), str(serving), version)
    assert files(serving / str(made)).keys() == whole.keys()
    assert push_files(str(model), str(serving)) == made
    alter(copy)
    assert not can_restore(str(copy))


def test_an_altered_version_is_not_rolled_back_to(tmp_path, model):
    serving = tmp_path / "serving"
    old = push_files(str(model), str(serving))
    alter(model)
    push_files(str(model), str(serving))
    (serving / str(old) / "saved_model.pb").write_bytes(b"other")
    with pytest.raises(PushError, match="not those that were pushed"):
        roll_back(str(serving), old, "why not")
    with pytest.raises(PushError, match="no version before"):
        roll_back(str(serving), None, "why not")


def test_a_line_of_history_that_was_cut_off_is_left_out(tmp_path, model):
    serving = tmp_path / "serving"
    for content in (b"one", b"two"):
        (model / "saved_model.pb").write_bytes(content)
        push_files(str(model), str(serving))
    retire(str(serving), list_versions(str(serving))[0], "old")
    with open(serving / ".history.jsonl", "a") as file:
        file.write('{"at": "2026-11-2')
    assert [event["event"] for event in read_history(str(serving))] == ["retire"]
    push_files(str(model), str(serving))
