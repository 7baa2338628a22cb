"""Runs on a cluster: submitted, waited for, looked at."""

import datetime
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.kubeflow.client.cluster import Cluster, ClusterError, equals, one_line
from pipeline.kubeflow.client.failures import last_error, read_log, task_paths

SUCCEEDED = "SUCCEEDED"
# kfp's own `wait_for_run_completion` waits for ever for a run that was canceled.
ENDED = (SUCCEEDED, "SKIPPED", "FAILED", "CANCELED")
# Of Argo's nodes: the pod of a task, and the end of the name of a task's driver.
_POD, _DRIVER = "executor", "-driver"
# What a task logs, and the exit status for a run that succeeded with it; the first that fits.
_OUTCOMES = (
    ("GeneratorEvaluator", r"\bnot blessed: .+", 3),
    ("Pusher", r"\bPushed version \d+ to \S+|\bNot pushed: .* is this model already", 0),
    ("Pusher", r"\bNot pushed: .+", 3),
)
_TOLERATED_FAILURES = 20  # in a row, while waiting for a run: ten minutes and more


@dataclass(frozen=True)
class Task:
    """A node of a run.

    Attributes:
      state: such as `running`, `failed` or `not started`.
      seconds: its duration; None until it ends.
      error: why it failed, one line; empty for all others.
    """

    name: str
    state: str
    seconds: float | None
    error: str


def submit_run(
    cluster: Cluster,
    file: Path,
    name: str,
    *,
    parameters: dict[str, Any],
    pipeline_root: str | None,
    experiment: str,
) -> Any:
    """Starts a run of a compiled pipeline, and prints its address.

    The request is made once. If its answer is lost, the run is looked up by its unique name.

    Returns:
      The `kfp_server_api.V2beta1Run`.

    Raises:
      ClusterError: the run was not started, or it is unknown whether it was.
    """
    started = datetime.datetime.now().strftime("%Y-%m-%d %H-%M-%S")
    unique = f"{name} {started} {secrets.token_hex(3)}"
    experiment_id = cluster.experiment_id(experiment)
    try:
        return cluster.client.run_pipeline(
            experiment_id,
            unique,
            pipeline_package_path=str(file),
            params=parameters,
            pipeline_root=pipeline_root,
        )
    except ClusterError as error:
        run = _find(cluster, unique) if error.may_pass else None
        if run is None:
            raise
        return run


def _find(cluster: Cluster, name: str) -> Any:
    try:
        list_runs = cluster.client.list_runs
        found = cluster.pages(list_runs, "runs", filter=equals("display_name", name))
        return next((run for run in found if run.display_name == name), None)
    except ClusterError as error:
        raise ClusterError(
            f"it is unknown whether run {name!r} has started: {error.what}",
            where=error.where,
            fix="look with `status`",
        ) from None


def last_runs(cluster: Cluster, count: int) -> list[Any]:
    """The newest `count` runs, as `kfp_server_api.V2beta1Run`s, newest first."""
    runs = cluster.pages(cluster.client.list_runs, "runs", sort_by="created_at desc")
    return list(islice(runs, count))


def wait_for_run(
    cluster: Cluster, run_id: str, on_state: Callable[[str], None], pause_seconds: float = 15.0
) -> Any:
    """Waits until a run has ended.

    Args:
      cluster: that the run is on.
      run_id: of the run.
      on_state: called with each new state.
      pause_seconds: between two requests.

    Returns:
      The `kfp_server_api.V2beta1Run`.

    Raises:
      ClusterError: the cluster refuses, or has been out of reach for minutes.
    """
    shown, failures = "", 0
    while True:
        try:
            run = cluster.client.get_run(run_id)
        except ClusterError as error:
            failures += 1
            if not error.may_pass or failures > _TOLERATED_FAILURES:
                raise
        else:
            failures = 0
            if (run.state or "PENDING") != shown:
                shown = run.state or "PENDING"
                on_state(shown)
            if run.state in ENDED:
                return run
        time.sleep(pause_seconds)


def state_of(run: Any) -> str:
    """The state of a run in lower case; `terminated` where the API says that it failed."""
    history = [each.state for each in run.state_history or ()]
    if run.state == "FAILED" and "CANCELING" in history:
        return "terminated"
    return (run.state or "PENDING").lower()


def tasks_of(cluster: Cluster, run: Any) -> list[Task]:
    """The tasks of a run, by start time, those that have not started last.

    The backend lists all nodes of its Argo workflow: for each task its driver, a group and a pod.
    Listed here are nodes with the name of a task of the spec, and drivers that failed, because
    their tasks have no other node.
    """
    details = (run.run_details.task_details if run.run_details else None) or []
    paths = task_paths(run)
    started = [each for each in details if each.state and (not paths or _is_shown(each, paths))]
    started.sort(key=lambda each: (each.start_time is None, each.start_time, each.display_name))
    tasks = [
        Task(
            name=each.display_name or each.task_id or "?",
            state=each.state.lower(),
            seconds=_seconds(each),
            error=_error(each) or (_logged(cluster, run, each) if each.state == "FAILED" else ""),
        )
        for each in started
    ]
    seen = {each.name for each in tasks}
    return tasks + [Task(name, "not started", None, "") for name in paths if name not in seen]


def waiting_pods(run: Any) -> int:
    """How many pods of tasks have been made and have not started."""
    details = (run.run_details.task_details if run.run_details else None) or []
    names = [each.display_name or "" for each in details if each.state == "PENDING"]
    return sum(re.fullmatch(r"executor(\(\d+\))?", name) is not None for name in names)


def outcome_of(cluster: Cluster, run: Any) -> tuple[str, int]:
    """The outcome of a run that succeeded, and the exit status for it.

    It is what `GeneratorEvaluator` and `Pusher` logged; a run without these, or whose logs are
    gone, has succeeded and no more.
    """
    paths = task_paths(run)
    for task, pattern, status in _OUTCOMES:
        log = read_log(cluster, run, (*paths[task], _POD)) if task in paths else ""
        if found := re.findall(pattern, log):
            return one_line(found[-1]), status
    return "succeeded", 0


def _is_shown(detail: Any, paths: Mapping[str, Sequence[str]]) -> bool:
    name = detail.display_name or ""
    task = name.removesuffix(_DRIVER)
    dags = {each for path in paths.values() for each in path}
    return name in paths or (detail.state == "FAILED" and name != task and task in dags)


def _logged(cluster: Cluster, run: Any, detail: Any) -> str:
    paths, name = task_paths(run), detail.display_name or ""
    task = name.removesuffix(_DRIVER)
    path = next((path[: path.index(task) + 1] for path in paths.values() if task in path), ())
    pod = (*path[:-1], name) if task != name else (*path, _POD)
    return last_error(cluster, run, pod) or "no log: its pod never started, or was removed"


def _seconds(detail: Any) -> float | None:
    begin, end = detail.start_time, detail.end_time
    if begin is None or end is None or end < begin:  # the epoch, until the task ends
        return None
    return (end - begin).total_seconds()


def _error(detail: Any) -> str:
    history = detail.state_history or []
    errors = [detail.error, *(each.error for each in reversed(history))]
    message = next((each.message for each in errors if each is not None and each.message), "")
    return " ".join(message.split())
