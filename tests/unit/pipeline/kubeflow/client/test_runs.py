"""The commands on a terminal, against a stand-in of the API: runs, and what users get wrong."""

import datetime
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kfp_server_api as api
import pytest
import typer
import yaml
from click.testing import Result
from kfp_stand_in import SPEC, Fault, Request, StandIn, serving
from typer.testing import CliRunner

from pipeline.cli.errors import Group
from pipeline.cli.kubeflow import add_commands
from pipeline.kubeflow.client import runs as cluster_runs
from pipeline.kubeflow.client.cluster import Cluster, RetryPolicy
from pipeline.kubeflow.client.failures import node_id

ROOT = "minio://mlpipeline/digits"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with serving() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        yield server


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "pipeline.yaml"
    path.write_text(SPEC)
    return str(path)


def _call(*arguments: str) -> Result:
    app = typer.Typer(cls=Group)
    add_commands(app)
    return CliRunner().invoke(app, arguments)


def _submit(spec: str, *more: str) -> Result:
    return _call("submit", spec, "--param", "data=gs://b/d", "--pipeline-root", ROOT, *more)


def _refused(result: Result, named: str) -> None:
    """An error of at most five lines that names a value or a place, and exit status 2."""
    assert result.exit_code == 2, result.output
    assert named in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) <= 5
    assert not isinstance(result.exception, Exception)


def test_submit_asks_for_exactly_one_run(stand_in: StandIn, spec: str) -> None:
    result = _submit(spec, "--param", "span=7", "--experiment", "tries")
    assert result.exit_code == 0, result.output
    (run,) = stand_in.runs.values()
    assert f"{stand_in.url}/#/runs/details/{run.run_id}" in result.stdout
    assert stand_in.changes() == [("POST", "experiments"), ("POST", "runs")]
    name = stand_in.requests[-1].body.pop("display_name")
    assert re.fullmatch(r"digits \d{4}-\d\d-\d\d \d\d-\d\d-\d\d [0-9a-f]{6}", name)
    (experiment,) = stand_in.experiments.values()
    assert experiment.display_name == "tries"
    assert stand_in.requests[-1].body == {
        "experiment_id": experiment.experiment_id,
        "pipeline_spec": yaml.safe_load(SPEC),
        "runtime_config": {"parameters": {"data": "gs://b/d", "span": 7}, "pipeline_root": ROOT},
    }


def test_without_a_pipeline_root_none_is_sent(stand_in: StandIn, spec: str) -> None:
    """So the backend takes the cluster's own."""
    assert _call("submit", spec, "--param", "data=gs://b/d").exit_code == 0
    submitted = stand_in.requests[-1].body
    assert submitted["runtime_config"] == {"parameters": {"data": "gs://b/d"}}
    _call("schedule", spec, "--cron", "0 0 * * *", "--param", "data=gs://b/d")
    (scheduled,) = stand_in.recurring_runs.values()
    assert scheduled.runtime_config.pipeline_root is None


@pytest.mark.parametrize("kind", ["drop", "half", "cut"])
def test_a_run_whose_answer_is_lost_is_not_asked_for_again(
    stand_in: StandIn, spec: str, kind: str
) -> None:
    stand_in.faults = iter([*[None] * 3, Fault(kind, carried_out=True)])
    result = _submit(spec)
    assert result.exit_code == 0, result.output
    (run,) = stand_in.runs.values()
    assert run.run_id in result.stdout


def test_a_run_that_was_not_taken_is_said_so(stand_in: StandIn, spec: str) -> None:
    stand_in.faults = iter([*[None] * 3, Fault("status")])
    _refused(_submit(spec), stand_in.url)
    assert stand_in.runs == {}


def test_a_run_of_unknown_fate_is_said_so(
    stand_in: StandIn, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.faults = iter([*[None] * 3, Fault("drop", True), Fault("status", status=403)])
    _refused(_submit(spec), "it is unknown whether run 'digits ")


# Waiting.


def _at_each_look(stand_in: StandIn, *states: str | None) -> None:
    """Lets the run be in these states, one for each time that it is asked for."""
    left = iter(states)
    answer = stand_in.answer

    def changing(request: Request) -> Any:
        if request.method == "GET" and "/runs/" in request.path:
            next(iter(stand_in.runs.values())).state = next(left)
        return answer(request)

    stand_in.answer = changing  # type: ignore[method-assign]


@pytest.fixture
def _quick_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_runs.wait_for_run, "__defaults__", (0.001,))
    monkeypatch.setattr(RetryPolicy.__init__, "__defaults__", (5, 5, 3, 0.001))


