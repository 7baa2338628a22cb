"""Schedules against a stand-in of the API: what is asked for, and what is left after failures."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kfp_server_api import V2beta1Run
from kfp_stand_in import SPEC as RUNNABLE_SPEC
from kfp_stand_in import Fault, Request, StandIn, serving

from pipeline.kubeflow.client.cluster import Cluster, ClusterError, RetryPolicy
from pipeline.kubeflow.client.schedule import Wanted, put_schedule, remove_schedule

NAME = "nightly"
FILE = Path("pipeline.yaml")
QUICK = RetryPolicy(connect=5, answer=5, attempts=3, first_pause=0.001)
SPEC = {"pipelineInfo": {"name": "digits"}, "root": {"dag": {}}}
# The requests of a replacement.
CALLS = ("list", "create", "disable", "enable", "list", "runs", "delete")
STEPS = ("create", "disable", "enable", "delete")


@pytest.fixture(scope="module", autouse=True)
def _spec_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The compiled pipeline, in the working folder."""
    folder = tmp_path_factory.mktemp("spec")
    (folder / FILE).write_text(yaml.safe_dump(SPEC))
    before = os.getcwd()
    os.chdir(folder)
    yield
    os.chdir(before)


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with serving() as server:
        yield server


def _connect(stand_in: StandIn, retry: RetryPolicy = QUICK) -> Cluster:
    return Cluster(stand_in.url, retry=retry)


def _wanted(cluster: Cluster, cron: str = "0 0 3 * * *", **changes: object) -> Wanted:
    wanted = Wanted(
        name=NAME,
        pipeline="digits",
        experiment_id=cluster.experiment_id("digits"),
        file=FILE,
        spec=SPEC,
        parameters={"span": 7},
        pipeline_root="minio://mlpipeline/digits",
        cron=cron,
        max_concurrency=1,
        no_catchup=False,
    )
    return replace(wanted, **changes)


def _verbs(stand_in: StandIn) -> list[str]:
    """The changes of recurring runs, in order."""
    verbs = []
    for method, path in stand_in.changes():
        if path.startswith("recurringruns"):
            verb = {"DELETE": "delete"}.get(method) or path.partition(":")[2] or "create"
            verbs.append(verb)
    return verbs


def _crons(stand_in: StandIn) -> list[tuple[str, str]]:
    return [(each.trigger.cron_schedule.cron, each.status) for each in stand_in.named(NAME)]


def _never_two(stand_in: StandIn) -> bool:
    return all(len(ids) <= 1 for moment in stand_in.history for ids in moment.values())


# The order of the steps.


def test_the_first_schedule_is_made_disabled_then_enabled(stand_in: StandIn) -> None:
    cluster = _connect(stand_in)
    wanted = _wanted(cluster)
    change = put_schedule(cluster, wanted)
    assert change == (True, [])
    assert _verbs(stand_in) == ["create", "enable"]
    (made,) = [
        each for each in stand_in.requests if each.path.endswith("/recurringruns") and each.body
    ]
    assert made.body == {
        "display_name": "nightly",
        "description": f"kubeflow_runner.py schedule, pipeline digits, settings {wanted.digest}",
        "experiment_id": next(iter(stand_in.experiments)),
        "pipeline_spec": SPEC,
        "runtime_config": {
            "parameters": {"span": 7},
            "pipeline_root": "minio://mlpipeline/digits",
        },
        "trigger": {"cron_schedule": {"cron": "0 0 3 * * *"}},
        "mode": "DISABLE",
        "max_concurrency": 1,
        "no_catchup": False,
    }
    assert len(made.body["description"]) + 128 < 255  # the column of the backend's database


