"""The commands for a cluster: submit, status, terminate, schedule, schedules, unschedule."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipeline.kubeflow.client.cluster import Cluster
    from pipeline.kubeflow.compiler.spec_file import PipelineFile

FAILED, INTERRUPTED = 1, 130

_File = Annotated[Path, typer.Argument(metavar="FILE", help="Compiled pipeline (YAML).")]
_COMPILED = Path("pipeline.yaml")  # where `compile` writes it
_Host = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Kubeflow Pipelines.", show_default="$KF_PIPELINES_ENDPOINT"),
]
_Namespace = Annotated[
    str | None, typer.Option(metavar="N", help="Your profile, on a multi-user installation.")
]
_Experiment = Annotated[
    str | None,
    typer.Option(metavar="E", help="Made if it is not there.", show_default="the pipeline's name"),
]
_Params = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="K=V", help="A runtime parameter; may be repeated."),
]
_Root = Annotated[
    str | None,
    typer.Option(
        metavar="URI", help="Where artifacts go.", show_default="the spec's, else the cluster's"
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Registers the commands of this module."""
    for command in (submit, status, terminate, schedule, schedules, unschedule):
        app.command()(command)


def submit(
    file: _File = _COMPILED,
    host: _Host = None,
    namespace: _Namespace = None,
    experiment: _Experiment = None,
    params: _Params = None,
    pipeline_root: _Root = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until the run has ended.")] = False,
) -> None:
    """Start a run of a compiled pipeline.

    Example: python kubeflow_runner.py submit pipeline.yaml --host http://localhost:8080 --wait

    Exit status: 0 started (with --wait: pushed, or succeeded in another way), 1 the run failed, 2
    not started, or the cluster is out of reach, 3 the generator is not blessed.
    """
    from pipeline.kubeflow.client import runs
    from pipeline.kubeflow.client.cluster import Cluster
    from pipeline.kubeflow.compiler import spec_file

    pipeline = spec_file.read_pipeline(file)
    values = spec_file.run_parameters(pipeline, params or ())
    root = spec_file.pipeline_root(pipeline, pipeline_root)
    cluster = Cluster(host, namespace)
    _note_what_is_missing(cluster, pipeline)
    with pipeline.as_file() as path:
        run = runs.submit_run(
            cluster,
            path,
            pipeline.name,
            parameters=values,
            pipeline_root=root,
            experiment=experiment or pipeline.name,
        )
    typer.echo(f"Run {run.run_id} ({run.display_name}) has started")
    if wait:
        _wait(cluster, run.run_id)


def status(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Id of a run.")] = None,
    host: _Host = None,
    namespace: _Namespace = None,
    last: Annotated[int, typer.Option(min=1, max=1000, help="How many runs to list.")] = 10,
) -> None:
    """List the last runs or, given one, its tasks with state, seconds and last error.

    Example: python kubeflow_runner.py status 9f0c6b0e-35a4-4b0c-9d0f-7f7a3a2c8f11
    """
    from pipeline.kubeflow.client import runs
    from pipeline.kubeflow.client.cluster import Cluster

    cluster = Cluster(host, namespace)
    if run is not None:
        _show_run(cluster, cluster.client.get_run(run))
        return
    _show_table(
        ("started", "state", "id", "name"),
        *(
            (_time(each.created_at), runs.state_of(each), each.run_id, each.display_name)
            for each in runs.last_runs(cluster, last)
        ),
    )


def terminate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run.")],
    host: _Host = None,
    namespace: _Namespace = None,
) -> None:
    """End a run under way.

    Example: python kubeflow_runner.py terminate 9f0c6b0e-35a4-4b0c-9d0f-7f7a3a2c8f11
    """
    from pipeline.kubeflow.client.cluster import Cluster

    Cluster(host, namespace).client.terminate_run(run)
    typer.echo(f"Run {run} is being terminated; `status {run}` shows when it has ended")


def schedule(
    cron: Annotated[
        str,
        typer.Option(
            metavar="'M H D M W'",
            help="When, as in a crontab, such as '0 3 * * 1', Mondays at 03:00, in the cluster's "
            "time zone.",
        ),
    ],
    file: _File = _COMPILED,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", show_default="the pipeline's name")
    ] = None,
    host: _Host = None,
    namespace: _Namespace = None,
    experiment: _Experiment = None,
    params: _Params = None,
    pipeline_root: _Root = None,
    max_concurrency: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=10, help="Runs of this schedule at the same time, 1 to 10."
        ),
    ] = 1,
    no_catchup: Annotated[
        bool, typer.Option("--no-catchup", help="Of several missed runs, make up for the last.")
    ] = False,
) -> None:
    """Run a compiled pipeline on a schedule, in place of the schedule of that name, if any.

    Called again with the same pipeline, cron and parameters, it does nothing. A change replaces the
    old schedule, and two are never in force; after a failure, call it again.

    Example: python kubeflow_runner.py schedule pipeline.yaml --cron "0 3 * * 1" --param span=-1
    """
    from pipeline.cron import to_kubeflow
    from pipeline.kubeflow.client.cluster import Cluster
    from pipeline.kubeflow.client.schedule import Wanted, put_schedule
    from pipeline.kubeflow.compiler import spec_file

    expression = to_kubeflow(cron)
    pipeline = spec_file.read_pipeline(file)
    values = spec_file.run_parameters(pipeline, params or ())
    root = spec_file.pipeline_root(pipeline, pipeline_root)
    cluster = Cluster(host, namespace)
    _note_what_is_missing(cluster, pipeline)
    with pipeline.as_file() as path:
        wanted = Wanted(
            name=name or pipeline.name,
            pipeline=pipeline.name,
            file=path,
            spec=pipeline.body,
            experiment_id=cluster.experiment_id(experiment or pipeline.name),
            parameters=values,
            pipeline_root=root,
            cron=expression,
            max_concurrency=max_concurrency,
            no_catchup=no_catchup,
        )
        change = put_schedule(cluster, wanted)
    done = "is in force" if change.changed else "is in force already, unchanged"
    typer.echo(f"Schedule {wanted.name} ({cron}) {done}")
    _show_kept(change.kept)


