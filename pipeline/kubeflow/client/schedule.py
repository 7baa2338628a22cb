"""Schedules (recurring runs) of a cluster, keyed by name.

The API cannot change a recurring run and does not keep names apart, so a change is a replacement:

1. make the new one, disabled (a bad spec or cron is refused here, while nothing has changed);
2. disable the old one;
3. enable the new one;
4. delete the old one, unless a run of it is under way: deleting would delete that run's pods.

Invariant, for changes that come only from here, one at a time. At no time are two schedules of a
name enabled. Until step 2 has been carried out the old one is in force, from step 3 on the new one;
between the two requests none is, but the backend makes up for it: an enabled schedule runs what it
missed since it was made (the last such run only, with `--no-catchup`). When a step fails for good,
the old one is put back in force; where that fails too, or the process is killed between steps 2 and
3, none is in force until `put_schedule` is called again, which goes on from whatever it finds. It
looks at the cluster before each step, and ends with exactly one schedule enabled, the wanted one.

Read in `kubeflow/pipelines`: apiserver/resource/resource_manager.go (CreateJob makes the Kubernetes
object before the database's row, so a failure may leave an object that no listing shows: made
disabled, it does nothing; DeleteJob leaves owned workflows to Kubernetes' garbage collection) and
crd/controller/scheduledworkflow/util/scheduled_workflow.go (catching up).
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from pipeline.kubeflow.client.cluster import Cluster, equals
from pipeline.kubeflow.client.errors import ClusterError
from pipeline.kubeflow.client.runs import ENDED

_MARK = "kubeflow_runner.py schedule, pipeline {}, settings {}"
_MARKED = re.compile(r"kubeflow_runner\.py schedule, pipeline (.+), settings ([0-9a-f]{64})")


@dataclass(frozen=True)
class Schedule:
    """A recurring run as the API lists it.

    Attributes:
      pipeline: that it was made for, None when it was not made by `put_schedule`.
      settings: SHA-256 of all that was asked for, None likewise.
    """

    id: str
    name: str
    enabled: bool
    pipeline: str | None
    settings: str | None


@dataclass(frozen=True)
class Wanted:
    """What `put_schedule` brings about.

    Attributes:
      name: of the schedule.
      pipeline: name of the pipeline.
      experiment_id: where its runs go.
      spec: `pipeline_spec` as the API takes it.
      parameters: of each run.
      pipeline_root: of each run; None for the cluster's own.
      cron: six fields, or a descriptor.
      max_concurrency: runs of it at a time, 1 to 10.
      no_catchup: of several missed runs, only the last is made up for.
    """

    name: str
    pipeline: str
    experiment_id: str
    spec: dict[str, Any]
    parameters: dict[str, Any]
    pipeline_root: str | None
    cron: str
    max_concurrency: int
    no_catchup: bool

    @property
    def settings(self) -> str:
        """SHA-256 of everything in it, as hexadecimal digits."""
        text = json.dumps(vars(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def body(self) -> Any:
        """The request that makes it, disabled."""
        import kfp_server_api as api

        return api.V2beta1RecurringRun(
            display_name=self.name,
            description=_MARK.format(self.pipeline, self.settings),
            experiment_id=self.experiment_id,
            pipeline_spec=self.spec,
            runtime_config=api.V2beta1RuntimeConfig(
                parameters=self.parameters, pipeline_root=self.pipeline_root
            ),
            trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=self.cron)),
            mode=api.RecurringRunMode.DISABLE,
            max_concurrency=self.max_concurrency,
            no_catchup=self.no_catchup,
        )


class Step(NamedTuple):
    """One request: what to do, and to which recurring run."""

    action: Literal["create", "disable", "enable", "delete"]
    id: str = ""


def next_step(
    found: Sequence[Schedule], settings: str, known: Collection[str], kept: Collection[str]
) -> Step | None:
    """The next request on the way to exactly one enabled schedule with these settings.

    Args:
      found: all the schedules of the name as they are now, newest first.
      settings: the wanted ones.
      known: ids that were there when the call began. A disabled one of those is not taken while an
        old one is in force: once enabled, it would run again what the old one has run.
      kept: ids that must not be deleted now.

    Returns:
      The step, None when all is as wanted.
    """
    enabled = [each for each in found if each.enabled]
    wanted = [each for each in found if each.settings == settings]
    in_force = [each for each in enabled if each in wanted]
    if in_force:
        others = [each for each in found if each is not in_force[0]]
        for other in others:
            if other.enabled:
                return Step("disable", other.id)
        return next((Step("delete", each.id) for each in others if each.id not in kept), None)
    fresh = [each for each in wanted if each.id not in known]
    if enabled:
        return Step("disable", enabled[0].id) if fresh else Step("create")
    target = next(iter(fresh or wanted), None)
    return Step("enable", target.id) if target else Step("create")


class Change(NamedTuple):
    """What `put_schedule` or `remove_schedule` did.

    Attributes:
      steps: in order; none when all was as wanted.
      kept: names of runs under way, for which their old, disabled schedule was kept.
    """

    steps: list[Step]
    kept: list[str]


def list_recurring_runs(cluster: Cluster, name: str | None = None) -> list[Any]:
    """`V2beta1RecurringRun`s, newest first: all of the namespace, or those that may have a name.

    Raises:
      ClusterError: the cluster does not say, or not wholly.
    """
    listed = cluster.pages(
        "recurringruns",
        "V2beta1ListRecurringRunsResponse",
        "recurring_runs",
        filter=None if name is None else equals("display_name", name),
        sort_by="created_at desc",
    )
    return list(listed)


def find_schedules(cluster: Cluster, name: str) -> list[Schedule]:
    """The schedules of a name, newest first.

    Raises:
      ClusterError: the cluster does not say, or not of each whether it is enabled.
    """
    found = [_schedule(cluster, each) for each in list_recurring_runs(cluster, name)]
    return [each for each in found if each.name == name]


def put_schedule(cluster: Cluster, wanted: Wanted) -> Change:
    """Makes `wanted` the one schedule of its name; see the top of this module.

    Raises:
      ClusterError: it failed; says which schedule is in force now.
    """
    found = find_schedules(cluster, wanted.name)
    _refuse_others(found, wanted)
    known = {each.id for each in found}
    change = Change([], [])
    try:
        for attempt in cluster.patience.retrying():
            with attempt:
                _reach(cluster, wanted, known, change)
    except (ClusterError, KeyboardInterrupt) as failure:
        reason = "interrupted" if isinstance(failure, KeyboardInterrupt) else failure
        raise ClusterError(f"{reason}. {_put_back(cluster, wanted, found)}") from None
    return change


def remove_schedule(cluster: Cluster, name: str) -> Change:
    """Disables and deletes the schedules of a name; one with a run under way is only disabled.

    Raises:
      ClusterError: there is none, it was made by something else, or the cluster refuses.
    """
    found = find_schedules(cluster, name)
    if not found:
        raise ClusterError(f"there is no schedule {name!r} {_where(cluster)}")
    if any(each.settings is None for each in found):
        raise ClusterError(f"schedule {name!r} was not made by `schedule`: delete it where it was")
    change = Change([], [])
    for action in ("disable", "delete"):
        for attempt in cluster.patience.retrying():
            with attempt:
                change.kept.clear()
                for each in find_schedules(cluster, name):
                    if action == "delete" or each.enabled:
                        _take(cluster, Step(action, each.id), None, change)
    return change


def _reach(cluster: Cluster, wanted: Wanted, known: Collection[str], change: Change) -> None:
    kept: set[str] = set()
    change.kept.clear()
    last = None
    while True:
        found = find_schedules(cluster, wanted.name)
        step = next_step(found, wanted.settings, known, kept)
        if step is None:
            return
        if step == last:
            raise ClusterError(
                f"{cluster.host} says that it did {step.action} schedule {wanted.name}, but does "
                "not list it so"
            )
        last = step
        if not _take(cluster, step, wanted, change):
            kept.add(step.id)


def _take(cluster: Cluster, step: Step, wanted: Wanted | None, change: Change) -> bool:
    """Makes the request of a step; False when it deletes and a run is under way."""
    path = f"recurringruns/{quote(step.id, safe='')}"
    if step.action == "create" and wanted is not None:
        cluster.call("POST", "recurringruns", body=wanted.body())
    elif step.action == "delete":
        under_way = list(_runs_under_way(cluster, step.id))
        if under_way:
            change.kept.extend(under_way)
            return False
        try:
            cluster.call("DELETE", path)
        except ClusterError as error:
            if error.status != 404:  # gone already
                raise
    else:
        cluster.call("POST", f"{path}:{step.action}")
    change.steps.append(step)
    return True


def _runs_under_way(cluster: Cluster, schedule_id: str) -> Iterator[str]:
    runs = cluster.pages(
        "runs", "V2beta1ListRunsResponse", "runs", filter=equals("recurring_run_id", schedule_id)
    )
    for run in runs:
        if run.recurring_run_id == schedule_id and run.state not in ENDED:
            yield run.display_name or run.run_id


def _put_back(cluster: Cluster, wanted: Wanted, before: Sequence[Schedule]) -> str:
    """Puts what was in force before in force again, unless the new one is; says which is."""
    old = next((each for each in before if each.enabled), None)
    try:
        for attempt in cluster.patience.retrying():
            with attempt:
                return _restore(cluster, wanted, old, {each.id for each in before})
    except ClusterError:
        pass
    return (
        f"The cluster does not say whether a schedule {wanted.name} is in force now: "
        "call the same command again, it goes on from there"
    )


def _restore(cluster: Cluster, wanted: Wanted, old: Schedule | None, known: Collection[str]) -> str:
    found = find_schedules(cluster, wanted.name)
    again = "Call the same command again, it goes on from there"
    in_force = next((each for each in found if each.enabled), None)
    if in_force is not None and in_force.settings == wanted.settings:
        return f"The new schedule {wanted.name} is in force; what remains is to tidy up. {again}"
    if in_force is None and old is not None and old.id in {each.id for each in found}:
        for each in found:  # first: a late answer to "enable" then finds nothing to enable
            if each.id not in known:
                _take(cluster, Step("delete", each.id), None, Change([], []))
        _take(cluster, Step("enable", old.id), None, Change([], []))
        in_force = old
    if in_force is None:
        return f"No schedule {wanted.name} is in force{f'. {again}' if found else ''}"
    return f"The old schedule {wanted.name} is in force, as before"


def _refuse_others(found: Sequence[Schedule], wanted: Wanted) -> None:
    for each in found:
        if each.pipeline != wanted.pipeline:
            owner = f"for pipeline {each.pipeline}" if each.pipeline else "by something else"
            raise ClusterError(
                f"there is a schedule {wanted.name!r} that was made {owner}: it is left alone. "
                "Choose another name with --name"
            )


def _schedule(cluster: Cluster, listed: Any) -> Schedule:
    if listed.error is not None or listed.status not in ("ENABLED", "DISABLED"):
        said = f": {listed.error.message}" if listed.error is not None else ""
        raise ClusterError(
            f"{cluster.host} does not say whether schedule {listed.recurring_run_id} is enabled"
            f"{said}"
        )
    marked = _MARKED.fullmatch(listed.description or "")
    return Schedule(
        id=listed.recurring_run_id,
        name=listed.display_name,
        enabled=listed.status == "ENABLED",
        pipeline=marked[1] if marked else None,
        settings=marked[2] if marked else None,
    )


def _where(cluster: Cluster) -> str:
    return f"in namespace {cluster.namespace}" if cluster.namespace else f"on {cluster.host}"
