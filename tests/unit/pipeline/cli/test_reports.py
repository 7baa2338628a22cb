"""Runs on the terminal: each on a line that can be copied, and why it was blessed or not."""

import dataclasses
import json

import pytest
from recorder import COMPLETE, Recorder

from evaluation import document
from evaluation.decision import Check
from metrics.resampling import Interval
from pipeline.cli import reports
from pipeline.local import history
from pipeline.local.lock import locked
from pipeline.local.paths import OutputPaths
from pipeline.settings.resolution import resolve

CHECKS = [
    Check("threshold", "fid_ratio", 40.0512, Interval(39.0, 41.0), "at most 10", False),
    Check("threshold", "test_fid", None, None, "at most 3", False),
    Check(
        "baseline",
        "recall",
        0.01,
        Interval(-0.02, 0.04),
        "at most 0.03 below the baseline's 0.8",
        True,
    ),
]
RUN_ID = "2026-11-25T19:59:18.123456"


@pytest.fixture
def record() -> history.RunRecord:
    """As ML Metadata has it, where `checks` is JSON."""
    return history.RunRecord(
        RUN_ID,
        preset="smoke",
        nodes={"Trainer": "complete"},
        blessed=False,
        checks=json.loads(json.dumps(document.checks_section(CHECKS))),
        baseline="Compared with version 7.",
    )


@pytest.fixture
def show(record, tmp_path, monkeypatch, capsys):
    """A function that shows a run in a narrow terminal, and returns the lines."""
    recorder = Recorder(tmp_path / "metadata.sqlite")
    recorder.add(RUN_ID, {"Pusher": COMPLETE}, (tmp_path / "1795636204", tmp_path / "copy"))
    monkeypatch.setenv("COLUMNS", "80")

    def shown(why: bool, **changed) -> list[str]:
        changed = dataclasses.replace(record, **changed)
        monkeypatch.setattr(history, "read_runs", lambda database, limit: [changed])
        assignments = [f"output_dir={tmp_path}"]
        settings = resolve(environ={}, assignments=assignments).settings
        reports.show_runs(settings, 10, why=why)
        return capsys.readouterr().out.splitlines()

    return shown


def test_every_bound_is_told_in_the_words_of_the_evaluation(show):
    lines = show(why=True)
    assert lines[-4] == "2026-11-25 19:59:18 not blessed  Compared with version 7."
    marks = ["✓" if check.passed else "✗" for check in CHECKS]
    assert lines[-3:] == [f"  {mark} {check}" for mark, check in zip(marks, CHECKS, strict=True)]


def test_a_run_without_a_verdict_has_no_reasons(show):
    assert show(why=True, blessed=None, checks=[]) == show(why=False, blessed=None)


def test_when_a_run_started_and_what_it_pushed_stay_whole_beside_much_that_failed(show, tmp_path):
    failed = [dataclasses.replace(CHECKS[0], metric=f"metric_{number}") for number in range(9)]
    pushed = {"pushed_version": "1795636204", "pushed_copy": str(tmp_path / "copy")}
    wide = {"checks": document.checks_section(failed), **pushed}
    lines = show(why=False, nodes={"Pusher": "complete"}, **wide)
    assert any(line.startswith("2026-11-25 19:59:18 ") for line in lines)
    assert any("1795636204" in line for line in lines)
    lines = show(why=False, nodes={"Pusher": "cached"}, **wide)
    assert not any("1795636204" in line for line in lines)


def test_a_run_whose_process_was_killed_is_not_running(show, tmp_path):
    nodes = {"DigitClassifier": "complete", "Trainer": "running"}
    with locked(OutputPaths(tmp_path)):
        assert "running" in " ".join(show(why=False, nodes=nodes)).split()
    assert "interrupted" in " ".join(show(why=False, nodes=nodes)).split()


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, '{"metrics": 5, "verdict": {}}'])
def test_what_is_no_evaluation_is_named(tmp_path, content):
    folder = tmp_path / "reports" / "2026-11-25T19-59-18"
    folder.mkdir(parents=True)
    (folder / "report.html").touch()
    (folder / "evaluation.json").write_text(content)
    with pytest.raises(reports.NoReportError) as caught:
        reports.compare(["2026"], output_dir=str(tmp_path))
    assert caught.value.where == str(folder / "evaluation.json")
