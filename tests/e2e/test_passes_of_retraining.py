"""Passes of retraining as monitoring and a service manager meet them, with real trainings."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


def command(name: str, tmp_path: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, str(ROOT / "local_runner.py"), name, "--preset", "smoke"),
        *("--data-dir", str(tmp_path / "data"), "--output-dir", str(tmp_path / "out")),
        *("--set", "train.max_steps=1500", "--set", "train.report_seconds=0.2"),
        *("--set", f"metrics.textfile={tmp_path / 'node' / 'mnist-gan.prom'}"),
        *("--set", "log.format=json", *more),
    ]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MNIST_")}


def json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def scrape(tmp_path: Path) -> dict[str, float]:
    text = (tmp_path / "node" / "mnist-gan.prom").read_text()
    return {
        sample.name.removeprefix("mnist_gan_") + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_schedule_that_is_stopped_in_a_training_is_taken_up(tmp_path, span_dir):
    printed = tmp_path / "printed.txt"
    nightly = ["--cron", "0 3 * * *"]
    with open(printed, "w") as file:
        process = subprocess.Popen(
            command("schedule", tmp_path, *nightly, "--now"), stdout=file, env=environment()
        )
        while not [line for line in printed.read_text().splitlines() if is_step(line)]:
            assert process.poll() is None, printed.read_text()
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=200) == 0
    *events, report, end = json_lines(printed.read_text())
    assert end["message"] == "the pass ended with status 143"
    assert report["outcome"] == "stopped"
    assert any((tmp_path / "out" / "checkpoints").rglob("*"))
    started = [each for each in events if each["event"] == "node started"]
    assert started[-1]["node"] == "Trainer"
    assert {each["span"] for each in started} == {1}
    assert {each["run"] for each in started} == {report["run"]}
    assert [each["event"] for each in events][-2:] == ["node failed", "run failed"]
    assert scrape(tmp_path)["last_pass_outcomestopped"] == 1
    assert "last_success_timestamp_seconds" not in scrape(tmp_path)

    # A pass that was stopped was not made: it is made up for, and goes on where it was.
    again = subprocess.run(
        command("schedule", tmp_path, *nightly, "--once"),
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    *events, report, end = json_lines(again.stdout)
    assert report["outcome"] == "pushed"
    ended = {each["node"]: each["cached"] for each in events if each["event"] == "node ended"}
    assert ended["DigitClassifier"]
    assert not ended["Trainer"]
    first_step = min(step_of(each["message"]) for each in events if is_step(json.dumps(each)))
    assert first_step > 20
    found = scrape(tmp_path)
    assert found["served_version"] == report["version"]
    assert found["served_version_fid"] == pytest.approx(report["fid"])
    assert found["last_run_fid"] == pytest.approx(report["fid"])
    assert found["last_pass_outcomepushed"] == 1
    assert (found["failed_passes"], found["spans_waiting"], found["spans_quarantined"]) == (0, 0, 0)
    check_log_file(tmp_path / "out" / "logs", report["run"])


def is_step(line: str) -> bool:
    """Whether it is a line of the GAN's training, not of the classifier's."""
    return '"progress"' in line and '"Trainer"' in line and "step " in line


def step_of(message: str) -> int:
    return int(message.partition("step ")[2].split()[0].split("/")[0].replace(",", ""))


def check_log_file(logs: Path, run: str) -> None:
    """From the first node to the last Python's records are JSON; C++'s lines are what they are."""
    lines = max(logs.iterdir()).read_text().splitlines()
    places = [place for place, line in enumerate(lines) if line.startswith('{"time"')]
    records = [json.loads(lines[place]) for place in places]
    assert {each.get("run") for each in records} == {run}
    assert {"MnistExampleGen", "Trainer", "Pusher"} <= {each.get("node") for each in records}
    within = lines[places[0] : places[-1]]
    assert not [line for line in within if line.startswith(("INFO:", "WARNING:"))]


def test_sigterm_between_trainings_ends_a_pass_at_once_and_is_written_down(tmp_path, span_dir):
    printed = tmp_path / "printed.txt"
    with open(printed, "w") as file:
        process = subprocess.Popen(
            command("retrain", tmp_path, "--if", "always"), stdout=file, env=environment()
        )
        while '"StatisticsGen"' not in printed.read_text():
            assert process.poll() is None, printed.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    report = json_lines(printed.read_text())[-1]
    assert (report["outcome"], report["reason"]) == ("stopped", "SIGTERM")
    [line] = (tmp_path / "out" / "passes.jsonl").read_text().splitlines()
    assert json.loads(line)["outcome"] == "stopped"
