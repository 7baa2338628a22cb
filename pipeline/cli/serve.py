"""`local_runner.py serve` and `draw`: the server on the served versions, and one image."""

import os
from pathlib import Path
from typing import Annotated

import typer

import storage
from errors import UserError
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
    from pipeline.local.paths import OutputPaths
    from serving.server import serve as serve_until_stopped

    settings = resolve_options("default", assignments, output_dir).settings
    base = Path(models_dir or OutputPaths.of(settings).versions).expanduser().absolute()
    if grpc_port is None:
        grpc_port = 8500 if port else 0
    serve_until_stopped(base, settings.serve, host=host, port=port, grpc_port=grpc_port)


def draw(
    digit: Annotated[int, typer.Argument(min=-1, max=9, help="-1 for any.")] = -1,
    seed: Annotated[
        int, typer.Option(min=-(2**63), max=2**63 - 1, help="The same seed draws the same image.")
    ] = 0,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="The PNG file to write.")
    ] = "digit.png",
    output_dir: OutputDir = None,
) -> None:
    """Draw one image with the served generator.

    Example: python local_runner.py draw 7 --seed 3 -o seven.png
    """
    from pipeline.local.paths import OutputPaths
    from registry.integrity import newest_intact_version
    from registry.layout import version_dir

    base = OutputPaths.of(resolve_options(output_dir=output_dir).settings).versions
    version = newest_intact_version(base)
    if version is None:
        raise UserError("no version is served", str(base), "run `python local_runner.py` first")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as `serve` does
    import numpy as np

    from serving.loading import LoadedVersion
    from serving.requests import RequestError

    inputs = {"seed": np.array([seed], np.int64), "digit": np.array([digit], np.int64)}
    folder = version_dir(base, version)
    try:
        [png] = LoadedVersion(folder).call("serving_default", inputs)["image_bytes"]
    except RequestError as error:
        raise UserError(str(error), str(folder)) from None
    storage.write(output, png)
    typer.echo(f"Version {version} drew {output}")
