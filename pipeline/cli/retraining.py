"""`local_runner.py retrain` and `schedule`: one retraining pass, and passes at set times."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import (
    Assignments,
    Condition,
    DataDir,
    OutputDir,
    Preset,
    Verbose,
    resolve_options,
)
from surroundings import leave


def retrain(
    condition: Condition = "new-data",
    preset: Preset = "default",
    data_dir: DataDir = None,
    output_dir: OutputDir = None,
    assignments: Assignments = None,
    accept_not_blessed: Annotated[
        bool,
        typer.Option("--accept-not-blessed", help="End with status 0 in place of 3, for a Job."),
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Run the pipeline if there is a reason; print the outcome as JSON.

    Example: python local_runner.py retrain --if new-data,age:7d --data-dir /data/mnist

    Posts the line to the address in $RETRAIN_WEBHOOK_URL, if there is one, as Slack reads it, and
    adds it to passes.jsonl in the output folder.
    """
    from pipeline.local.run import Outcome
    from pipeline.retraining.retrain import retrain as retrain_once

    resolved = resolve_options(preset, assignments, output_dir, data_dir)
    outcome, report, error = retrain_once(resolved, condition, verbose=verbose)
    typer.echo(report.as_json())
    if outcome == Outcome.STOPPED:
        # Beam's threads would keep the process alive until their work is done.
        leave(outcome)
    if error:
        raise error
    accepted = accept_not_blessed and outcome == Outcome.NOT_BLESSED
    raise typer.Exit(0 if accepted else outcome)


def schedule(
    cron: Annotated[
        str, typer.Option(metavar="'M H D M W'", help="When, as in a crontab; 0 and 7 are Sunday.")
    ],
    condition: Condition = "new-data",
    preset: Preset = "default",
    data_dir: DataDir = None,
    output_dir: OutputDir = None,
    assignments: Assignments = None,
    time_zone: Annotated[
        str | None,
        typer.Option(help="Time zone of --cron.", show_default="the machine's"),
    ] = None,
    jitter: Annotated[
        int,
        typer.Option(min=0, max=86_400, help="Start each pass up to so many seconds later."),
    ] = 0,
    grace: Annotated[
        str | None,
        typer.Option(
            "--misfire-grace",
            metavar="TIME",
            help="Make up for a missed pass up to so much later, 12h say.",
            show_default="at any time",
        ),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Make one pass first.")] = False,
    once: Annotated[
        bool,
        typer.Option("--once", help="Make a pass if one was due since the last, and end."),
    ] = False,
) -> None:
    """Make a pass of `retrain` at each time, until SIGTERM or Ctrl-C.

    Example: python local_runner.py schedule --cron "0 3 * * *" --if new-data

    A pass that is due while another runs is left out. What was missed while the machine or this
    command was down is made up for, once.

    Exit status: 0 after SIGTERM or Ctrl-C; with --once the pass's, 0 where none was due.
    """
    from pipeline.retraining.conditions import read_conditions
    from pipeline.retraining.schedule import keep_schedule, read_times

    settings = resolve_options(preset, assignments, output_dir, data_dir).settings
    read_conditions(condition)
    options = {"--if": condition, "--preset": preset, "--data-dir": settings.data.dir}
    options["--output-dir"] = settings.output_dir
    arguments = [part for name, value in options.items() if value for part in (name, value)]
    arguments += [part for each in assignments or () for part in ("--set", each)]
    status = keep_schedule(
        read_times(cron, time_zone, jitter, grace),
        arguments,
        root=Path(settings.output_dir).absolute(),
        now=now,
        once=once,
        as_json=settings.log.format == "json",
    )
    raise typer.Exit(status)