def schedules(host: _Host = None, namespace: _Namespace = None) -> None:
    """List the schedules: name, trigger, whether it is enabled, runs at a time, since when.

    Example: python kubeflow_runner.py schedules --host http://localhost:8080
    """
    from pipeline.kubeflow.client.cluster import Cluster
    from pipeline.kubeflow.client.schedule import list_schedules

    found = list_schedules(Cluster(host, namespace))
    _show_table(
        ("name", "status", "trigger", "at a time", "created", "id"),
        *(
            (
                each.display_name,
                (each.status or "unknown").lower(),
                _trigger(each.trigger),
                str(each.max_concurrency or ""),
                _time(each.created_at),
                each.recurring_run_id,
            )
            for each in found
        ),
    )


def unschedule(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    host: _Host = None,
    namespace: _Namespace = None,
) -> None:
    """Remove a schedule. Its past runs stay; a run under way continues.

    Example: python kubeflow_runner.py unschedule mnist-gan
    """
    from pipeline.kubeflow.client.cluster import Cluster
    from pipeline.kubeflow.client.schedule import remove_schedule

    kept = remove_schedule(Cluster(host, namespace), name).kept
    typer.echo(f"Schedule {name} is {'disabled' if kept else 'removed'}")
    _show_kept(kept)


def _note_what_is_missing(cluster: "Cluster", pipeline: "PipelineFile") -> None:
    from pipeline.kubeflow.client.prerequisites import find_missing
    from pipeline.side_work import run_aside

    namespace = cluster.namespace or "kubeflow"
    failure = "the run's claims and secrets were not looked up"
    missing = run_aside(failure, lambda: find_missing(pipeline.platform, namespace))
    for each in missing or ():
        typer.echo(
            f"note: namespace {namespace} of kubectl's cluster has no {each}; pods wait for it",
            err=True,
        )


def _wait(cluster: "Cluster", run_id: str) -> None:
    from pipeline.kubeflow.client import runs

    try:
        run = runs.wait_for_run(cluster, run_id, lambda state: typer.echo(f"  {state.lower()}"))
    except KeyboardInterrupt:
        typer.echo(f"No longer waiting; the run continues: status {run_id}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if run.state != runs.SUCCEEDED:
        _show_run(cluster, run)
        raise typer.Exit(FAILED)
    outcome, status = runs.outcome_of(cluster, run)
    typer.echo(outcome)
    raise typer.Exit(status)


def _show_run(cluster: "Cluster", run: Any) -> None:
    from pipeline.kubeflow.client.runs import state_of, tasks_of, waiting_pods

    typer.echo(f"{run.display_name}: {state_of(run)}")
    if run.error is not None and run.error.message:
        typer.echo(f"  {run.error.message}")
    tasks = tasks_of(cluster, run)
    _show_table(
        ("task", "state", "seconds"),
        *(
            (each.name, each.state, "" if each.seconds is None else f"{each.seconds:.0f}")
            for each in tasks
        ),
    )
    for task in tasks:
        if task.error:
            typer.echo(f"{task.name}: {task.error}")
    if waiting := waiting_pods(run):
        typer.echo(
            f"{waiting} pod(s) made and not started: no cluster node is free, or an image, a claim "
            "or a secret is missing; `kubectl describe pod` says which"
        )


def _show_table(*rows: tuple[str | None, ...]) -> None:
    """Prints rows below a heading, however narrow the terminal; without rows "none"."""
    if len(rows) == 1:
        typer.echo("none")
        return
    texts = [[cell or "" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def _show_kept(runs: list[str]) -> None:
    for run in runs:
        typer.echo(
            f"  run {run} of the old schedule is under way: deleting that schedule would end the "
            "run, so it is only disabled. The same command deletes it later"
        )


def _trigger(trigger: Any) -> str:
    if trigger is not None and trigger.cron_schedule is not None:
        return trigger.cron_schedule.cron or ""
    if trigger is not None and trigger.periodic_schedule is not None:
        return f"every {trigger.periodic_schedule.interval_second} s"
    return ""


def _time(moment: Any) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment is not None else ""
