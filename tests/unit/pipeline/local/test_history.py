"""What ML Metadata says of the runs, whatever the clock did and wherever they ended."""

import shutil
from pathlib import Path

import pytest
from recorder import CACHED, COMPLETE, RUNNING, Recorder

from pipeline.local.history import last_run, new_pushes, read_runs
from pipeline.local.metadata import Database
from registry.rollback import roll_back


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "metadata.sqlite")


def test_runs_are_in_the_order_in_which_they_began(recorder, tmp_path):
    for run_id in ("2026-11-23T03:00:00.000001", "2026-11-21T03:00:00.000001"):
        recorder.add(run_id, {"Pusher": COMPLETE})
    runs = read_runs(tmp_path / "metadata.sqlite", 10)
    assert [run.run_id[:10] for run in runs] == ["2026-11-21", "2026-11-23"]
    assert [run.run_id[:10] for run in read_runs(tmp_path / "metadata.sqlite", 1)] == ["2026-11-21"]


@pytest.mark.parametrize(
    ("nodes", "concluded"),
    [
        ({"GeneratorEvaluator": COMPLETE}, False),
        ({"GeneratorEvaluator": COMPLETE, "Pusher": RUNNING}, False),
        ({"GeneratorEvaluator": COMPLETE, "Pusher": COMPLETE}, True),
        ({"GeneratorEvaluator": CACHED, "Pusher": CACHED}, True),
    ],
)
def test_a_run_is_concluded_by_its_push(recorder, tmp_path, nodes, concluded):
    recorder.add("2026-11-23T03:00:00.000001", nodes)
    [run] = read_runs(tmp_path / "metadata.sqlite", 1)
    assert run.concluded == concluded


def test_a_push_is_of_the_first_run_that_has_the_version_on_record(recorder, tmp_path, push_graph):
    """The second ran its Pusher again, the third had it from the cache; a rollback was no run."""
    serving = tmp_path / "serving"
    versions = [push_graph(serving, graph) for graph in "ab"]
    versions.append(roll_back(serving, None, "blurred").made)
    first, second, rolled_back = (serving / str(version) for version in versions)
    for number, (state, destination, copy) in enumerate(
        (
            (COMPLETE, first, "1"),
            (COMPLETE, first, "2"),
            (CACHED, first, "2"),
            (COMPLETE, second, "3"),
            (COMPLETE, rolled_back, "4"),
        )
    ):
        if not (tmp_path / copy).exists():
            shutil.copytree(destination, tmp_path / copy)
        recorder.add(f"run {number}", {"Pusher": state}, (destination, tmp_path / copy))
    recorder.add("run 5", {"GeneratorEvaluator": COMPLETE})
    database = Database(tmp_path / "metadata.sqlite")
    runs = read_runs(database, 10)
    assert [run.pushed_destination for run in runs[1:4]] == list(
        map(str, (rolled_back, second, first))
    )
    assert new_pushes(database, runs) == {"run 0", "run 3"}
    assert new_pushes(database, runs[:2]) == set()


def test_an_empty_file_has_no_runs_and_stays_empty(tmp_path: Path) -> None:
    database = Database(tmp_path / "metadata.sqlite")
    database.file.touch()
    assert last_run(database, "Pusher") is None
    assert database.file.stat().st_size == 0