def test_an_unchanged_schedule_is_left_alone(stand_in: StandIn) -> None:
    cluster = _connect(stand_in)
    put_schedule(cluster, _wanted(cluster))
    before = len(stand_in.changes())
    assert put_schedule(cluster, _wanted(cluster)) == (False, [])
    assert len(stand_in.changes()) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"cron": "0 0 4 * * *"},
        {"parameters": {"span": 8}},
        {"pipeline_root": "minio://mlpipeline/other"},
        {"max_concurrency": 2},
        {"no_catchup": True},
        {"spec": {**SPEC, "schemaVersion": "2.1.0"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_any_change_replaces_it(stand_in: StandIn, changes: dict[str, object]) -> None:
    cluster = _connect(stand_in)
    put_schedule(cluster, _wanted(cluster))
    (old,) = stand_in.enabled(NAME)
    stand_in.requests.clear()
    put_schedule(cluster, _wanted(cluster, **changes))
    assert _verbs(stand_in) == list(STEPS)
    assert len(stand_in.named(NAME)) == 1
    assert stand_in.enabled(NAME) != [old]
    assert _never_two(stand_in)


def test_a_paused_schedule_is_in_force_again(stand_in: StandIn) -> None:
    cluster = _connect(stand_in)
    put_schedule(cluster, _wanted(cluster))
    stand_in.named(NAME)[0].status = "DISABLED"
    assert put_schedule(cluster, _wanted(cluster)).changed
    assert _crons(stand_in) == [("0 0 3 * * *", "ENABLED")]


def test_names_that_differ_in_case_only_are_two_schedules(stand_in: StandIn) -> None:
    cluster = _connect(stand_in)
    put_schedule(cluster, _wanted(cluster, name="Nightly"))
    put_schedule(cluster, _wanted(cluster))
    assert len(stand_in.enabled("Nightly")) == len(stand_in.enabled("nightly")) == 1


@pytest.mark.parametrize(
    "name", ["50% + more", "a&b=c", 'say "hi"', "Ziffern für morgen", "a/b:c?d"]
)
def test_a_name_of_any_characters_is_found_again(stand_in: StandIn, name: str) -> None:
    cluster = _connect(stand_in)
    put_schedule(cluster, _wanted(cluster, name=name))
    put_schedule(cluster, _wanted(cluster, "0 0 4 * * *", name=name))
    assert len(stand_in.recurring_runs) == len(stand_in.enabled(name)) == 1
    remove_schedule(cluster, name)
    assert stand_in.recurring_runs == {}


def test_all_pages_are_looked_at(stand_in: StandIn) -> None:
    cluster = _connect(stand_in)
    stand_in.page_limit = 2
    for number in range(5):
        put_schedule(cluster, _wanted(cluster, name=f"other-{number}"))
    first = _wanted(cluster)
    put_schedule(cluster, first)
    for each in list(stand_in.named(NAME)) * 4:  # leftovers, all disabled
        copy = type(each)(**{**each.to_dict(), "status": "DISABLED"})
        copy.recurring_run_id = f"left-{len(stand_in.recurring_runs)}"
        stand_in.recurring_runs[copy.recurring_run_id] = copy
    assert len(stand_in.named(NAME)) == 5
    put_schedule(cluster, first)
    assert len(stand_in.named(NAME)) == len(stand_in.enabled(NAME)) == 1


def test_a_schedule_that_something_else_created_is_left_alone(stand_in: StandIn) -> None:
    cluster = _connect(stand_in)
    put_schedule(cluster, _wanted(cluster, pipeline="letters"))
    with pytest.raises(ClusterError):
        put_schedule(cluster, _wanted(cluster))
    stand_in.named(NAME)[0].description = "by hand"
    for change in (
        lambda: put_schedule(cluster, _wanted(cluster)),
        lambda: remove_schedule(cluster, NAME),
    ):
        with pytest.raises(ClusterError):
            change()
    assert len(stand_in.enabled(NAME)) == 1


def test_a_schedule_of_unknown_state_is_left_alone(stand_in: StandIn) -> None:
    cluster = _connect(stand_in)
    put_schedule(cluster, _wanted(cluster))
    stand_in.named(NAME)[0].status = None
    with pytest.raises(ClusterError):
        put_schedule(cluster, _wanted(cluster, "0 0 4 * * *"))
    assert len(stand_in.named(NAME)) == 1


# Runs under way.


def _start_run(stand_in: StandIn, schedule_id: str, state: str) -> V2beta1Run:
    run = V2beta1Run(
        run_id=f"run-{len(stand_in.runs)}",
        display_name="nightly-1",
        recurring_run_id=schedule_id,
        state=state,
    )
    stand_in.runs[run.run_id] = run
    return run


def test_an_old_schedule_is_kept_disabled_while_its_run_goes_on(stand_in: StandIn) -> None:
    cluster = _connect(stand_in)
    put_schedule(cluster, _wanted(cluster))
    (old,) = stand_in.enabled(NAME)
    _start_run(stand_in, old, "SUCCEEDED")
    run = _start_run(stand_in, old, "RUNNING")
    new = _wanted(cluster, "0 0 4 * * *")
    assert put_schedule(cluster, new).kept == ["nightly-1"]
    assert _crons(stand_in) == [("0 0 3 * * *", "DISABLED"), ("0 0 4 * * *", "ENABLED")]
    run.state = "FAILED"
    assert put_schedule(cluster, new) == (False, [])
    assert _crons(stand_in) == [("0 0 4 * * *", "ENABLED")]


def test_unschedule_disables_first_and_deletes_when_no_run_is_under_way(stand_in: StandIn) -> None:
    cluster = _connect(stand_in)
    put_schedule(cluster, _wanted(cluster))
    (only,) = stand_in.enabled(NAME)
    run = _start_run(stand_in, only, "RUNNING")
    assert remove_schedule(cluster, NAME).kept == ["nightly-1"]
    assert _crons(stand_in) == [("0 0 3 * * *", "DISABLED")]
    run.state = "CANCELED"
    assert remove_schedule(cluster, NAME).kept == []
    assert stand_in.named(NAME) == []
    with pytest.raises(ClusterError):
        remove_schedule(cluster, NAME)


# One failure, at each request of a replacement.


def _replacing(stand_in: StandIn, retry: RetryPolicy = QUICK) -> tuple[Cluster, Wanted]:
    """A cluster with a schedule, and the settings of the one to replace it."""
    put_schedule(_connect(stand_in), _wanted(_connect(stand_in)))
    cluster = _connect(stand_in, retry)
    wanted = _wanted(cluster, "0 0 4 * * *")
    stand_in.requests.clear()
    stand_in.history.clear()
    return cluster, wanted


def test_a_replacement_makes_seven_requests(stand_in: StandIn) -> None:
    cluster, wanted = _replacing(stand_in)
    put_schedule(cluster, wanted)
    assert len(stand_in.requests) == len(CALLS)
    assert _verbs(stand_in) == list(STEPS)


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("kind", ["status", "drop", "half", "cut"])
@pytest.mark.parametrize("place", range(len(CALLS)))
def test_one_failure_that_may_pass_changes_nothing(
    stand_in: StandIn, place: int, kind: str, carried_out: bool
) -> None:
    cluster, wanted = _replacing(stand_in)
    stand_in.faults = iter([*[None] * place, Fault(kind, carried_out, 503)])
    put_schedule(cluster, wanted)
    assert _crons(stand_in) == [("0 0 4 * * *", "ENABLED")]
    assert _never_two(stand_in)


@pytest.mark.parametrize("fault", [Fault("status", False, 401), Fault("page")])
@pytest.mark.parametrize("place", range(len(CALLS)))
def test_after_a_failure_that_lasts_the_next_call_finishes(
    stand_in: StandIn, place: int, fault: Fault
) -> None:
    cluster, wanted = _replacing(stand_in)
    (old,) = stand_in.enabled(NAME)
    stand_in.faults = itertools.chain([None] * place, itertools.repeat(fault))
    with pytest.raises(ClusterError):
        put_schedule(cluster, wanted)
    if place <= CALLS.index("disable"):
        assert stand_in.enabled(NAME) == [old]
    stand_in.faults = iter(())
    put_schedule(cluster, wanted)
    assert _crons(stand_in) == [("0 0 4 * * *", "ENABLED")]
    assert _never_two(stand_in)


@pytest.mark.parametrize(
    ("step", "status", "cron"),
    [
        ("create", 400, "0 0 3 * * *"),
        ("create", 500, "0 0 3 * * *"),  # as the backend refuses a spec
        ("disable", 400, "0 0 3 * * *"),
        ("enable", 400, "0 0 3 * * *"),
        ("enable", 500, "0 0 3 * * *"),
        ("delete", 400, "0 0 4 * * *"),
        ("delete", 404, "0 0 4 * * *"),  # another process deleted it
    ],
)
def test_a_refused_step_leaves_one_schedule_in_force(
    stand_in: StandIn, step: str, status: int, cron: str
) -> None:
    cluster, wanted = _replacing(stand_in)
    stand_in.faults = iter([*[None] * CALLS.index(step), Fault("status", status == 404, status)])
    with contextlib.nullcontext() if status == 404 else pytest.raises(ClusterError):
        put_schedule(cluster, wanted)
    assert [each for each, state in _crons(stand_in) if state == "ENABLED"] == [cron]
    assert _never_two(stand_in)


def test_a_late_answer_to_enable_finds_nothing_to_enable(stand_in: StandIn) -> None:
    cluster, wanted = _replacing(stand_in, replace(QUICK, answer=0.2, attempts=1))
    (old,) = stand_in.enabled(NAME)
    stand_in.hang_seconds = 2
    stand_in.faults = iter([*[None] * CALLS.index("enable"), Fault("hang", None)])
    with pytest.raises(ClusterError):
        put_schedule(cluster, wanted)
    assert stand_in.late.wait(60)
    assert stand_in.enabled(NAME) == [old]
    assert _never_two(stand_in)


# Any failures, in any order.

_FAULTS = st.one_of(
    st.none(),
    st.builds(
        Fault,
        st.sampled_from(["status", "drop", "half", "cut", "page"]),
        st.booleans(),
        st.sampled_from([400, 401, 429, 500]),
    ),
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.lists(_FAULTS, max_size=30), min_size=1, max_size=3), st.booleans())
def test_never_two_and_in_the_end_exactly_the_wanted_one(
    calls: list[list[Fault | None]], replaces: bool
) -> None:
    with serving() as stand_in:
        cluster = _connect(stand_in)
        wanted = _wanted(cluster, "0 0 4 * * *")
        if replaces:
            put_schedule(cluster, _wanted(cluster))
        for faults in calls:
            stand_in.faults = iter(faults)
            _put_and_hold_to_what_is_said(stand_in, cluster, wanted)
        stand_in.faults = iter(())
        put_schedule(cluster, wanted)
        assert _crons(stand_in) == [("0 0 4 * * *", "ENABLED")]
        assert _never_two(stand_in)


def _put_and_hold_to_what_is_said(stand_in: StandIn, cluster: Cluster, wanted: Wanted) -> None:
    try:
        put_schedule(cluster, wanted)
        message = "the new schedule nightly is in force"
    except ClusterError as failure:
        message = str(failure)
    in_force = [cron for cron, status in _crons(stand_in) if status == "ENABLED"]
    if "the new schedule nightly is in force" in message:
        assert in_force == ["0 0 4 * * *"]
    elif "the old schedule is in force" in message:
        assert in_force == ["0 0 3 * * *"]
    elif "no schedule is in force" in message:
        assert in_force == []


# The process is interrupted or killed.


@pytest.mark.parametrize(
    ("after", "cron"),
    [
        ("create", "0 0 3 * * *"),
        ("disable", "0 0 3 * * *"),
        ("delete", "0 0 4 * * *"),
    ],
)
def test_an_interrupt_leaves_one_in_force(
    stand_in: StandIn, interrupt_main: Callable[[], None], after: str, cron: str
) -> None:
    cluster, wanted = _replacing(stand_in)

    def interrupt(request: Request) -> None:
        if _verbs(stand_in)[-1] == after:
            stand_in.changed = lambda request: None
            interrupt_main()

    stand_in.changed = interrupt
    with pytest.raises(ClusterError):
        put_schedule(cluster, wanted)
    assert [each for each, state in _crons(stand_in) if state == "ENABLED"] == [cron]
    assert _never_two(stand_in)


_SCRIPT = (
    "import typer; from pipeline.cli.errors import Group; "
    "from pipeline.cli.kubeflow import add_commands; "
    "app = typer.Typer(cls=Group); add_commands(app); app()"
)


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", STEPS)
def test_a_killed_process_is_finished_by_the_next_call(
    stand_in: StandIn, tmp_path: Path, killed_after: str
) -> None:
    _replacing(stand_in)
    (old,) = stand_in.enabled(NAME)
    path = tmp_path / "pipeline.yaml"
    path.write_text(RUNNABLE_SPEC)
    command = [sys.executable, "-c", _SCRIPT, "schedule", str(path), "--cron", "0 4 * * *"]
    command += ["--name", NAME, "--host", stand_in.url, "--pipeline-root", "minio://mlpipeline/x"]
    command += ["--param", "data=gs://bucket/data"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    root = Path(__file__).parents[5]
    with subprocess.Popen(command, cwd=root, env=environment) as process:
        stand_in.changed = lambda request: (
            os.kill(process.pid, signal.SIGKILL)
            if _verbs(stand_in)[-1:] == [killed_after]
            else None
        )
        assert process.wait(60) == -signal.SIGKILL
    stand_in.changed = lambda request: None
    left = stand_in.enabled(NAME)
    assert (left == [old]) == (killed_after == "create")
    assert (left == []) == (killed_after == "disable")
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("Schedule nightly (0 4 * * *) is in force")
    assert done.stderr == ""
    assert _crons(stand_in) == [("0 0 4 * * *", "ENABLED")]
    assert _never_two(stand_in)
