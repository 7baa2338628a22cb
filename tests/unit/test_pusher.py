"""A push shows a whole version or nothing, and never the same model twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.pusher.executor import list_versions, push

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
    version = push(str(model), str(tmp_path / "serving"))
    pushed = files(tmp_path / "serving" / str(version))
    record = json.loads(pushed.pop(os.path.join("assets.extra", "push.json")))
    assert pushed == files(model)
    assert len(record["model_fingerprint"]) == 64
    assert abs(version - time.time()) < 3600


def test_the_newest_model_is_not_pushed_again(tmp_path, model):
    serving = str(tmp_path / "serving")
    assert push(str(model), serving) == push(str(model), serving)
    assert len(list_versions(serving)) == 1


def test_an_older_model_becomes_the_newest_again(tmp_path, model):
    serving = str(tmp_path / "serving")
    first = push(str(model), serving)
    (model / "saved_model.pb").write_bytes(b"another graph")
    second = push(str(model), serving)
    (model / "saved_model.pb").write_bytes(b"graph")
    third = push(str(model), serving)
    assert first < second < third


def test_versions_grow_where_the_clock_jumps_back(tmp_path, model):
    future = int(time.time()) + 10**6
    (tmp_path / "serving" / str(future)).mkdir(parents=True)
    assert push(str(model), str(tmp_path / "serving")) == future + 1


def test_leftovers_are_no_versions_and_go_with_the_next_push(tmp_path, model):
    leftover = tmp_path / "serving" / ".incoming-abc"
    leftover.mkdir(parents=True)
    assert list_versions(str(leftover.parent)) == []
    push(str(model), str(leftover.parent))
    assert not leftover.exists()


PUSH_FOR_EVER = """
import sys
from pathlib import Path
from components.pusher.executor import push
model, serving = sys.argv[1:]
print("ready", flush=True)
count = 0
while True:
    count += 1
    Path(model, "saved_model.pb").write_bytes(str(count).encode())
    push(model, serving)
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
    push(str(model), str(serving))
    assert not list(serving.glob(".incoming-*"))