@pytest.mark.usefixtures("_quick_waits")
@pytest.mark.parametrize(
    ("last", "status"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELED", 1), ("SKIPPED", 1)]
)
def test_wait_ends_with_the_run(stand_in: StandIn, spec: str, last: str, status: int) -> None:
    _at_each_look(stand_in, None, "PENDING", "RUNNING", "PAUSED", "RUNNING", "CANCELING", last)
    result = _submit(spec, "--wait")
    assert result.exit_code == status, result.output
    states = [line.strip() for line in result.stdout.splitlines()[2:8]]
    assert states == ["pending", "running", "paused", "running", "canceling", last.lower()]


@pytest.mark.usefixtures("_quick_waits")
@pytest.mark.parametrize(
    ("task", "log", "last", "status"),
    [
        ("GeneratorEvaluator", "INFO:mnist_gan.progress:not blessed: FID 9 > 3",
         "not blessed: FID 9 > 3", 3),
        ("Pusher", "I1128 executor.py:83] Pushed version 7 to /s/7", "Pushed version 7 to /s/7", 0),
        ("Pusher", "W1128 executor.py:86] Not pushed: version 6 is this model already",
         "Not pushed: version 6 is this model already", 0),
        ("Pusher", "Not pushed: version 6 was rolled back from",
         "Not pushed: version 6 was rolled back from", 3),
        ("Pusher", "", "succeeded", 0),
    ],
)  # fmt: skip
def test_wait_says_what_came_of_a_run_that_succeeded(
    stand_in: StandIn,
    spec: str,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    log: str,
    last: str,
    status: int,
) -> None:
    Path(spec).write_text(SPEC.replace("Train", task))
    pod = node_id("digits-x7k2p", f"digits-x7k2p.root.{task}.executor")
    child = api.PipelineTaskDetailChildTask(pod_name=pod)
    details = [api.V2beta1PipelineTaskDetail(display_name=task, child_tasks=[child])]
    stand_in.logs[pod] = f"an earlier line\n{log}\n"
    _at_each_look(stand_in, "SUCCEEDED")
    answer = stand_in.answer

    def with_details(request: Request) -> Any:
        for run in stand_in.runs.values():
            run.run_details = api.V2beta1RunDetails(task_details=details)
        return answer(request)

    monkeypatch.setattr(stand_in, "answer", with_details)
    result = _submit(spec, "--wait")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (status, last), result.output


@pytest.mark.usefixtures("_quick_waits")
def test_wait_gets_over_passing_failures(stand_in: StandIn, spec: str) -> None:
    _at_each_look(stand_in, "RUNNING", "RUNNING", "SUCCEEDED")
    stand_in.faults = iter([*[None] * 4, Fault("drop"), Fault("status"), Fault("half", True), None])
    result = _submit(spec, "--wait")
    assert result.exit_code == 0, result.output


@pytest.mark.usefixtures("_quick_waits")
def test_wait_says_when_the_cluster_is_gone(stand_in: StandIn, spec: str) -> None:
    stand_in.faults = iter([*[None] * 4, *[Fault("drop")] * 70])
    _refused(_submit(spec, "--wait"), stand_in.url)


@pytest.mark.usefixtures("_quick_waits")
def test_the_run_goes_on_when_nobody_waits_any_more(
    stand_in: StandIn, interrupt_main: Callable[[], None], spec: str
) -> None:
    _at_each_look(stand_in, *["RUNNING"] * 1000)
    looked = stand_in.answer

    def interrupting(request: Request) -> Any:
        if len(stand_in.requests) == 10:
            interrupt_main()
        return looked(request)

    stand_in.answer = interrupting  # type: ignore[method-assign]
    result = _submit(spec, "--wait")
    assert result.exit_code == 130
    assert next(iter(stand_in.runs)) in result.stderr


# Looking.


def _moment(second: int) -> datetime.datetime:
    return datetime.datetime(2026, 11, 23, 9, 0, second, tzinfo=datetime.timezone.utc)


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def _detail(name: str, state: str, start: int, end: int | None, error: str = "") -> Any:
    status_of = getattr(api, api.V2beta1RuntimeStatus.openapi_types["error"])  # renamed in kfp 2.16
    status = api.V2beta1RuntimeStatus(state=state, error=status_of(message=error))
    return api.V2beta1PipelineTaskDetail(
        display_name=name,
        state=state,
        start_time=_moment(start),
        end_time=_EPOCH if end is None else _moment(end),
        state_history=[status] if error else None,
    )


def _run(stand_in: StandIn, state: str, *details: Any) -> str:
    run = api.V2beta1Run(
        run_id="run-1",
        display_name="digits 1",
        state=state,
        created_at=_moment(0),
        pipeline_spec=yaml.safe_load(SPEC),
        run_details=api.V2beta1RunDetails(task_details=list(details) or None),
    )
    stand_in.runs["run-1"] = run
    return "run-1"


def test_status_of_a_run_shows_its_tasks(stand_in: StandIn) -> None:
    run = _run(
        stand_in,
        "FAILED",
        _detail("Train", "FAILED", 30, 42, "OOMKilled\n(exit code 137)"),
        _detail("Say", "SUCCEEDED", 10, 25),
        _detail("digits-x7k2p", "FAILED", 0, 45),
        _detail("root", "FAILED", 2, 44),
        _detail("root-driver", "SUCCEEDED", 1, 2),
        _detail("Say-driver", "SUCCEEDED", 5, 9),
        _detail("executor", "SUCCEEDED", 11, 25),
    )
    result = _call("status", run)
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["digits", "1:", "failed"],
        ["task", "state", "seconds"],
        ["Say", "succeeded", "15"],
        ["Train", "failed", "12"],
        ["Train:", "OOMKilled", "(exit", "code", "137)"],
    ]


