"""What `deploy/` has for passes of retraining is what its readers take, and our commands take."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.local.run import Outcome
from pipeline.retraining.schedule import read_times

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
CRONJOB = DEPLOY / "kubernetes" / "retrain-cronjob.yaml"


def service_command() -> str:
    [line] = re.findall(r"^ExecStart=(.*)$", UNITS[0].read_text(), re.MULTILINE)
    return line


def crontab_lines() -> list[tuple[str, str]]:
    """Of each line, the commented ones too: the five fields, and the command."""
    lines = re.findall(r"^(?:# )?([0-9*]+(?: [0-9*]+){4}) (cd .*)$", crontab(), re.MULTILINE)
    assert len(lines) == 2
    return lines


def crontab() -> str:
    return (DEPLOY / "mnist-gan.crontab").read_text()


def cronjob() -> dict:
    return next(yaml.safe_load_all(CRONJOB.read_text()))


def cronjob_command() -> str:
    [container] = cronjob()["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return shlex.join(container["args"])


COMMANDS = [service_command(), cronjob_command(), *(command for _, command in crontab_lines())]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_one_that_there_is(command, tmp_path):
    """Run where there are no digits, it makes a pass that cannot start, and writes that down."""
    _, found, arguments = command.partition(" local_runner.py ")
    words = shlex.split(arguments.partition(" 2>&1 ")[0])
    words = [word for word in words if not word.startswith(("--data-dir", "--output-dir"))]
    assert found
    (tmp_path / "data").mkdir()
    done = subprocess.run(
        [sys.executable, str(ROOT / "local_runner.py"), *words],
        env={k: v for k, v in os.environ.items() if not k.startswith("MNIST_")}
        | {
            "MNIST_DATA_DIR": str(tmp_path / "data"),
            "MNIST_GAN_OUTPUT_DIR": str(tmp_path / "outputs"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    [line] = (tmp_path / "outputs" / "passes.jsonl").read_text().splitlines()
    assert json.loads(line)["outcome"] == "not started"


def test_the_command_of_the_verification(tmp_path):
    """Where no version was pushed it ends with 2, and writes that down."""
    path = DEPLOY / "kubernetes" / "verify-cronjob.yaml"
    job = next(yaml.safe_load_all(path.read_text()))["spec"]["jobTemplate"]["spec"]
    [container] = job["template"]["spec"]["containers"]
    program, *words = container["args"]
    words = [word.replace("/mnt/mnist-gan", str(tmp_path)) for word in words]
    assert program == "python"
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "there is no version" in done.stderr) == (2, True)
    [line] = (tmp_path / "outputs" / "verifications.jsonl").read_text().splitlines()
    assert json.loads(line)["outcome"] == "not started"
    rules = {rule["action"]: rule for rule in job["podFailurePolicy"]["rules"]}
    assert rules["FailJob"]["onExitCodes"]["values"] == [2, 3]


def test_the_crontab_names_times_and_its_variables_are_settings():
    for fields, _ in crontab_lines():
        read_times(fields, None)
    assert "\nMNIST_GAN_METRICS__TEXTFILE=" in crontab()
    # A % ends the command for cron.
    assert "%" not in crontab()


def test_what_a_line_of_the_crontab_prints_is_kept_before_there_is_an_output_folder(tmp_path):
    stubs = {
        ".venv/bin/python": 'echo "made: $*"',
        "bin/logger": f'(echo "$*"; cat) >> {tmp_path}/log',
    }
    for name, content in stubs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\n{content}\n")
        path.chmod(0o755)
    for _, command in crontab_lines():
        line = command.replace("/opt/mnist-gan-tfx", str(tmp_path))
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        subprocess.run(["sh", "-c", line], env={"PATH": path}, check=True)
    logged = (tmp_path / "log").read_text().splitlines()
    assert logged[::2] == ["-t mnist-gan-retrain"] * 2
    assert [line.split()[:3] for line in logged[1::2]] == [
        ["made:", "local_runner.py", "retrain"],
        ["made:", "local_runner.py", "schedule"],
    ]


def test_a_service_that_was_stopped_or_blessed_nothing_has_not_failed():
    [statuses] = re.findall(r"^SuccessExitStatus=(.*)$", UNITS[0].read_text(), re.MULTILINE)
    assert statuses.split() == [str(int(Outcome.NOT_BLESSED)), str(int(Outcome.STOPPED))]


def test_systemd_takes_the_units(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze (Debian: apt-get install systemd)")
    checkout = tmp_path / "a b"
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to(sys.executable)
    for unit in UNITS:
        text = unit.read_text().replace("/opt/mnist-gan-tfx", str(checkout))
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    # It has a word to say on any unit of the machine that these refer to.
    assert done.returncode == 0, done.stderr
    assert "mnist-gan" not in done.stderr


def test_the_cronjob_keeps_a_checkpoint_and_makes_no_two_passes_at_once():
    spec = cronjob()["spec"]
    job = spec["jobTemplate"]["spec"]
    read_times(spec["schedule"], spec["timeZone"])
    assert spec["concurrencyPolicy"] == "Forbid"
    # Bad usage and failures come again with the same data; 143 is a pod that was evicted.
    rules = {rule["action"]: rule for rule in job["podFailurePolicy"]["rules"]}
    assert rules["FailJob"]["onExitCodes"]["values"] == [1, 2]
    assert rules["Ignore"]["onPodConditions"][0]["type"] == "DisruptionTarget"
