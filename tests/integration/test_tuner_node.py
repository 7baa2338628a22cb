"""TFX's own Tuner and Trainer with real trainings: killed, taken up, and fed with the best."""

import json
import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tfx import types
from tfx import v1 as tfx
from tfx.components.trainer.executor import GenericExecutor
from tfx.components.tuner.executor import Executor as TunerExecutor
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import artifact_utils, channel_utils

from mnist.records import serialize_examples
from models.digit_classifier.network import build_classifier
from models.digit_classifier.run_fn import export_classifier
from pipeline.config import resolve
from pipeline.nodes import node_names
from pipeline.pipeline import create_pipeline

TRAIN: dict[str, Any] = {
    "max_seconds": None,
    "max_steps": 4,
    "steps_per_execution": 2,
    "batch_size": 4,
    "generator_channels": (4, 4, 2),
    "discriminator_channels": (2, 4, 4),
    "evaluations": 1,
    "validation_split": 0.4,
}
TUNE = {"trials": 2, "seconds": None, "steps": 4, "parameters": ("latent_dim",)}
PROCESSES = multiprocessing.get_context("forkserver")


def artifact(kind: Any, uri: Path) -> types.Artifact:
    made = kind()
    made.uri = str(uri)
    uri.mkdir(parents=True, exist_ok=True)
    return made


def inputs(root: Path) -> dict[str, list[types.Artifact]]:
    examples = artifact(tfx.types.standard_artifacts.Examples, root / "examples")
    examples.split_names = artifact_utils.encode_split_names(["train", "eval"])
    model = artifact(tfx.types.standard_artifacts.Model, root / "classifier")
    return {"examples": [examples], "base_model": [model]}


def execute(executor: type[BaseExecutor], component: Any, root: Path, given: Any) -> Path:
    """Runs a component's executor as its launcher would; returns the folder of its outputs."""
    out = root / component.id
    outputs = {
        name: [artifact(channel.type, out / name)] for name, channel in component.outputs.items()
    }
    context = BaseExecutor.Context(tmp_dir=str(root / "temporary"), unique_id="1")
    executor(context).Do(given, outputs, component.exec_properties)
    return out


def tune(root: Path) -> Path:
    given = inputs(root)
    component = tfx.components.Tuner(
        tuner_fn="models.gan.tuning.tuner_fn",
        examples=channel_utils.as_channel(given["examples"]),
        base_model=channel_utils.as_channel(given["base_model"]),
        custom_config={
            "train": TRAIN | {"latent_dim": 5},
            "tune": TUNE,
            "checkpoints": str(root / "checkpoints"),
        },
    )
    return execute(TunerExecutor, component, root, given)


def train(root: Path, tuned: Path) -> Path:
    found = artifact(tfx.types.standard_artifacts.HyperParameters, tuned / "best_hyperparameters")
    given = inputs(root) | {"hyperparameters": [found]}
    component = tfx.components.Trainer(
        run_fn="models.gan.run_fn.run_fn",
        **{name: channel_utils.as_channel(artifacts) for name, artifacts in given.items()},
        custom_config={"train": TRAIN | {"latent_dim": 6}, "checkpoints": str(root / "training")},
    )
    return execute(GenericExecutor, component, root, given)


def prepare(root: Path, images: np.ndarray, labels: np.ndarray) -> None:
    for split in ("train", "eval"):
        folder = root / "examples" / f"Split-{split}"
        folder.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(folder / "data_tfrecord-0.gz"), "GZIP") as writer:
            for record in serialize_examples(images, labels):
                writer.write(record)
    export_classifier(build_classifier(0), str(root / "classifier" / "Format-Serving"))


@pytest.mark.slow
def test_a_killed_search_goes_on_and_the_trainer_takes_the_best(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    prepare(tmp_path, digits[0][:60], digits[1][:60])
    process = PROCESSES.Process(target=tune, args=(tmp_path,))
    process.start()
    end = time.monotonic() + 300
    while not list(tmp_path.glob("checkpoints/tune/*/search.json")):
        assert process.is_alive(), f"the search ended with {process.exitcode}"
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "Tuner" / "best_hyperparameters" / "best_hyperparameters.txt").exists()

    caplog.set_level(logging.INFO, "mnist_gan.progress")
    tuned = tune(tmp_path)
    said = [record.getMessage() for record in caplog.records if "mnist_gan" in record.name]
    assert said[0].startswith("the search resumes after 1 trials; best so far FID ")
    assert [line[:12] for line in said[1:-1]] == ["trial 2 of 2"] * 2
    results = json.loads((tuned / "tuner_results" / "tuner_results.json").read_text())
    assert len(results) == 2
    assert 5 in {result["latent_dim"] for result in results}
    best = json.loads((tuned / "best_hyperparameters" / "best_hyperparameters.txt").read_text())
    lowest = min(results, key=lambda result: result["score"])
    assert best["values"] == {"latent_dim": lowest["latent_dim"]}

    model = tf.saved_model.load(str(train(tmp_path, tuned) / "model" / "Format-Serving"))
    latent = model.signatures["from_latent"].structured_input_signature[1]["latent"]
    assert latent.shape[1] == lowest["latent_dim"], "neither 6 nor the default"


def compiled(tmp_path: Path, *assignments: str) -> dict[str, Any]:
    pipeline = create_pipeline(
        resolve(environ={}, assignments=assignments).settings,
        data_dir="data",
        source="a test",
        pipeline_root=str(tmp_path / "artifacts"),
        serving_root=str(tmp_path / "serving"),
        checkpoint_root=str(tmp_path / "checkpoints"),
    )
    return {node.id: node for node in pipeline.components}


def test_the_search_is_in_the_pipeline_only_where_it_is_asked_for(tmp_path: Path) -> None:
    nodes = compiled(tmp_path)
    assert "Tuner" not in nodes
    assert "hyperparameters" not in nodes["Trainer"].inputs
    nodes = compiled(tmp_path, "tune.enabled=true")
    readers = {"Trainer", "GeneratorEvaluator"}
    assert {node.id for node in nodes["Tuner"].downstream_nodes} == readers
    for name in readers:
        assert "hyperparameters" in nodes[name].inputs
    assert list(nodes).index("Tuner") < list(nodes).index("Trainer")


@pytest.mark.parametrize("search", ["tune.enabled=false", "tune.enabled=true"])
def test_the_names_of_the_nodes_are_known_without_building_them(
    tmp_path: Path, search: str
) -> None:
    assert node_names(resolve(environ={}, assignments=[search]).settings) == list(
        compiled(tmp_path, search)
    )
