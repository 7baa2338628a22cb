"""The command line for Kubeflow Pipelines: compiles, rehearses, submits, schedules."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pipeline.cli.kubeflow import add_commands

if TYPE_CHECKING:
    from pipeline.kubeflow.emulator.rehearsal import TaskResult
    from pipeline.settings.sections import Settings

app = typer.Typer(
    help="Takes the pipeline to Kubeflow Pipelines v2.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

FAILED, BAD_USAGE = 1, 2
STORES = ("minio", "gs", "s3")


@app.command(name="compile")
def compile_(
    preset: Annotated[
        str,
        typer.Option(
            help="Settings to start from: default, smoke, few_digits, best, gpu or classic."
        ),
    ] = "default",
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Change one setting; may be repeated."
        ),
    ] = None,
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

    Exit status: 0 written, 2 refused.
    """
    settings = _settings(
        preset,
        assignments,
        {
            "kubeflow.image": (image, "--image"),
            "kubeflow.pipeline_root": (pipeline_root, "--pipeline-root"),
        },
    )
    if output.suffix not in (".yaml", ".yml"):
        _fail(f"--output {output}: the backend takes YAML only, so it has to end in .yaml")
    if not output.absolute().parent.is_dir():
        _fail(f"--output {output}: there is no folder {output.absolute().parent}")
    _import_quietly()
    from pipeline.kubeflow.compiler.compile import compile_settings, write_spec
    from pipeline.kubeflow.compiler.spec_checks import SpecError

    try:
        write_spec(compile_settings(settings), output)
    except SpecError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"--output {output}: {error}")
    typer.echo(f"Compiled {output}")
    if "@sha256:" not in settings.kubeflow.image:
        typer.echo(
            f"  note: {settings.kubeflow.image} is a tag, which may name other code tomorrow while "
            "the cache still answers with today's; name@sha256:... never does"
        )


@app.command()
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
    """Run a compiled pipeline on this machine as a cluster would, without one.

    Example: python kubeflow_runner.py rehearse pipeline.yaml --param data_dir=/data/mnist

    Exit status: 0 every task succeeded, 1 one failed, 2 bad usage.
    """
    from pipeline.kubeflow.compiler.spec_checks import SpecError
    from pipeline.kubeflow.compiler.spec_file import read_pipeline, run_parameters
    from pipeline.kubeflow.emulator.rehearsal import rehearse as run_rehearsal

    if store not in (None, *STORES):
        _fail(f"--store {store}: expected one of {', '.join(STORES)}")
    try:
        pipeline = read_pipeline(file)
        results = run_rehearsal(
            pipeline,
            run_parameters(pipeline, params or ()),
            work_dir=work_dir,
            store=store,
            listener=_show,
        )
    except SpecError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"--work-dir {work_dir}: {error}")
    succeeded = sum(result.outcome == "succeeded" for result in results)
    typer.echo(f"\n{succeeded} of {len(results)} tasks succeeded")
    typer.echo(f"  store, pods, logs and volumes: {work_dir}")
    raise typer.Exit(0 if succeeded == len(results) else FAILED)


add_commands(app)


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

    from pipeline.settings.resolution import DATA_DIR_VARIABLE, ConfigError, resolve

    # It names a folder of this machine; a cluster's is `data.dir` or a run's `data_dir`.
    environment = {name: value for name, value in os.environ.items() if name != DATA_DIR_VARIABLE}
    given: dict[str, tuple[Any, str]] = {
        key: option for key, option in options.items() if option[0] is not None
    }
    try:
        return resolve(
            preset, environ=environment, assignments=assignments or (), options=given
        ).settings
    except ConfigError as error:
        _fail(str(error))


def _import_quietly() -> None:
    """Keeps TensorFlow's notes on this machine's hardware off the terminal."""
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(BAD_USAGE)


def main() -> None:
    """Runs the command line."""
    sys.path.insert(0, str(Path(__file__).parent))
    app()


if __name__ == "__main__":
    main()
