"""The notes that tasks leave for the exit handler of their run."""

from pathlib import Path

import pytest

from pipeline.kubeflow.container.failures import Notes


@pytest.fixture
def notes(tmp_path) -> Notes:
    return Notes(str(tmp_path / "failures"), "run-1")


def test_errors_of_a_run_are_taken_once(notes):
    notes.failed("Trainer", "Trainer: no")
    notes.failed("DataGate", "DataGate: no")
    Notes(notes.folder, "run-2").failed("Pusher", "Pusher: no")
    assert notes.take() == ["DataGate: no", "Trainer: no"]
    assert notes.take() == []
    assert [path.name for path in Path(notes.folder).iterdir()] == ["run-2"]


def test_a_task_whose_pod_was_lost_is_named(notes):
    notes.began("StatisticsGen")
    notes.began("Trainer")
    notes.succeeded("StatisticsGen")
    [error] = notes.take()
    assert error.startswith("Trainer: its pod ended")


def test_parameters_name_the_place(tmp_path):
    values = {"failure_dir": str(tmp_path), "run_id": "run-1"}
    assert Notes.of({"inputs": {"parameterValues": values}}) == Notes(str(tmp_path), "run-1")
    assert Notes.of({}) == Notes("", "")


def test_without_a_place_nothing_is_noted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for notes in (Notes("", "run-1"), Notes(str(tmp_path), "")):
        notes.began("Trainer")
        assert notes.take() == []
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_fails_nothing(tmp_path, capsys):
    (tmp_path / "file").touch()
    notes = Notes(str(tmp_path / "file"), "run-1")
    notes.failed("Trainer", "Trainer: no")
    assert notes.take() == []
    assert str(tmp_path / "file") in capsys.readouterr().err
