"""`local_runner.py serve`: the REST and gRPC server on the served versions."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import Assignments, OutputDir, resolve_options


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
    output_dir: OutputDir = None,
    assignments: Assignments = None,
) -> None:
    """Serve the pushed generator over REST and gRPC, and on a page.

    The APIs are TensorFlow Serving's.

    Example: python local_runner.py serve --port 8501 --grpc-port 8500

    Whoever can reach the addresses can draw digits; by default only this machine can.
    """
    from pipeline.local.paths import Places
    from serving.server import serve as serve_until_stopped

    settings = resolve_options("default", assignments, output_dir).settings
    base = Path(models_dir or Places.of(settings).versions).expanduser().absolute()
    if grpc_port is None:
        grpc_port = 8500 if port else 0
    serve_until_stopped(base, settings.serve, host=host, port=port, grpc_port=grpc_port)
