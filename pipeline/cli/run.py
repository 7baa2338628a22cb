"""`local_runner.py run`: one run of the pipeline on this machine."""

import os
import shlex
import sys
from typing import Annotated

import typer

from pipeline.cli.options import (
    Assignments,
    DataDir,
    OutputDir,
    Preset,
    Verbose,
    resolve_options,
)


def run(
    preset: Preset = "default",
    data_dir: DataDir = None,
    output_dir: OutputDir = None,
    assignments: Assignments = None,
    from_node: Annotated[
        str | None,
        typer.Option("--from", metavar="NODE", help="Run NODE and all nodes after it again."),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every node again.")] = False,
    verbose: Verbose = False,
) -> None:
    """Run the pipeline from ingestion to push.

    Example: python local_runner.py run --preset smoke --set train.max_steps=200
    """
    from pipeline.local.run import run as run_pipeline

    resolved = resolve_options(preset, assignments, output_dir, data_dir)
    ended = run_pipeline(resolved, from_node=from_node, use_cache=not no_cache, verbose=verbose)
    if ended.error:
        raise ended.error
    if ended.run_id is not None and resolved.settings.log.format == "text":
        for line in _next_commands(output_dir, is_served=not ended.outcome):
            typer.echo(line)
    raise typer.Exit(ended.outcome)


def _next_commands(output_dir: str | None, *, is_served: bool) -> list[str]:
    """What a person wants after a run, with the interpreter and script that ran it."""
    commands = {"report --open": "read the report"}
    if is_served:
        commands["serve"] = "serve it over REST and gRPC"
        commands["draw 7 --seed 3 -o seven.png"] = "draw one digit"
    caller = [_near(sys.executable), _near(sys.argv[0])]
    chosen = [] if output_dir is None else ["--output-dir", output_dir]
    lines = {
        shlex.join([*caller, *shlex.split(each), *chosen]): commands[each] for each in commands
    }
    width = max(map(len, lines))
    return ["", "Next:", *(f"  {line:<{width}}  # {why}" for line, why in lines.items())]


def _near(path: str) -> str:
    """The path from the working directory where it lies in it."""
    near = os.path.relpath(path)
    return path if near.startswith(os.pardir) else near
