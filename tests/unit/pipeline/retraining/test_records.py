"""The record of passes: whole at every moment, bounded, and patient with what it finds."""

import datetime
import json
import multiprocessing
from pathlib import Path

from pipeline.retraining.records import KEPT, STOPPED, Pass, add_pass, last_made, read_passes
from pipeline.retraining.webhook import RunReport

UTC = datetime.timezone.utc
NOON = datetime.datetime(2026, 11, 23, 12, tzinfo=UTC)


def hours(count: float) -> datetime.timedelta:
    return datetime.timedelta(hours=count)


def test_what_is_written_is_read_again(tmp_path):
    report = RunReport("not blessed", "new", 3, "run", 7, 1.5, ["recall"], 60.0, quarantined=[2])
    berlin = NOON.astimezone(datetime.timezone(hours(1)))
    add_pass(tmp_path / "out", Pass(berlin, report))
    add_pass(tmp_path / "out", Pass(NOON + hours(1), RunReport("pushed", "newer")))
    assert read_passes(tmp_path / "out") == [
        Pass(NOON, report),
        Pass(NOON + hours(1), RunReport("pushed", "newer")),
    ]
    assert read_passes(tmp_path / "out")[0].ended == NOON + datetime.timedelta(seconds=60)
    assert read_passes(tmp_path) == []


def test_lines_of_others_are_passed_over_and_kept(tmp_path):
    lines = ["", "torn {", "[1]", '{"at": "yesterday"}', '{"outcome": "pushed"}', "\x00"]
    lines.append(json.dumps({"at": NOON.isoformat(), "of": "a later release"}))
    (tmp_path / "passes.jsonl").write_text("\n".join(lines) + "\n")
    add_pass(tmp_path, Pass(NOON, RunReport("pushed", "new")))
    assert [each.report.outcome for each in read_passes(tmp_path)] == ["pushed"]
    assert (tmp_path / "passes.jsonl").read_text().startswith("\ntorn {\n")


def test_only_the_last_are_kept(tmp_path):
    old = {"at": NOON.isoformat(), "outcome": "failed", "reason": ""}
    (tmp_path / "passes.jsonl").write_text(f"{json.dumps(old)}\n" * (KEPT + 5))
    add_pass(tmp_path, Pass(NOON, RunReport("pushed", "new")))
    found = read_passes(tmp_path)
    assert len(found) == KEPT
    assert found[-1].report.outcome == "pushed"


def test_a_stopped_pass_was_not_made(tmp_path):
    assert last_made(tmp_path, NOON) is None
    add_pass(tmp_path, Pass(NOON - hours(30), RunReport("failed", "", seconds=3600.0)))
    add_pass(tmp_path, Pass(NOON - hours(3), RunReport(STOPPED, "SIGTERM")))
    assert last_made(tmp_path, NOON) == NOON - hours(29)


def test_a_pass_far_ahead_was_made_while_the_clock_was_wrong(tmp_path):
    for ahead in (-5, 3, 48):
        add_pass(tmp_path, Pass(NOON + hours(ahead), RunReport("pushed", "")))
    assert last_made(tmp_path, NOON) == NOON + hours(3)
    assert last_made(tmp_path, NOON - hours(48)) is None


def _add_many(root: Path, name: str) -> None:
    for number in range(25):
        add_pass(root, Pass(NOON, RunReport("pushed", f"{name} {number}")))


def test_passes_of_several_processes_are_all_written_down(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_add_many, args=(tmp_path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [each.report.reason for each in read_passes(tmp_path)]
    assert sorted(found) == sorted(f"{name} {number}" for name in "abc" for number in range(25))
