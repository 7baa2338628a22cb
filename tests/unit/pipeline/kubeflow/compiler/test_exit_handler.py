"""The report at a run's end: as kfp compiles it, rehearsed, and sent to a real HTTP server."""

import copy
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kfp
import pytest
import yaml
from spec_builder import PUT, SpecBuilder

from pipeline.kubeflow.compiler.exit_handler import add_exit_handler
from pipeline.kubeflow.compiler.spec_checks import SpecError
from pipeline.kubeflow.compiler.spec_file import PipelineFile, read_pipeline
from pipeline.kubeflow.container.report_outcome import make_report
from pipeline.kubeflow.emulator.rehearsal import rehearse
from pipeline.retraining.webhook import RunReport
from pipeline.settings.kubeflow import KubeflowSettings

NOW = datetime.datetime(2026, 11, 23, 12, 30, 0, tzinfo=datetime.timezone.utc)


def with_report(builder: SpecBuilder, serving_dir: str = "/none", failures: str = "") -> dict:
    document = builder.document()
    add_exit_handler(document, KubeflowSettings(), serving_dir, failures)
    return document


def rehearsed(document: dict, work_dir: Path, platform: dict | None = None) -> dict:
    results = rehearse(PipelineFile(document, platform or {}), {}, work_dir=work_dir)
    return {result.name: (result.outcome, result.message) for result in results}


@kfp.dsl.component
def _tell(status: kfp.dsl.PipelineTaskFinalStatus):
    print(status)


@kfp.dsl.container_component
def _work():
    return kfp.dsl.ContainerSpec(image="busybox", command=["true"])


def test_it_is_what_kfp_makes_of_its_own_exit_handler(tmp_path):
    @kfp.dsl.pipeline(name="digits")
    def pipeline():
        with kfp.dsl.ExitHandler(_tell()):
            _work()

    path = tmp_path / "kfp.yaml"
    kfp.compiler.Compiler().compile(pipeline, str(path))
    kfps = yaml.safe_load(path.read_text())["root"]["dag"]["tasks"]
    ours = with_report(SpecBuilder().add("Maker", PUT))["root"]["dag"]["tasks"]
    assert set(kfps["exit-handler-1"]) <= set(ours["pipeline"])
    theirs, report = kfps["tell"], ours["report-outcome"]
    assert report["triggerPolicy"] == theirs["triggerPolicy"]
    assert (theirs["dependentTasks"], report["dependentTasks"]) == (
        ["exit-handler-1"],
        ["pipeline"],
    )
    assert theirs["inputs"]["parameters"]["status"] == {
        "taskFinalStatus": {"producerTask": "exit-handler-1"}
    }
    assert report["inputs"]["parameters"]["status"] == {
        "taskFinalStatus": {"producerTask": "pipeline"}
    }


@pytest.fixture
def shown(tmp_path):
    """A function that rehearses with a report that prints what it is given."""

    def run(builder: SpecBuilder) -> tuple[dict, dict]:
        document = with_report(builder)
        container = document["deploymentSpec"]["executors"]["report-outcome_executor"]["container"]
        code = "import sys; print(sys.argv[1])"
        container["command"] = ["python", "-c", code]
        results = rehearsed(document, tmp_path / "work")
        [log] = (tmp_path / "work").glob("*/logs/report-outcome.log")
        return results, json.loads(log.read_text())["inputs"]["parameterValues"]

    return run


def test_it_runs_last_when_all_is_well(shown):
    results, values = shown(SpecBuilder().add("B", PUT).add("A", PUT, artifacts=["B"]))
    assert list(results) == ["B", "A", "report-outcome"]
    assert values.pop("created").endswith("Z")
    run_id = values.pop("run_id")
    assert values == {
        "status": {
            "state": "COMPLETE",
            "pipelineTaskName": "pipeline",
            "pipelineJobResourceName": f"digits-{run_id}",
            "error": {},
        },
        "run_name": f"digits {run_id}",
        "serving_dir": "/none",
        "failure_dir": "",
    }


