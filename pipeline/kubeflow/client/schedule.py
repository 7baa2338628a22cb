"""Schedules (recurring runs) on a cluster, one for each name.

The API can neither change a recurring run nor keep names unique, so a change is a replacement:

1. Create the new schedule, disabled. A bad spec or cron is refused here, and nothing has changed.
2. Disable the old one, then enable the new one. If that fails, the old one is enabled again.
3. Delete the old one, unless a run of it is under way: deleting it would delete that run's pods.

At no time are two schedules of a name enabled. What falls between the two requests of step 2 is
made up for, because an enabled schedule runs what it missed since it was created. If the process is
killed between them, no schedule is in force until the next call, which replaces what it finds.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.kubeflow.client.cluster import Cluster, ClusterError, equals
from pipeline.kubeflow.client.runs import ENDED

_MARK = "kubeflow_runner.py schedule, pipeline {}, settings {}"
_MARKED = re.compile(r"kubeflow_runner\.py schedule, pipeline (.+), settings ([0-9a-f]{64})")


@dataclass(frozen=True)
class Schedule:
    """A recurring run as the API lists it.

    Attributes:
      pipeline: name of its pipeline; None if `put_schedule` did not create it.
      digest: `Wanted.digest`; None if `put_schedule` did not create it.
    """

    id: str
    enabled: bool
    pipeline: str | None
    digest: str | None


@dataclass(frozen=True)
class Wanted:
    """The schedule that `put_schedule` brings about.

    Attributes:
      name: of the schedule.
      pipeline: name of the pipeline.
      file: the compiled pipeline.
      spec: the content of `file`.
      experiment_id: of its runs.
      parameters: of its runs.
      pipeline_root: of its runs; None for the cluster's own.
      cron: six fields, seconds first.
      max_concurrency: runs of it at a time, 1 to 10.
      no_catchup: if several runs were missed, only the last is made up for.
    """

    name: str
    pipeline: str
    file: Path
    spec: dict[str, Any]
    experiment_id: str
    parameters: dict[str, Any]
    pipeline_root: str | None
    cron: str
    max_concurrency: int
    no_catchup: bool

    @property
    def digest(self) -> str:
        """SHA-256 of everything but the path of `file`, as hexadecimal digits."""
        text = json.dumps({**vars(self), "file": None}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Change(NamedTuple):
    """What `put_schedule` or `remove_schedule` did.

    Attributes:
      changed: False if the wanted schedule was in force already.
      kept: names of runs under way, for which an old schedule is disabled and not deleted.
    """

    changed: bool
    kept: list[str]


def list_schedules(cluster: Cluster, name: str | None = None) -> list[Any]:
    """`V2beta1RecurringRun`s of the namespace, newest first: all, or those of a name."""
    query = {} if name is None else {"filter": equals("display_name", name)}
    list_page = cluster.client.list_recurring_runs
    listed = cluster.pages(list_page, "recurring_runs", sort_by="created_at desc", **query)
    return [each for each in listed if name in (None, each.display_name)]


def put_schedule(cluster: Cluster, wanted: Wanted) -> Change:
    """Makes `wanted` the one schedule of its name; see the top of this module.

    Raises:
      ClusterError: it failed; the message says which schedule is in force.
    """
    found = _find(cluster, wanted.name)
    for each in found:
        if each.pipeline != wanted.pipeline:
            owner = f"for pipeline {each.pipeline}" if each.pipeline else "by something else"
            raise ClusterError(
                f"schedule {wanted.name!r} was created {owner}", fix="choose another --name"
            )
    enabled = [each for each in found if each.enabled]
    changed = [each.digest for each in enabled] != [wanted.digest]
    try:
        new_id = _create_and_enable(cluster, wanted, enabled) if changed else enabled[0].id
    except KeyboardInterrupt:
        raise ClusterError("interrupted; the old schedule, if any, is in force") from None
    try:
        others = [each for each in _find(cluster, wanted.name) if each.id != new_id]
        return Change(changed, _remove(cluster, others))
    except (ClusterError, KeyboardInterrupt) as failure:
        raise ClusterError(
            f"{_why(failure)}; the new schedule {wanted.name} is in force, and an old one is left",
            fix="call the same command again",
        ) from None


def remove_schedule(cluster: Cluster, name: str) -> Change:
    """Disables and deletes the schedules of a name; one with a run under way is only disabled.

    Raises:
      ClusterError: there is none, something else created it, or the cluster refuses.
    """
    found = _find(cluster, name)
    where = f"namespace {cluster.namespace}" if cluster.namespace else cluster.host
    if not found:
        raise ClusterError(f"there is no schedule {name!r}", where=where)
    if any(each.digest is None for each in found):
        raise ClusterError(
            f"schedule {name!r} was created by something else", where=where, fix="delete it there"
        )
    return Change(True, _remove(cluster, found))


def _find(cluster: Cluster, name: str) -> list[Schedule]:
    found = []
    for each in list_schedules(cluster, name):
        if each.status not in ("ENABLED", "DISABLED"):
            raise ClusterError(
                f"the cluster does not say whether schedule {each.recurring_run_id} is enabled"
            )
        marked = _MARKED.fullmatch(each.description or "")
        pipeline, digest = marked.groups() if marked else (None, None)
        enabled = each.status == "ENABLED"
        found.append(Schedule(each.recurring_run_id, enabled, pipeline, digest))
    return found


def _create_and_enable(cluster: Cluster, wanted: Wanted, old: Sequence[Schedule]) -> str:
    # If an answer is lost, a disabled schedule may be left. `put_schedule` deletes it at its end.
    new_id: str = cluster.retry(
        cluster.client.create_recurring_run,
        wanted.experiment_id,
        wanted.name,
        description=_MARK.format(wanted.pipeline, wanted.digest),
        cron_expression=wanted.cron,
        max_concurrency=wanted.max_concurrency,
        no_catchup=wanted.no_catchup,
        params=wanted.parameters,
        pipeline_package_path=str(wanted.file),
        pipeline_root=wanted.pipeline_root,
        enabled=False,
    ).recurring_run_id
    try:
        for each in old:
            cluster.retry(cluster.client.disable_recurring_run, each.id)
        cluster.retry(cluster.client.enable_recurring_run, new_id)
    except (ClusterError, KeyboardInterrupt) as failure:
        raise _switched_back(cluster, old, new_id, _why(failure)) from None
    return new_id


def _switched_back(
    cluster: Cluster, old: Sequence[Schedule], new_id: str, why: str
) -> ClusterError:
    try:
        _delete(cluster, new_id)  # first: a late answer to "enable" then finds nothing to enable
        for each in old[:1]:
            cluster.retry(cluster.client.enable_recurring_run, each.id)
    except ClusterError:
        return ClusterError(
            f"{why}; it is unknown whether a schedule is in force",
            fix="call the same command again",
        )
    state = "the old schedule is in force, as before" if old else "no schedule is in force"
    return ClusterError(f"{why}; {state}")


def _remove(cluster: Cluster, schedules: Sequence[Schedule]) -> list[str]:
    """Disables schedules, and deletes those without a run under way; returns the other runs."""
    kept = []
    for each in schedules:
        if each.enabled:
            cluster.retry(cluster.client.disable_recurring_run, each.id)
        runs = list(_runs_under_way(cluster, each.id))
        kept += runs
        if not runs:
            _delete(cluster, each.id)
    return kept


def _delete(cluster: Cluster, schedule_id: str) -> None:
    try:
        cluster.retry(cluster.client.delete_recurring_run, schedule_id)
    except ClusterError as error:
        if error.status != 404:  # deleted already
            raise


def _runs_under_way(cluster: Cluster, schedule_id: str) -> Iterator[str]:
    query = equals("recurring_run_id", schedule_id)
    for run in cluster.pages(cluster.client.list_runs, "runs", filter=query):
        if run.recurring_run_id == schedule_id and run.state not in ENDED:
            yield run.display_name or run.run_id


def _why(failure: BaseException) -> str:
    return "interrupted" if isinstance(failure, KeyboardInterrupt) else str(failure)
