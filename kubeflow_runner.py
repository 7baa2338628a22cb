"""The command line for Kubeflow Pipelines: compiles, rehearses, submits, schedules."""

import sys
from pathlib import Path

import typer

sys.path.insert(0, str(Path(__file__).parent))

from pipeline.cli.compile import compile_, rehearse
from pipeline.cli.errors import Group
from pipeline.cli.kubeflow import add_commands
from surroundings import prepare

app = typer.Typer(
    cls=Group,
    help="Takes the pipeline to Kubeflow Pipelines v2.\n\n"
    "Exit status: 0 done, 1 a run or a task failed, 2 the command could not start as it was "
    "called, 3 `submit --wait`: the generator is not blessed, 130 Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command(name="compile")(compile_)
app.command()(rehearse)
add_commands(app)


def main() -> None:
    """Runs the command line."""
    app(prepare())


if __name__ == "__main__":
    main()
