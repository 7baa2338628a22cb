"""Trains the GAN alone: what each worker of `deploy/trainjob.yaml` or `deploy/tfjob.yaml` runs.

The training is the pipeline's, `models.gan.run_fn`, with what TFX's Trainer hands it taken from the
command line. Where the environment names several workers they train together, on the same digits.
"""

import logging
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated

import typer

import storage
from errors import UserError
from models.gan.cluster import read_cluster, wait_for_workers
from pipeline.cli.errors import Command
from pipeline.cli.options import Assignments, Preset, resolve_options
from surroundings import prepare

if TYPE_CHECKING:
    from mnist.digits import Digits
    from pipeline.settings.sections import Settings

COMPLETE = "complete"  # in the output folder, with the key of the training
_log = logging.getLogger("mnist_gan.progress")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(cls=Command)
def train(
    data_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Folder or gs:// with the digits, seen by all.")
    ],
    output_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Receives model/, run/, checkpoints/; seen by all.")
    ],
    preset: Preset = "default",
    assignments: Assignments = None,
    classifier: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="SavedModel that finds the best moment.  [default: none]"),
    ] = None,
    worker_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1.0, help="Wait for all workers to start.")
    ] = 1800.0,
) -> None:
    """Train the GAN on the train split of a data folder, together with other workers.

    $TF_CONFIG or a TrainJob of Kubeflow Trainer (mlPolicy.jax) names the workers.

    Exit status: 0 trained, now or before, 1 failed, 2 the command could not start as it was called,
    143 stopped by SIGTERM with a checkpoint: the same command resumes.
    """
    settings = resolve_options(preset, assignments, output_dir, data_dir).settings
    if settings.train.warm_start != "none":
        raise UserError(
            "no version is served here to start from", "train.warm_start", "set it to none"
        )
    logging.basicConfig(format="%(asctime)s %(message)s")
    _log.setLevel(logging.INFO)
    cluster = read_cluster(os.environ)
    digits = _digits(settings)
    mark = os.path.join(settings.output_dir, COMPLETE)
    identity = _identity(settings, digits, classifier)
    if storage.read_if_there(mark) == identity:
        _log.info(f"this training is complete: {mark}")
        return
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "train.gz"
        _write_records(digits, records)
        if cluster:
            os.environ["TF_CONFIG"] = cluster.tf_config()
            wait_for_workers(cluster, worker_timeout)
        _train(settings, str(records), classifier)
    if not cluster or cluster.is_chief:
        storage.write(mark, identity)


def _identity(settings: "Settings", digits: "Digits", classifier: str | None) -> bytes:
    """What the result depends on."""
    from models.gan.checkpoints import checkpoint_key
    from models.gan.interruption import recipe

    parts = recipe(settings.train) | {"classifier": classifier}
    return checkpoint_key(parts, digits.images, digits.labels).encode()


def _digits(settings: "Settings") -> "Digits":
    from mnist.spans import resolve_span
    from mnist.splits import TRAIN, load_splits

    files = resolve_span(settings.data.dir or "", settings.data.span)
    return load_splits(files, settings.data.eval_share)[TRAIN]


def _write_records(digits: "Digits", path: Path) -> None:
    """Writes the digits as `MnistExampleGen` does, which is what the training reads."""
    import tensorflow as tf

    from mnist.records import serialize_examples

    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for record in serialize_examples(digits.images, digits.labels):
            writer.write(record)


def _train(settings: "Settings", records: str, classifier: str | None) -> None:
    from models.gan.run_fn import run_fn

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
    run_fn(arguments)


if __name__ == "__main__":
    app(prepare())
