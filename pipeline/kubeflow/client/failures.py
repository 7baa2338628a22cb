"""What the pods of a run logged, such as why a task failed.

The API has no error of a task, and does not say which pod is whose. But a pod's id is the name of
Argo's workflow and a hash of the pod's place in it (`NodeID` in workflow/util of Argo Workflows).
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.kubeflow.client.cluster import Cluster, ClusterError, one_line

# A line of the backend's launcher or driver: severity, date, time, thread, file and line.
_BACKEND = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \S+\.go:\d+\] ?")


def task_paths(run: Any) -> Mapping[str, tuple[str, ...]]:
    """The names from the root to each task of a `V2beta1Run` that is no DAG itself."""
    body = run.pipeline_spec or {}
    spec = body.get("pipeline_spec", body)

    def below(component: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for name, task in component["dag"].get("tasks", {}).items():
            label = task.get("componentRef", {}).get("name")
            inner = spec.get("components", {}).get(label, {})
            if "strategy" in task.get("triggerPolicy", {}):  # an exit task is a hook of another
                yield (*path, f"{task['dependentTasks'][0]}.onExit", name)
            elif "dag" in inner:
                yield from below(inner, (*path, name))
            else:
                yield (*path, name)

    if "dag" not in spec.get("root", {}):
        return {}
    return {path[-1]: path for path in below(spec["root"], ("root",))}


def last_error(cluster: Cluster, run: Any, names: Sequence[str]) -> str:
    """The last line of a failed task's own output, or else the backend's last error; "" for none.

    Args:
      cluster: that the run is on.
      run: the `V2beta1Run`.
      names: from the root to the pod, as in `read_log`.
    """
    lines = [line for line in read_log(cluster, run, names).splitlines() if line.strip()]
    found = [(_BACKEND.match(line), line) for line in lines]
    own = [line for backend, line in found if not backend]
    errors = [line[at.end() :] for at, line in found if at and at[1] in "EF"]
    return one_line([*errors, *own][-1]) if errors or own else ""


def read_log(cluster: Cluster, run: Any, names: Sequence[str]) -> str:
    """The log of a pod; "" if it cannot be had: the pod never started, or its log is gone.

    Args:
      cluster: that the run is on.
      run: the `V2beta1Run`.
      names: from the root to the pod: a path of `task_paths` and `executor`, or the path of a DAG
        and the name of a driver, such as `Trainer-driver`.
    """
    pod = _pod(run, names)
    if not pod:
        return ""
    try:
        # Of API version 1, which has no successor.
        answer = cluster.get(f"/apis/v1alpha1/runs/{run.run_id}/nodes/{pod}/log")
    except ClusterError:
        return ""
    return answer if isinstance(answer, str) else ""  # an error is JSON, with status 200


def _pod(run: Any, names: Iterable[str]) -> str:
    """The id of the last pod at a place; "" if there is none."""
    details = (run.run_details.task_details if run.run_details else None) or []
    ids = {child.pod_name for each in details for child in each.child_tasks or ()} - {None}
    workflow = min(ids, default="").rpartition("-")[0]
    place = workflow
    for name in ("", *names):
        place += name and f".{name}"
        # A template that is retried has an attempt as part of the place, the others have none.
        attempts = (f"{place}({number})" for number in itertools.count())
        found = itertools.takewhile(lambda each: node_id(workflow, each) in ids, attempts)
        place = [place, *found][-1]
    return pod if (pod := node_id(workflow, place)) in ids else ""


def node_id(workflow: str, place: str) -> str:
    """Argo's id of the node at a place, such as `digits-x7k2p(0).root(0).Trainer(0)`."""
    digest = 2_166_136_261  # FNV-1a of 32 bits
    for byte in place.encode():
        digest = ((digest ^ byte) * 16_777_619) % 2**32
    return f"{workflow}-{digest}"
