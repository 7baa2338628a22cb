"""Schedules against a stand-in of the API: what is asked for, and what is left after failures."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kfp_server_api import V2beta1Run
from kfp_stand_in import Fault, Request, StandIn, serving

from pipeline.kubeflow.client.cluster import Cluster, Patience
from pipeline.kubeflow.client.errors import ClusterError
from pipeline.kubeflow.client.schedule import (
    Schedule,
    Step,
    Wanted,
    find_schedules,
    next_step,
    put_schedule,
    remove_schedule,
)

NAME = "nightly"
QUICK = Patience(connect=5, answer=5, attempts=3, first_pause=0.001, longest_pause=0.002)
SPEC = {"pipelineInfo": {"name": "digits"}, "root": {"dag": {"tasks": {}}}}
STEPS = ("create", "disable", "enable", "delete")


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with serving() as server:
        yield server


def _connect(stand_in: StandIn, patience: Patience = QUICK) -> Cluster:
    return Cluster(stand_in.url, patience=patience)


def _wanted(cluster: Cluster, cron: str = "0 0 3 * * *", **changes: object) -> Wanted:
    wanted = Wanted(
        name=NAME,
        pipeline="digits",
        experiment_id=cluster.experiment_id("digits"),
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
    assert [step.action for step in change.steps] == _verbs(stand_in) == ["create", "enable"]
    (made,) = [
        each for each in stand_in.requests if each.path.endswith("/recurringruns") and each.body
    ]
    assert made.body == {
        "display_name": "nightly",
        "description": f"kubeflow_runner.py schedule, pipeline digits, settings {wanted.settings}",
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
    assert put_schedule(cluster, _wanted(cluster)).steps == []
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


def test_a_paused_schedule_is_enabled_again(stand_in: StandIn) -> None:
    cluster = _connect(stand_in)
    put_schedule(cluster, _wanted(cluster))
    (only,) = stand_in.named(NAME)
    only.status = "DISABLED"
    assert put_schedule(cluster, _wanted(cluster)).steps == [Step("enable", only.recurring_run_id)]


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


def test_a_cluster_that_does_not_list_what_it_made_is_not_asked_again(stand_in: StandIn) -> None:
    cluster = _connect(stand_in)
    wanted = _wanted(cluster)
    answer = stand_in.answer

    def forgetful(request: Request) -> object:
        result = answer(request)
        stand_in.recurring_runs.clear()
        return result

    stand_in.answer = forgetful  # type: ignore[method-assign]
    with pytest.raises(
        ClusterError, match="says that it did create schedule nightly, but does not"
    ):
        put_schedule(cluster, wanted)
    assert _verbs(stand_in) == ["create"]


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
    assert len(find_schedules(cluster, NAME)) == 5
    put_schedule(cluster, first)
    assert len(stand_in.named(NAME)) == len(stand_in.enabled(NAME)) == 1


def test_a_schedule_of_another_maker_is_left_alone(stand_in: StandIn) -> None:
    cluster = _connect(stand_in)
    put_schedule(cluster, _wanted(cluster, pipeline="letters"))
    with pytest.raises(ClusterError, match="made for pipeline letters: it is left alone"):
        put_schedule(cluster, _wanted(cluster))
    stand_in.named(NAME)[0].description = "by hand"
    with pytest.raises(ClusterError, match="made by something else: it is left alone"):
        put_schedule(cluster, _wanted(cluster))
    with pytest.raises(ClusterError, match="was not made by"):
        remove_schedule(cluster, NAME)
    assert len(stand_in.enabled(NAME)) == 1


def test_one_that_hides_its_state_is_not_guessed_at(stand_in: StandIn) -> None:
    cluster = _connect(stand_in)
    put_schedule(cluster, _wanted(cluster))
    stand_in.named(NAME)[0].status = None
    with pytest.raises(ClusterError, match=r"does not say whether schedule \S+ is enabled"):
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
    assert put_schedule(cluster, new).steps == [Step("delete", old)]
    assert _crons(stand_in) == [("0 0 4 * * *", "ENABLED")]


def test_unschedule_disables_first_and_deletes_when_no_run_is_under_way(stand_in: StandIn) -> None:
    cluster = _connect(stand_in)
    put_schedule(cluster, _wanted(cluster))
    (only,) = stand_in.enabled(NAME)
    run = _start_run(stand_in, only, "RUNNING")
    assert remove_schedule(cluster, NAME).kept == ["nightly-1"]
    assert _crons(stand_in) == [("0 0 3 * * *", "DISABLED")]
    run.state = "CANCELED"
    assert remove_schedule(cluster, NAME).steps == [Step("delete", only)]
    assert stand_in.named(NAME) == []
    with pytest.raises(ClusterError, match=f"there is no schedule 'nightly' on {stand_in.url}"):
        remove_schedule(cluster, NAME)


# One failure, at each request of a replacement.


def _replacing(stand_in: StandIn, patience: Patience = QUICK) -> tuple[Cluster, Wanted]:
    """A cluster with a schedule, and the settings of the one to replace it."""
    put_schedule(_connect(stand_in), _wanted(_connect(stand_in)))
    cluster = _connect(stand_in, patience)
    wanted = _wanted(cluster, "0 0 4 * * *")
    stand_in.requests.clear()
    stand_in.history.clear()
    return cluster, wanted


def _requests_of_a_replacement() -> int:
    with serving() as stand_in:
        cluster, wanted = _replacing(stand_in)
        put_schedule(cluster, wanted)
        return len(stand_in.requests)


def test_a_replacement_asks_so_often(stand_in: StandIn) -> None:
    # A list before each of the four steps and one at the end, the runs of the old one, the steps.
    assert _requests_of_a_replacement() == 1 + 5 + 1 + 4


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("kind", ["status", "drop", "half", "cut"])
@pytest.mark.parametrize("place", range(11))
def test_one_passing_failure_is_got_over(
    stand_in: StandIn, place: int, kind: str, carried_out: bool
) -> None:
    cluster, wanted = _replacing(stand_in)
    stand_in.faults = iter([*[None] * place, Fault(kind, carried_out, 503)])
    put_schedule(cluster, wanted)
    assert _crons(stand_in) == [("0 0 4 * * *", "ENABLED")]
    assert _never_two(stand_in)


@pytest.mark.parametrize("carried_out", [False, True, None])
@pytest.mark.parametrize("place", [2, 4, 6, 9])  # the four steps
def test_one_answer_that_comes_too_late_is_got_over(
    stand_in: StandIn, place: int, carried_out: bool | None
) -> None:
    cluster, wanted = _replacing(stand_in, replace(QUICK, answer=0.2))
    stand_in.faults = iter([*[None] * place, Fault("hang", carried_out)])
    put_schedule(cluster, wanted)
    assert len(stand_in.enabled(NAME)) == 1
    assert _never_two(stand_in)


@pytest.mark.parametrize("fault", [Fault("status", False, 401), Fault("page")])
@pytest.mark.parametrize("place", range(11))
def test_a_lasting_failure_leaves_what_the_message_says(
    stand_in: StandIn, place: int, fault: Fault
) -> None:
    cluster, wanted = _replacing(stand_in)
    (old,) = stand_in.enabled(NAME)
    stand_in.faults = itertools.chain([None] * place, itertools.repeat(fault))
    with pytest.raises(ClusterError) as failure:
        put_schedule(cluster, wanted)
    if place > 0:
        assert "does not say whether a schedule nightly is in force" in str(failure.value)
    if place <= 4:
        assert stand_in.enabled(NAME) == [old]
    stand_in.faults = iter(())
    put_schedule(cluster, wanted)
    assert _crons(stand_in) == [("0 0 4 * * *", "ENABLED")]
    assert _never_two(stand_in)


def test_one_that_somebody_else_deletes_at_that_moment_is_gone(stand_in: StandIn) -> None:
    cluster, wanted = _replacing(stand_in)
    stand_in.faults = iter([*[None] * 9, Fault("status", True, 404)])
    put_schedule(cluster, wanted)
    assert _crons(stand_in) == [("0 0 4 * * *", "ENABLED")]


class _Refusing(Iterator[Fault | None]):
    """Faults for all requests of one verb, in the order of arrival at the stand-in."""

    def __init__(self, stand_in: StandIn, verb: str, fault: Fault) -> None:
        self.stand_in, self.verb, self.fault = stand_in, verb, fault

    def __next__(self) -> Fault | None:
        last = self.stand_in.requests[-1]
        return (
            self.fault if last.method != "GET" and _verbs(self.stand_in)[-1] == self.verb else None
        )


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("create", "The old schedule nightly is in force, as before"),
        ("disable", "The old schedule nightly is in force, as before"),
        ("delete", "The new schedule nightly is in force; what remains is to tidy up"),
    ],
)
@pytest.mark.parametrize("status", [400, 403, 500])
def test_a_step_that_is_always_refused(
    stand_in: StandIn, verb: str, said: str, status: int
) -> None:
    cluster, wanted = _replacing(stand_in)
    stand_in.faults = _Refusing(stand_in, verb, Fault("status", False, status))
    with pytest.raises(ClusterError, match=said):
        put_schedule(cluster, wanted)
    assert len(stand_in.enabled(NAME)) == 1
    assert _never_two(stand_in)


def test_when_the_new_one_cannot_be_enabled_the_old_one_is_again(stand_in: StandIn) -> None:
    cluster, wanted = _replacing(stand_in)
    (old,) = stand_in.enabled(NAME)
    refused = itertools.chain([None] * 6, [Fault("status", False, 400)])
    stand_in.faults = refused
    with pytest.raises(ClusterError, match=r"injected\. The old schedule nightly is in force"):
        put_schedule(cluster, wanted)
    assert _verbs(stand_in) == ["create", "disable", "enable", "delete", "enable"]
    assert [each.recurring_run_id for each in stand_in.named(NAME)] == [old]
    assert stand_in.enabled(NAME) == [old]


def test_an_enabling_that_is_carried_out_after_all_finds_nothing_to_enable(
    stand_in: StandIn,
) -> None:
    cluster, wanted = _replacing(stand_in, replace(QUICK, answer=0.2))
    (old,) = stand_in.enabled(NAME)
    stand_in.hang_seconds = 2
    stand_in.faults = iter([*[None] * 6, Fault("hang", None), None, Fault("status", False, 400)])
    with pytest.raises(ClusterError, match="The old schedule nightly is in force"):
        put_schedule(cluster, wanted)
    assert stand_in.late.wait(60)
    assert stand_in.enabled(NAME) == [old]
    assert _never_two(stand_in)


def test_when_nothing_can_be_enabled_the_next_call_ends_it(stand_in: StandIn) -> None:
    cluster, wanted = _replacing(stand_in)
    stand_in.faults = _Refusing(stand_in, "enable", Fault("status", False, 500))
    with pytest.raises(ClusterError, match="does not say whether"):
        put_schedule(cluster, wanted)
    assert stand_in.enabled(NAME) == []
    stand_in.faults = iter(())
    put_schedule(cluster, wanted)
    assert _crons(stand_in) == [("0 0 4 * * *", "ENABLED")]


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
@example([[None] * 6 + [Fault("drop", True)] * 12], True)
@example([[None] * 3 + [Fault("status", False, 401)], [None] * 5 + [Fault("status")] * 9], True)
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
        said = "The new schedule nightly is in force"
    except ClusterError as failure:
        said = str(failure)
    in_force = [cron for cron, status in _crons(stand_in) if status == "ENABLED"]
    if "The new schedule nightly is in force" in said:
        assert in_force == ["0 0 4 * * *"]
    elif "The old schedule nightly is in force" in said:
        assert in_force == ["0 0 3 * * *"]
    elif "No schedule nightly is in force" in said:
        assert in_force == []


# Every state that a cluster can be in.

_STATES = st.lists(
    st.builds(
        Schedule,
        id=st.sampled_from("abcdef"),
        name=st.just(NAME),
        enabled=st.booleans(),
        pipeline=st.just("digits"),
        settings=st.sampled_from(["old", "older", "new"]),
    ),
    max_size=5,
    unique_by=lambda each: each.id,
)


def _after(found: Sequence[Schedule], step: Step) -> list[Schedule]:
    match step.action:
        case "create":
            return [*found, Schedule("z", NAME, False, "digits", "new")]
        case "delete":
            return [each for each in found if each.id != step.id]
    enabled = step.action == "enable"
    return [replace(each, enabled=enabled) if each.id == step.id else each for each in found]


@given(_STATES, st.sets(st.sampled_from("abcdef")))
def test_from_any_state_the_steps_lead_to_one(found: list[Schedule], kept: set[str]) -> None:
    known = {each.id for each in found}
    in_force_before = [each.id for each in found if each.enabled]
    gaps = 0
    for _ in range(20):
        step = next_step(found, "new", known, kept)
        if step is None:
            break
        before, found = found, _after(found, step)
        enabled = [each for each in found if each.enabled]
        assert len(enabled) <= max(1, sum(each.enabled for each in before))
        if step.action == "delete":
            assert step.id not in kept
            assert not any(each.enabled for each in before if each.id == step.id)
        if step.action == "enable" and in_force_before:
            assert step.id not in known  # it would run again what the old one has run
        gaps += bool(in_force_before) and not enabled
    assert [
        (each.settings, each.enabled) for each in found if each.id not in kept or each.enabled
    ] == [("new", True)]
    assert gaps <= 1


# The process is interrupted or killed.


@pytest.mark.parametrize(
    ("after", "said", "cron"),
    [
        ("create", "old schedule nightly is in force", "0 0 3 * * *"),
        ("disable", "old schedule nightly is in force", "0 0 3 * * *"),
        ("enable", "new schedule nightly is in force", "0 0 4 * * *"),
        ("delete", "new schedule nightly is in force", "0 0 4 * * *"),
    ],
)
def test_an_interrupt_leaves_one_in_force(
    stand_in: StandIn, interrupt_main: Callable[[], None], after: str, said: str, cron: str
) -> None:
    cluster, wanted = _replacing(stand_in)

    def interrupt(request: Request) -> None:
        if _verbs(stand_in)[-1] == after:
            stand_in.changed = lambda request: None
            interrupt_main()

    stand_in.changed = interrupt
    with pytest.raises(ClusterError, match=f"interrupted. The {said}"):
        put_schedule(cluster, wanted)
    assert (cron, "ENABLED") in _crons(stand_in)
    assert _never_two(stand_in)


_SCRIPT = (
    "import typer; from pipeline.cli.kubeflow import add_commands; "
    "app = typer.Typer(); add_commands(app); app()"
)


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", STEPS)
def test_a_killed_process_is_finished_by_the_next_call(
    stand_in: StandIn, tmp_path: Path, killed_after: str
) -> None:
    _replacing(stand_in)
    (old,) = stand_in.enabled(NAME)
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump({**SPEC, "schemaVersion": "2.1.0"}))
    command = [sys.executable, "-c", _SCRIPT, "schedule", str(path), "--cron", "0 4 * * *"]
    command += ["--name", NAME, "--host", stand_in.url, "--pipeline-root", "minio://mlpipeline/x"]
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
    assert done.stdout.startswith("Schedule nightly (0 0 4 * * *) is in force")
    assert done.stderr == ""
    assert _crons(stand_in) == [("0 0 4 * * *", "ENABLED")]
    assert _never_two(stand_in)
