"""Trains the GAN alone: what each worker of a `deploy/tfjob.yaml` runs.

The training is the pipeline's, `models.gan.run_fn`, with what TFX's Trainer hands it taken from the
command line. Where `TF_CONFIG` names several workers they train together, on the same digits.
"""

import logging
import os
import signal
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from mnist.digits import Digits
    from pipeline.settings.sections import Settings

FAILED, BAD_USAGE = 1, 2
STOPPED = 128 + signal.SIGTERM

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def train(
    data_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Folder or gs:// with the digits, seen by all.")
    ],
    output_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Receives model/, run/, checkpoints/; seen by all.")
    ],
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
    classifier: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="SavedModel that finds the best moment.  [default: none]"),
    ] = None,
) -> None:
    """Train the GAN on the train split of a data folder, together with $TF_CONFIG's workers.

    Exit status: 0 trained, 1 failed, 2 bad usage, 143 stopped by a signal with a checkpoint, from
    which the same command goes on.
    """
    from pipeline.settings.resolution import ConfigError, resolve

    options = {"data.dir": (data_dir, "--data-dir"), "output_dir": (output_dir, "--output-dir")}
    try:
        settings = resolve(preset, assignments=assignments or (), options=options).settings
    except ConfigError as error:
        _fail(str(error), BAD_USAGE)
    if settings.train.warm_start != "none":
        _fail("train.warm_start: nothing is served here to begin with; set it to none", BAD_USAGE)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "train.gz"
        _write_records(_digits(settings), records)
        _train(settings, str(records), classifier)


def _digits(settings: "Settings") -> "Digits":
    from mnist.idx import IdxError
    from mnist.spans import SpanError, resolve_span
    from mnist.splits import TRAIN, SplitError, load_splits

    try:
        files = resolve_span(settings.data.dir or "", settings.data.span)
        return load_splits(files, settings.data.eval_share)[TRAIN]
    except (SpanError, IdxError, SplitError) as error:
        _fail(str(error), BAD_USAGE)


def _write_records(digits: "Digits", path: Path) -> None:
    """Writes the digits as `MnistExampleGen` does, which is what the training reads."""
    import tensorflow as tf

    from mnist.records import serialize_examples

    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for record in serialize_examples(digits.images, digits.labels):
            writer.write(record)


def _train(settings: "Settings", records: str, classifier: str | None) -> None:
    from models.gan.checkpoints import CheckpointError
    from models.gan.device_loop import NonFiniteLossError
    from models.gan.run_fn import run_fn
    from models.gan.training import InterruptedTrainingError

    output_dir = settings.output_dir
    arguments = SimpleNamespace(
        train_files=[records],
        base_model=classifier,
        serving_model_dir=os.path.join(output_dir, "model"),
        model_run_dir=os.path.join(output_dir, "run"),
        custom_config={
            "settings": settings.train.model_dump(mode="json"),
            "checkpoints": os.path.join(output_dir, "checkpoints"),
        },
    )
    try:
        run_fn(arguments)
    except InterruptedTrainingError as error:
        _fail(str(error), STOPPED)
    except (CheckpointError, NonFiniteLossError) as error:
        _fail(str(error), FAILED)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
