"""When a pass of retraining has a reason, and what it tells."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import ml_metadata
import pytest
from recorder import COMPLETE, Recorder

from errors import UserError
from pipeline.local.errors import RunFailedError, UsageError
from pipeline.local.metadata import Database
from pipeline.local.paths import Places
from pipeline.local.run import Ended, Outcome
from pipeline.local.window import find_window
from pipeline.retraining.conditions import Facts, read_conditions
from pipeline.retraining.records import read_passes
from pipeline.retraining.retrain import retrain
from pipeline.retraining.webhook import ADDRESS_VARIABLE, RunReport
from pipeline.settings.resolution import Resolved, resolve


@pytest.fixture
def settings(tmp_path: Path, span_dir: Path) -> Resolved:
    options = {
        "output_dir": (str(tmp_path / "out"), "the test"),
        "data.dir": (str(span_dir), "the test"),
    }
    return resolve("smoke", environ={}, assignments=(), options=options)


@pytest.fixture
def served(tmp_path: Path, push_graph: Callable[..., int]) -> int:
    return push_graph(tmp_path / "out" / "serving" / "mnist_gan")


def test_a_young_model_is_no_reason(settings, served, tmp_path):
    outcome, done, _ = retrain(settings, "age:1h", verbose=False)
    assert outcome == Outcome.PUSHED
    assert dataclasses.replace(done, reason="", seconds=0.0) == RunReport(
        "nothing to do", "", 1, None, served, None, [], 0.0
    )
    assert [each.report for each in read_passes(tmp_path / "out")] == [done]
    assert str(served) in done.reason
    assert json.loads(done.as_json())["version"] == served
    assert "\n" not in done.as_json()


@pytest.mark.parametrize("condition", ["age:7", "age:x", "weekly", "", "age:7d ", ",", "drift,"])
def test_an_unknown_condition_is_refused(settings, condition):
    with pytest.raises(UsageError):
        retrain(settings, condition, verbose=False)


@pytest.mark.parametrize(
    ("condition", "found"),
    [("age:0d,drift", True), ("age:7d,always", True), ("age:7d,age:1h", False)],
)
def test_of_several_conditions_any_will_do(settings, served, condition, found):
    places = Places(Path(settings.settings.output_dir))
    window = find_window(settings, places, settings.settings.data.dir)
    assert read_conditions(condition)(Facts(settings.settings, places, window))[0] == found


@pytest.mark.parametrize(("is_new", "outcome"), [(False, "nothing to do"), (True, "pushed")])
def test_a_run_that_pushed_nothing_new_is_none_to_tell_of(
    settings, served, tmp_path, httpserver, monkeypatch, is_new, outcome
):
    ended = Ended(Outcome.PUSHED, "2026-11-23T09:00:00", is_new=is_new)
    recorder = Recorder(tmp_path / "out" / "metadata.sqlite")
    recorder.add("2026-11-23T09:00:00", {"Pusher": COMPLETE})
    monkeypatch.setattr("pipeline.retraining.retrain.run", lambda *_, **__: ended)
    httpserver.expect_request("/hook").respond_with_data("ok")
    monkeypatch.setenv(ADDRESS_VARIABLE, httpserver.url_for("/hook"))
    status, done, error = retrain(settings, "always", verbose=False)
    assert (status, done.outcome, done.run) == (Outcome.PUSHED, outcome, ended.run_id)
    assert error is None
    assert [each.report for each in read_passes(tmp_path / "out")] == [done]
    assert len(httpserver.log) == is_new


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_run_that_failed_before_it_was_recorded_is_told_all_the_same(
    settings, tmp_path, monkeypatch, is_lost
):
    """As on a disk that was full at the start, or where the database has gone meanwhile."""
    database = tmp_path / "out" / "metadata.sqlite"
    failed = RunFailedError("ImportSchemaGen: the disk is full")

    def fail(*_, **__):
        database.parent.mkdir()
        if not is_lost:
            ml_metadata.MetadataStore(Database(database).connection(create=True))
        return Ended(Outcome.FAILED, "2026-11-23T09:00:00", failed)

    monkeypatch.setattr("pipeline.retraining.retrain.run", fail)
    status, done, error = retrain(settings, "always", verbose=False)
    assert (status, done.outcome, done.run, error) == (Outcome.FAILED, "failed", None, failed)
    assert (done.reason, done.error) == ("asked for", "ImportSchemaGen: the disk is full")
    assert [each.report for each in read_passes(tmp_path / "out")] == [done]


def test_a_fault_of_the_program_s_own_is_told_and_written_down(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.retraining.retrain.run", lambda *_, **__: 1 / 0)
    status, done, error = retrain(settings, "always", verbose=False)
    assert (status, done.outcome) == (Outcome.FAILED, "failed")
    assert done.error == "unexpected ZeroDivisionError: division by zero"
    assert isinstance(error, RunFailedError)
    assert [each.report for each in read_passes(tmp_path / "out")] == [done]


def test_a_pass_that_cannot_start_is_told_and_written_down(settings, tmp_path, httpserver):
    httpserver.expect_request("/hook").respond_with_data("ok")
    (tmp_path / "data" / "train-labels-idx1-ubyte").unlink()
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv(ADDRESS_VARIABLE, httpserver.url_for("/hook"))
        outcome, done, _ = retrain(settings, "new-data", verbose=False)
    assert outcome == Outcome.BAD_USAGE
    assert done.outcome == "not started"
    assert "train-labels" in done.reason
    assert [each.report for each in read_passes(tmp_path / "out")] == [done]
    [(request, _)] = httpserver.log
    assert request.get_json()["outcome"] == "not started"


def test_an_output_folder_that_is_a_file_is_said_to_be_one(settings, tmp_path, capsys):
    (tmp_path / "out").touch()
    outcome, done, error = retrain(settings, "always", verbose=False)
    assert outcome == Outcome.BAD_USAGE
    assert isinstance(error, UserError)
    assert error.where.startswith(str(tmp_path / "out"))
    assert error.where in done.reason
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_span_that_the_pass_quarantines_is_named(served, tmp_path, span_dir):
    """A newer span, whole by its marker, whose labels are cut off."""
    for number in (1, 2):
        shutil.copytree(span_dir, tmp_path / "spans" / f"span-{number}")
        (tmp_path / "spans" / f"span-{number}" / "_SUCCESS").touch()
    labels = tmp_path / "spans" / "span-2" / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1])
    options = {
        "output_dir": (str(tmp_path / "out"), "the test"),
        "data.dir": (str(tmp_path / "spans"), "the test"),
    }
    spans = resolve("smoke", environ={}, options=options)
    _, done, _ = retrain(spans, "age:1h", verbose=False)
    assert (done.outcome, done.span, done.quarantined) == ("nothing to do", 1, [2])
    _, done, _ = retrain(spans, "age:1h", verbose=False)
    assert done.quarantined == []
