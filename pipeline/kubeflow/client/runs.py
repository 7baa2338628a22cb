"""Runs on a cluster: submitted, waited for, looked at."""

import dataclasses
import datetime
import secrets
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import quote

import tenacity

from pipeline.kubeflow.client.cluster import Cluster, Patience, equals
from pipeline.kubeflow.client.errors import ClusterError
from pipeline.kubeflow.compiler.spec_file import PipelineFile

SUCCEEDED = "SUCCEEDED"
# kfp's own Client.wait_for_run_completion knows no CANCELED, and waits for ever for such a run.
ENDED = (SUCCEEDED, "SKIPPED", "FAILED", "CANCELED")


@dataclasses.dataclass(frozen=True)
class Task:
    """A node of a run.

    Attributes:
      state: such as RUNNING or FAILED.
      seconds: it took; None while it is not over.
      error: what the cluster says went wrong, one line; empty where it says nothing.
    """

    name: str
    state: str
    seconds: float | None
    error: str


def submit_run(
    cluster: Cluster,
    pipeline: PipelineFile,
    parameters: dict[str, Any],
    pipeline_root: str | None,
    experiment: str,
) -> Any:
    """Starts a run.

    It is asked for once only: when the answer is lost, the run is looked for by its name, which is
    unique, and not asked for again.

    Returns:
      The `kfp_server_api.V2beta1Run`.

    Raises:
      ClusterError: it was not started, or the cluster does not say so.
    """
    import kfp_server_api as api

    started = datetime.datetime.now().strftime("%Y-%m-%d %H-%M-%S")
    name = f"{pipeline.name} {started} {secrets.token_hex(3)}"
    body = api.V2beta1Run(
        display_name=name,
        experiment_id=cluster.experiment_id(experiment),
        pipeline_spec=pipeline.body,
        runtime_config=api.V2beta1RuntimeConfig(parameters=parameters, pipeline_root=pipeline_root),
    )
    try:
        run = cluster.call("POST", "runs", "V2beta1Run", body=body)
    except ClusterError as error:
        run = _find(cluster, name) if error.passing else None
        if run is None:
            raise
    if not run.run_id:
        raise ClusterError(f"{cluster.host} has taken run {name!r}, but gives it no id")
    return run


def _find(cluster: Cluster, name: str) -> Any:
    try:
        found = _list(cluster, filter=equals("display_name", name))
        return next((run for run in found if run.display_name == name), None)
    except ClusterError as error:
        raise ClusterError(
            f"{error}. So it is unknown whether run {name!r} has started: look with `status`"
        ) from None


def _list(cluster: Cluster, **query: Any) -> Iterator[Any]:
    return cluster.pages("runs", "V2beta1ListRunsResponse", "runs", **query)


def last_runs(cluster: Cluster, count: int) -> list[Any]:
    """The newest `count` runs, as `kfp_server_api.V2beta1Run`s, newest first.

    Raises:
      ClusterError: the cluster does not say.
    """
    return list(islice(_list(cluster, sort_by="created_at desc"), count))


def get_run(cluster: Cluster, run_id: str, patience: Patience | None = None) -> Any:
    """A run, as `kfp_server_api.V2beta1Run`.

    Raises:
      ClusterError: there is none of that id, or the cluster does not say.
    """
    run = cluster.read(f"runs/{quote(run_id, safe='')}", "V2beta1Run", patience=patience)
    if run.run_id != run_id or (run.error is not None and run.state is None):
        said = f": {run.error.message}" if run.error is not None else ""
        raise ClusterError(f"{cluster.host} cannot show run {run_id}{said}")
    return run


def wait_for_run(
    cluster: Cluster,
    run_id: str,
    on_state: Callable[[str], None],
    first_pause: float = 2.0,
    longest_pause: float = 30.0,
) -> Any:
    """Asks for the state of a run, ever less often, until it has ended.

    Args:
      cluster: that has it.
      run_id: of the run.
      on_state: called with each new state.
      first_pause: seconds between the first two requests.
      longest_pause: seconds between the last ones.

    Raises:
      ClusterError: the cluster has not said it for some minutes, or refuses to.
    """
    patience = dataclasses.replace(cluster.patience, attempts=20, longest_pause=longest_pause)
    shown = ""

    def look() -> Any:
        nonlocal shown
        run = get_run(cluster, run_id, patience)
        if (run.state or "PENDING") != shown:
            shown = run.state or "PENDING"
            on_state(shown)
        return run

    return tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda run: run.state not in ENDED),
        wait=tenacity.wait_exponential(first_pause, longest_pause, exp_base=1.3),
    )(look)


def tasks_of(run: Any) -> list[Task]:
    """The tasks of a run, by start time.

    The backend lists every node of its Argo workflow: of each task its driver, a group and the pod
    in it, all under names of its own. What is named like a task of the spec is taken, and drivers
    that failed, since nothing else of their task is there then.
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
    failed_driver = detail.state == "FAILED" and name.removesuffix("-driver") in {*names, "root"}
    return name in names or (failed_driver and name.endswith("-driver"))


def _seconds(detail: Any) -> float | None:
    begin, end = detail.start_time, detail.end_time
    if begin is None or end is None or end < begin:  # not over: the epoch
        return None
    return (end - begin).total_seconds()


def _error(detail: Any) -> str:
    history = detail.state_history or []
    errors = [detail.error, *(each.error for each in reversed(history))]
    said = next((each.message for each in errors if each is not None and each.message), "")
    return " ".join(said.split())
