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
from tuner_runs import train, tune

from mnist.records import serialize_examples
from models.digit_classifier.network import build_classifier
from models.digit_classifier.run_fn import export_classifier
from pipeline.nodes import node_names
from pipeline.pipeline import create_pipeline
from pipeline.settings.resolution import resolve

PROCESSES = multiprocessing.get_context("forkserver")


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