def test_it_runs_when_a_task_has_failed_and_others_were_skipped(shown):
    builder = SpecBuilder().add("A", "sys.exit('no')").add("B", PUT, artifacts=["A"])
    results, values = shown(builder)
    assert {name: outcome for name, (outcome, _) in results.items()} == {
        "A": "failed",
        "B": "skipped",
        "report-outcome": "succeeded",
    }
    assert values["status"]["state"] == "FAILED"


def test_parameters_reach_the_tasks_inside(shown, tmp_path):
    builder = SpecBuilder().add("A", "print(e['inputs']['parameterValues']['span'])")
    builder.parameters = {"span": {"parameterType": "NUMBER_INTEGER", "defaultValue": 7}}
    kind = {"parameterType": "NUMBER_INTEGER"}
    builder.components["A"]["inputDefinitions"]["parameters"]["span"] = kind
    builder.tasks["A"]["inputs"]["parameters"]["span"] = {"componentInputParameter": "span"}
    shown(builder)
    [log] = (tmp_path / "work").glob("*/logs/A.log")
    assert float(log.read_text()) == 7


def test_the_webhook_is_told_by_the_container_itself(tmp_path, httpserver, monkeypatch):
    """The whole way: a run that fails, the exit task, its secret, and a request over HTTP."""
    httpserver.expect_request("/hook", method="POST").respond_with_data("ok")
    monkeypatch.setenv("RETRAIN_WEBHOOK_URL", httpserver.url_for("/hook"))
    pairs = [{"secretKey": "url", "envVar": "RETRAIN_WEBHOOK_URL"}]
    executors = {
        "report-outcome_executor": {"secretAsEnv": [{"secretName": "hook", "keyToEnv": pairs}]}
    }
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}
    version = tmp_path / "serving" / "7"
    version.mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"")
    document = with_report(SpecBuilder().add("A", "sys.exit(1)"), str(tmp_path / "serving"))
    results = rehearsed(document, tmp_path / "work", platform)
    assert results["report-outcome"] == ("succeeded", "")
    [(request, _)] = httpserver.log
    content = request.get_json()
    assert content.pop("seconds") >= 0
    run = content.pop("run")
    assert content == {
        "text": f"MNIST GAN: failed (run digits {run}). {content['error']}",
        "outcome": "failed",
        "reason": f"run digits {run}",
        "span": None,
        "version": 7,
        "fid": None,
        "failed": [],
        "quarantined": [],
        "error": f"a task did not start: see `kubeflow_runner.py status {run}`",
    }
    [log] = (tmp_path / "work").glob("*/logs/report-outcome.log")
    assert "/hook" not in log.read_text()


def version_of(folder: Path, number: int, run: str) -> None:
    extra = folder / str(number) / "assets.extra"
    extra.mkdir(parents=True)
    (extra.parent / "saved_model.pb").write_bytes(b"")
    record = {"version": number, "pushed_at": "2026-11-23T12:10:00+00:00", "model_fingerprint": ""}
    (extra / "push.json").write_text(json.dumps({**record, "files": {}, "run": run}))
    card = {"data": {"span": 3}, "metrics": {"fid": {"value": number / 4}}}
    (extra / "model_card.json").write_text(json.dumps(card))


def report_of(
    folder: Path, state: str, run: str = "id-1", errors: Sequence[str] = (), **changed: Any
) -> RunReport:
    values = {
        "status": {"state": state, "pipelineJobResourceName": "digits-x7k2p"},
        "run_id": run,
        "run_name": "digits 1",
        "created": "2026-11-23T12:00:00Z",
        "serving_dir": str(folder),
    }
    return make_report({**values, **changed}, errors, NOW)


