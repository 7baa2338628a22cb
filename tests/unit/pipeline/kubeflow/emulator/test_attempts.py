"""A run whose tasks fail in each way and are retried in their pods, with its report."""

import sys
from pathlib import Path
from typing import Any

import pytest
from spec_builder import MODEL, SpecBuilder

from pipeline.kubeflow.compiler.exit_handler import add_exit_handler
from pipeline.kubeflow.compiler.spec_file import PipelineFile
from pipeline.kubeflow.emulator.rehearsal import TaskResult, rehearse
from pipeline.settings.kubeflow import KubeflowSettings

SUPERVISED = """
import sys
from pipeline.kubeflow.container.supervisor import main
code, *arguments = sys.argv[1:]
sys.exit(main(arguments, [sys.executable, "-c", code]))
"""
# The part of the entry point that matters here: notes, and a file that counts attempts.
NODE = """
import json, os, resource, signal, sys, time
from pipeline.kubeflow.container.failures import Notes
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
notes = Notes.of(json.loads(words["--json_serialized_invocation_args"]))
notes.began(words["--node"])
with open(os.environ["KFP_LOCAL_ROOT"] + "/attempts", "a") as file:
    file.write("x")
attempt = os.path.getsize(os.environ["KFP_LOCAL_ROOT"] + "/attempts")
"""
END = '\nnotes.succeeded(words["--node"])'
FAILURES = {
    "Exits": "if attempt < 3: sys.exit(1)",
    "Killed": "if attempt < 2: os.kill(os.getpid(), signal.SIGKILL)",
    "Late": "if attempt < 2: time.sleep(60)",
    "OutOfMemory": (
        "if attempt < 2:\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))\n"
        "    bytearray(1 << 30)"
    ),
}


def add(builder: SpecBuilder, name: str, code: str, seconds: float, folder: Path) -> None:
    """Adds a task with the command of a compiled node, whose node is this code."""
    builder.add(name, "", parameters={"run_id": "", "failure_dir": str(folder / "failures")})
    values = builder.tasks[name]["inputs"]["parameters"]
    values["run_id"]["runtimeValue"]["constant"] = "{{$.pipeline_job_uuid}}"
    builder.components[name]["outputDefinitions"]["artifacts"] = {"out": MODEL}
    builder.executors[f"{name}_executor"]["container"] |= {
        "command": [sys.executable, "-c", SUPERVISED, NODE + code + END],
        "args": [
            *(f"--node={name}", "--retries=2", f"--seconds={seconds}"),
            *("--json_serialized_invocation_args", "{{$}}"),
        ],
    }


@pytest.fixture
def rehearsed(tmp_path, httpserver, monkeypatch):
    """A function that rehearses with a report; gives the results and what the webhook got."""
    httpserver.expect_request("/hook", method="POST").respond_with_data("ok")
    monkeypatch.setenv("RETRAIN_WEBHOOK_URL", httpserver.url_for("/hook"))

    def run(builder: SpecBuilder) -> tuple[dict[str, TaskResult], dict[str, Any]]:
        document = builder.document()
        failures = str(tmp_path / "failures")
        add_exit_handler(document, KubeflowSettings(), str(tmp_path / "serving"), failures)
        keys = [{"secretKey": "url", "envVar": "RETRAIN_WEBHOOK_URL"}]
        secret = {"secretAsEnv": [{"secretName": "hook", "keyToEnv": keys}]}
        executors = {"report-outcome_executor": secret}
        platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}
        results = rehearse(PipelineFile(document, platform), {}, work_dir=tmp_path / "work")
        [(request, _)] = httpserver.log
        return {result.name: result for result in results}, request.get_json()

    return run


def pod(tmp_path: Path, task: str, name: str) -> str:
    [file] = (tmp_path / "work").glob(f"*/pods/{task}/{name}")
    return file.read_text()


def test_each_failure_is_retried_and_forgotten(rehearsed, tmp_path):
    builder = SpecBuilder()
    for name, code in FAILURES.items():
        add(builder, name, code, 6.0 if name == "Late" else 60.0, tmp_path)
    results, message = rehearsed(builder)
    assert {name: result.outcome for name, result in results.items()} == dict.fromkeys(
        [*FAILURES, "report-outcome"], "succeeded"
    )
    attempts = {name: len(pod(tmp_path, name, "attempts")) for name in FAILURES}
    assert attempts == {"Exits": 3, "Killed": 2, "Late": 2, "OutOfMemory": 2}
    assert (message["outcome"], message["error"]) == ("not pushed", "")
    assert list((tmp_path / "failures").iterdir()) == []
    assert {pod(tmp_path, name, "dev/termination-log") for name in FAILURES} == {""}


def test_the_last_error_is_in_result_webhook_and_termination_log(rehearsed, tmp_path):
    builder = SpecBuilder()
    code = "print('error: no room at s3://me:secret@b', file=sys.stderr); sys.exit(1)"
    add(builder, "Trainer", code, 60.0, tmp_path)
    results, message = rehearsed(builder)
    error = "Trainer: no room at s3://***@b (attempt 3 of 3)"
    assert results["Trainer"].outcome == "failed"
    assert error in results["Trainer"].message
    assert pod(tmp_path, "Trainer", "dev/termination-log") == error
    assert (message["outcome"], message["error"]) == ("failed", error)
    assert list((tmp_path / "failures").iterdir()) == []


def test_a_task_whose_pod_was_killed_is_named_in_the_webhook(rehearsed, tmp_path):
    """By the kernel, for memory: nobody in the pod is left to say so."""
    builder = SpecBuilder()
    code = "os.kill(os.getppid(), signal.SIGKILL); time.sleep(0.5)\nsys.exit(1)"
    add(builder, "Trainer", code, 60.0, tmp_path)
    results, message = rehearsed(builder)
    assert results["Trainer"].outcome == "failed"
    assert message["error"].startswith("Trainer: its pod ended")
