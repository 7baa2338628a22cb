"""Runs on a cluster: submitted, waited for, looked at."""

import datetime
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.kubeflow.client.cluster import Cluster, ClusterError, equals

SUCCEEDED = "SUCCEEDED"
# kfp's own `wait_for_run_completion` waits for ever for a run that was canceled.
ENDED = (SUCCEEDED, "SKIPPED", "FAILED", "CANCELED")
_TOLERATED_FAILURES = 20  # in a row, while waiting for a run: ten minutes and more


@dataclass(frozen=True)
class Task:
    """A node of a run.

    Attributes:
      state: such as RUNNING or FAILED.
      seconds: its duration; None until it ends.
      error: the cluster's message, one line; empty if there is none.
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


def tasks_of(run: Any) -> list[Task]:
    """The tasks of a run, by start time.

    The backend lists all nodes of its Argo workflow: for each task its driver, a group and a pod.
    Listed here are nodes with the name of a task of the spec, and drivers that failed, because
    their tasks have no other node.
    """
    details = (run.run_details.task_details if run.run_details else None) or []
    names = _task_names(run.pipeline_spec or {})
    shown = [each for each in details if not names or _is_task(each, names)]
    shown.sort(key=lambda each: (each.start_time is None, each.start_time, each.display_name))
    return [
        Task(
            name=each.display_name or each.task_id or "?",
            state=each.state or "PENDING",
            seconds=_seconds(each),
            error=_error(each),
        )
        for each in shown
    ]


def _task_names(body: dict[str, Any]) -> set[str]:
    spec = body.get("pipeline_spec", body)
    components = [spec.get("root", {}), *spec.get("components", {}).values()]
    return {name for each in components for name in each.get("dag", {}).get("tasks", {})}


def _is_task(detail: Any, names: set[str]) -> bool:
    name = detail.display_name or ""
    task = name.removesuffix("-driver")
    return name in names or (detail.state == "FAILED" and name != task and task in {*names, "root"})


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