def test_of_two_runs_side_by_side_each_reports_its_own(tmp_path):
    """One is blessed and pushes while the other, which is not, is still under way."""
    version_of(tmp_path, 9, "id-0")
    version_of(tmp_path, 10, "id-1")
    (tmp_path / "11").mkdir()
    assert report_of(tmp_path, "COMPLETE", "id-1") == RunReport(
        "pushed", "run digits 1", 3, "id-1", 10, 2.5, [], 1800.0
    )
    assert report_of(tmp_path, "COMPLETE", "id-2") == RunReport(
        "not pushed", "run digits 1", None, "id-2", 10, None, [], 1800.0
    )


def test_a_run_reports_its_push_although_a_later_one_is_served(tmp_path):
    version_of(tmp_path, 10, "id-1")
    version_of(tmp_path, 11, "id-2")
    report = report_of(tmp_path, "COMPLETE", "id-1")
    assert (report.outcome, report.version, report.fid) == ("pushed", 10, 2.5)


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "RUNNING", ""])
def test_anything_but_complete_is_failed(tmp_path, state):
    """RUNNING is what the DAG still says when its last pod was lost."""
    version_of(tmp_path, 10, "id-1")
    report = report_of(tmp_path, state, errors=["DataGate: a", "Trainer: b"])
    assert (report.outcome, report.span, report.fid) == ("failed", None, None)
    assert report.error == "DataGate: a; Trainer: b"


def test_a_scheduled_run_is_named_by_its_workflow(tmp_path):
    """The backend gives scheduled runs no name."""
    assert report_of(tmp_path, "COMPLETE", run_name="").reason == "run digits-x7k2p"


def test_a_backend_that_does_not_say_when_the_run_was_made(tmp_path):
    """Before 2.16: the placeholder stays."""
    version_of(tmp_path, 10, "id-1")
    report = report_of(tmp_path, "COMPLETE", created="{{$.pipeline_job_create_time_utc}}")
    assert (report.outcome, report.version, report.seconds) == ("pushed", 10, None)


def test_a_store_that_cannot_be_read_keeps_no_report_back(monkeypatch, capsys):
    for name, value in (("ENDPOINT_URL", "http://127.0.0.1:9"), ("KEY", "k"), ("SECRET", "s")):
        monkeypatch.setenv(f"FSSPEC_S3_{name}", value)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert report_of("s3://bucket/serving", "COMPLETE").outcome == "not pushed"
    assert "s3://bucket/serving cannot be read" in capsys.readouterr().err


def _tasks(document: dict) -> dict:
    return document["root"]["dag"]["tasks"]


NESTED = {"artifactSelectors": [{"producerSubtask": "A", "outputArtifactKey": "out"}]}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: _tasks(d)["report-outcome"].update(dependentTasks=[]), "report-outcome: "),
        (
            lambda d: _tasks(d).update(second=copy.deepcopy(_tasks(d)["report-outcome"])),
            "pipeline: ",
        ),
        (lambda d: _tasks(d)["pipeline"].update(dependentTasks=["report-outcome"]), "pipeline: "),
        (lambda d: _tasks(d).pop("pipeline"), "exit task"),
        (
            lambda d: d["components"]["pipeline"]["dag"]["tasks"].update({"a.b": _task("A")}),
            "a.b: ",
        ),
        (
            lambda d: d["components"]["pipeline"]["dag"].update(
                outputs={"artifacts": {"x": NESTED}}
            ),
            "pipeline: ",
        ),
    ],
)
def test_exit_handlers_that_the_backend_would_not_run_as_meant(tmp_path, change, named):
    document = with_report(SpecBuilder().add("A", PUT))
    change(document)
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(SpecError) as caught:
        rehearse(read_pipeline(path), {}, work_dir=tmp_path / "work")
    assert named in str(caught.value)
    assert not (tmp_path / "work").exists()


def _task(name: str) -> dict:
    return {"taskInfo": {"name": name}, "componentRef": {"name": name}}