def test_status_shows_a_failed_tasks_last_error_and_what_has_not_started(stand_in: StandIn) -> None:
    """A run of release 2.17.0: `pipeline` is the DAG inside the one with the exit handler."""
    recorded = json.loads(Path(__file__).with_name("failed_run.json").read_text())
    workflow, tasks = recorded["workflow"], recorded["tasks"]
    inner = {name: {"componentRef": {"name": "leaf"}} for name in tasks}
    outer = {name: {"componentRef": {"name": name}} for name in ("pipeline", "report-outcome")}
    trigger = {"triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}}
    outer["report-outcome"] |= {"dependentTasks": ["pipeline"], **trigger}
    components = {"pipeline": {"dag": {"tasks": inner}}, "report-outcome": {}, "leaf": {}}
    child = api.PipelineTaskDetailChildTask
    details = [
        api.V2beta1PipelineTaskDetail(
            display_name=name,
            state=state,
            child_tasks=[child(pod_name=f"{workflow}-{pod}") for pod in pods],
        )
        for name, state, pods in recorded["details"]
    ]
    run = _run(stand_in, "FAILED", *details)
    spec = {"root": {"dag": {"tasks": outer}}, "components": components}
    stand_in.runs[run].pipeline_spec = {"pipeline_spec": spec, "platform_spec": {}}
    stand_in.logs[f"{workflow}-2921083712"] = "\n".join(recorded["log"])
    lines = _call("status", run).stdout.splitlines()
    rows = {name: " ".join(state) for name, *state in map(str.split, lines[2:13])}
    assert rows.pop("MnistExampleGen") == "failed"
    assert [rows.pop(name) for name in ("ImportSchemaGen", "report-outcome")] == ["succeeded"] * 2
    assert rows == dict.fromkeys(set(tasks) - {"MnistExampleGen", "ImportSchemaGen"}, "not started")
    [error] = lines[13:]
    assert error.startswith("MnistExampleGen: components.mnist_example_gen.idx.IdxError: '/mnt/")
    assert error.endswith("Replace it with a complete copy of the original file.")
    stand_in.logs = {f"{workflow}-1228831173": "cannot connect\n"}
    for detail in details:
        detail.state = "FAILED" if detail.display_name == "report-outcome" else detail.state
    shown = _call("status", run).stdout
    assert "MnistExampleGen: no log" in shown
    assert "report-outcome: cannot connect" in shown


def test_status_says_that_a_pod_has_not_started(stand_in: StandIn) -> None:
    details = [_detail("Say", "RUNNING", 10, None), _detail("executor(0)", "PENDING", 11, None)]
    lines = _call("status", _run(stand_in, "RUNNING", *details)).stdout.splitlines()
    assert lines[-1].startswith("1 pod(s) made and not started")


def test_a_run_that_was_terminated_is_no_failure(stand_in: StandIn) -> None:
    run = _run(stand_in, "RUNNING")
    assert _call("terminate", run).exit_code == 0
    assert stand_in.changes() == [("POST", f"runs/{run}:terminate")]
    state = api.V2beta1RuntimeStatus(state="CANCELING")
    stand_in.runs[run].state, stand_in.runs[run].state_history = "FAILED", [state]
    assert _call("status", run).stdout.splitlines()[0] == "digits 1: terminated"
    assert "terminated  run-1" in _call("status").stdout
    _refused(_call("terminate", "none"), "none")


def test_status_shows_a_driver_that_failed_and_a_task_that_goes_on(stand_in: StandIn) -> None:
    run = _run(
        stand_in,
        "RUNNING",
        _detail("Say", "RUNNING", 10, None),
        _detail("Train-driver", "FAILED", 20, 21),
    )
    lines = _call("status", run).stdout.splitlines()
    assert [line.split() for line in lines[2:5]] == [
        ["Say", "running"],
        ["Train-driver", "failed", "1"],
        ["Train", "not", "started"],
    ]
    assert lines[5].startswith("Train-driver: no log")


def test_status_of_a_run_without_tasks_yet(stand_in: StandIn) -> None:
    lines = _call("status", _run(stand_in, "PENDING")).stdout.splitlines()
    assert lines[0] == "digits 1: pending"
    assert [line.split() for line in lines[2:]] == [
        [name, "not", "started"] for name in ("Say", "Train")
    ]


def test_status_lists_the_last_runs(stand_in: StandIn) -> None:
    assert _call("status").stdout == "none\n"
    stand_in.page_limit = 2
    for number in range(5):
        stand_in.runs[f"id-{number}"] = api.V2beta1Run(
            run_id=f"id-{number}", display_name=f"digits {number}", created_at=_moment(number)
        )
    lines = _call("status", "--last", "3").stdout.splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["4", "3", "2"]
    assert "pending  id-4  digits 4" in lines[1]


def test_schedule_schedules_unschedule(stand_in: StandIn, spec: str) -> None:
    schedule = ["schedule", spec, "--cron", "0 3 * * MON", "--param", "data=x"]
    schedule += ["--pipeline-root", ROOT, "--no-catchup", "--max-concurrency", "2"]
    assert _call("schedules").stdout == "none\n"
    assert _call(*schedule).stdout == "Schedule digits (0 3 * * MON) is in force\n"
    assert _call(*schedule).stdout == (
        "Schedule digits (0 3 * * MON) is in force already, unchanged\n"
    )
    heading, line = _call("schedules").stdout.splitlines()
    assert re.match(r"digits  enabled  0 0 3 \* \* 1  2          \d{4}-", line)
    assert heading.index("at a time") == line.index("2  ")
    assert _call("unschedule", "digits").stdout == "Schedule digits is removed\n"
    _refused(_call("unschedule", "digits"), "there is no schedule 'digits'")


def test_without_a_file_it_is_the_one_that_compile_writes(
    stand_in: StandIn, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(spec).parent)
    assert _call("submit", "--param", "data=x").exit_code == 0
    assert _call("schedule", "--cron", "0 0 * * *", "--param", "data=x").exit_code == 0
    (run,) = stand_in.runs.values()
    (schedule,) = stand_in.recurring_runs.values()
    assert run.pipeline_spec == schedule.pipeline_spec == yaml.safe_load(SPEC)


# What users get wrong.


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["submit", "FILE", "--param", "spam=1"], "'spam'"),
        (["submit", "FILE", "--pipeline-root", ROOT], "data"),
        (["submit", "none.yaml"], "where: none.yaml"),
        (["schedule", "FILE", "--cron", "daily"], "daily"),
        (["schedule", "FILE", "--cron", "0 0 * * *", "--param", "data=x", "--pipeline-root", "/d"],
         "'/d'"),
        (["status", "--host", "http://a:b@c"], "password"),
        (["status", "none"], "none"),
    ],
)  # fmt: skip
def test_a_users_mistake_changes_nothing(
    stand_in: StandIn, spec: str, arguments: list[str], named: str
) -> None:
    _refused(_call(*(spec if each == "FILE" else each for each in arguments)), named)
    assert stand_in.changes() == []


def test_a_closed_port_is_one_message() -> None:
    _refused(_call("status", "--host", "http://127.0.0.1:1"), "where: http://127.0.0.1:1")


@pytest.mark.parametrize("arguments", [["status"], ["schedules"], ["unschedule", "nightly"]])
def test_no_host_and_a_refusal_are_one_message(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    stand_in.authorization = "Bearer right"
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "wrong-secret")
    result = _call(*arguments)
    _refused(result, f"where: {stand_in.url}")
    assert "wrong-secret" not in result.output
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    _refused(_call(*arguments), "where: --host")


def test_a_namespace_goes_with_every_request(stand_in: StandIn, spec: str) -> None:
    stand_in.multi_user = True
    _refused(_call("status"), "--namespace")
    assert _submit(spec, "--namespace", "alice").exit_code == 0
    (experiment,) = stand_in.experiments.values()
    assert experiment.namespace == "alice"
    assert Cluster(None, "alice").namespace == "alice"
