"""The local command line: runs the pipeline on this machine with Beam's local runner."""

import sys
from pathlib import Path

import typer

sys.path.insert(0, str(Path(__file__).parent))

from pipeline.cli import (
    config,
    data,
    gc,
    lineage,
    models,
    reports,
    retraining,
    run,
    serve,
    verify,
)
from pipeline.cli.errors import Group
from surroundings import prepare

app = typer.Typer(
    cls=Group,
    help="Turns MNIST into a served digit generator, and keeps it fresh.\n\n"
    "Without a subcommand, runs the pipeline with the default preset.\n\n"
    "Exit status: 0 pushed, served already or nothing to do, 1 failed, 2 the command could not "
    "start as it was called, 3 not blessed and so not pushed (`verify`: not as blessed), "
    "130 Ctrl-C, 143 stopped by SIGTERM or SIGHUP: the same command resumes.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _without_subcommand(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        run.run()


for command in (
    run.run,
    *(retraining.retrain, retraining.schedule),
    *(reports.status, reports.report, reports.compare),
    *(data.data, data.release),
    *(models.models, models.rollback, models.retire, lineage.lineage),
    *(serve.serve, serve.draw, verify.verify, gc.gc, config.config),
):
    app.command()(command)


def main() -> None:
    """Runs the command line."""
    app(prepare())


if __name__ == "__main__":
    main()
