"""`kubeflow_runner.py compile` and `rehearse`: what needs no cluster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.errors import FAILED
from pipeline.cli.options import Assignments, Preset

if TYPE_CHECKING:
    from pipeline.kubeflow.emulator.rehearsal import TaskResult
    from pipeline.settings.sections import Settings

STORES = ("minio", "gs", "s3")


def compile_(
    preset: Preset = "default",
    assignments: Assignments = None,
    image: Annotated[
        str | None,
        typer.Option(metavar="I", help="Container image.", show_default="kubeflow.image"),
    ] = None,
    pipeline_root: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="Where artifacts go.", show_default="kubeflow.pipeline_root"
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The spec, as YAML.")
    ] = Path("pipeline.yaml"),
) -> None:
    """Write the pipeline as a spec for Kubeflow Pipelines (schema 2.1.0).

    Example: python kubeflow_runner.py compile --image registry/mnist-gan:0.1.0-cpu
    """
    options = {
        "kubeflow.image": (image, "--image"),
        "kubeflow.pipeline_root": (pipeline_root, "--pipeline-root"),
    }
    settings = _settings(preset, assignments, options)
    if output.suffix not in (".yaml", ".yml"):
        raise typer.BadParameter(f"{output} has to end in .yaml, as the backend takes YAML only")
    if not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {output.absolute().parent} for {output}")
    _import_quietly()
    from pipeline.kubeflow.compiler.compile import compile_settings, write_spec

    write_spec(compile_settings(settings), output)
    typer.echo(f"Compiled {output}")
    if "@sha256:" not in settings.kubeflow.image:
        typer.echo(
            f"  note: {settings.kubeflow.image} is a tag, which may name other code tomorrow; "
            "name@sha256:... never does"
        )


def rehearse(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Compiled pipeline (YAML).")] = Path(
        "pipeline.yaml"
    ),
    params: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="K=V", help="A runtime parameter; may be repeated."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="minio|gs|s3",
            help="Whose local paths.",
            show_default="the spec's root's, or minio",
        ),
    ] = None,
    work_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Receives store, pods, logs and volumes.")
    ] = Path("outputs/rehearsal"),
) -> None:
    """Run a compiled pipeline locally under the backend's rules, without a cluster.

    Example: python kubeflow_runner.py rehearse pipeline.yaml --param data_dir=/data/mnist
    """
    from pipeline.kubeflow.compiler.spec_file import read_pipeline, run_parameters
    from pipeline.kubeflow.emulator.rehearsal import rehearse as run_rehearsal

    if store not in (None, *STORES):
        raise typer.BadParameter(f"--store {store}: expected one of {', '.join(STORES)}")
    pipeline = read_pipeline(file)
    parameters = run_parameters(pipeline, params or ())
    results = run_rehearsal(pipeline, parameters, work_dir=work_dir, store=store, listener=_show)
    succeeded = sum(result.outcome == "succeeded" for result in results)
    typer.echo(f"\n{succeeded} of {len(results)} tasks succeeded")
    typer.echo(f"  store, pods, logs and volumes: {work_dir}")
    raise typer.Exit(0 if succeeded == len(results) else FAILED)


def _show(result: "TaskResult") -> None:
    sign = {"succeeded": "✓", "failed": "✗", "skipped": "-"}[result.outcome]
    typer.echo(f"  {sign} {result.name:<20} {result.seconds:7.1f} s  {result.message}".rstrip())
    for warning in result.warnings:
        typer.echo(f"      warning: {warning}")


def _settings(
    preset: str,
    assignments: list[str] | None,
    options: dict[str, tuple[str | None, str]],
) -> "Settings":
    import os

    from pipeline.settings.resolution import DATA_DIR_VARIABLE, resolve

    # It names a folder of this machine; a cluster's is `data.dir` or a run's `data_dir`.
    environment = {name: value for name, value in os.environ.items() if name != DATA_DIR_VARIABLE}
    given: dict[str, tuple[Any, str]] = {
        key: option for key, option in options.items() if option[0] is not None
    }
    found = resolve(preset, environ=environment, assignments=assignments or (), options=given)
    return found.settings


def _import_quietly() -> None:
    """Keeps TensorFlow's notes on this machine's hardware off the terminal."""
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
