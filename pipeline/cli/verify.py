"""`local_runner.py verify`: is what an endpoint serves what was blessed?"""

import os
from pathlib import Path
from typing import Annotated

import typer

import storage
from pipeline.cli.options import Assignments, OutputDir, resolve_options

_WORSE = 3


def verify(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="http(s)://HOST:8501[/v1/models/NAME] or grpc://HOST:8500[/NAME]."
        ),
    ],
    models_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder or URI of the versions, named as the model.",
            show_default="where runs push",
        ),
    ] = None,
    output_dir: OutputDir = None,
    assignments: Assignments = None,
) -> None:
    """Compare what an endpoint serves with the newest version.

    Example: python local_runner.py verify http://localhost:8501

    Draws up to 2,000 digits through TensorFlow Serving's API, draws them from the version's files
    too, and measures them with the version's classifier.

    Exit status: 0 as blessed, 3 worse, 1 no answer, 2 nothing to compare with.
    """
    from rich.console import Console
    from rich.markup import escape

    from pipeline.local.paths import OutputPaths

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as `serve` does
    settings = resolve_options("default", assignments, output_dir).settings
    base = models_dir or str(OutputPaths.of(settings).versions)
    if storage.is_local(base):
        base = str(Path(base).expanduser().absolute())
    from pipeline.retraining.records import AS_BLESSED
    from pipeline.verifying.endpoint import open_endpoint
    from pipeline.verifying.verify import verify_and_report

    endpoint = open_endpoint(url, os.path.basename(base.rstrip("/")))
    report, findings, error = verify_and_report(endpoint, base, settings)
    if error:
        raise error
    console = Console()
    for finding in findings:
        sign = "[green]✓[/]" if finding.passed else "[red]✗[/]"
        line = f"{sign} {escape(f'{finding.name}: {finding.text}')}"
        console.print(line, soft_wrap=True, highlight=False)
    if report.outcome != AS_BLESSED:
        console.print("Not as blessed")
        raise typer.Exit(_WORSE)
    console.print("As blessed")
