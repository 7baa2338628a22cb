"""`local_runner.py run`: one run of the pipeline on this machine."""

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
    raise typer.Exit(ended.outcome)
