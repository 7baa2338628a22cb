"""Draws samples, measures them, decides, and writes down why."""

import dataclasses
import json
import os
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils
from tfx.v1.dsl.io import fileio

from components.generator_evaluator.decision import Check, check_bounds
from components.generator_evaluator.figures import RealDigits, Samples, measure
from components.generator_evaluator.settings import EvaluationSettings
from models.digit_classifier.features import FeatureExtractor
from models.examples import load_split
from models.gan.samples import encode_grid

_BATCH = 1000
_GRID = 100


class Executor(base_executor.BaseExecutor):
    """Emits `evaluation.json`, `samples.png` and a ModelBlessing."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Measures the generator; not being blessed is a result and raises nothing.

        Args:
          input_dict: `model`, `classifier`, `examples`, one artifact each.
          output_dict: `evaluation` and `blessing`, one artifact each.
          exec_properties: `settings`, EvaluationSettings as JSON.
        """
        settings = EvaluationSettings.model_validate_json(exec_properties["settings"])
        classifier = artifact_utils.get_single_instance(input_dict["classifier"])
        model = artifact_utils.get_single_instance(input_dict["model"])
        evaluation = artifact_utils.get_single_instance(output_dict["evaluation"])
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])

        samples = draw_samples(
            path_utils.serving_model_path(model.uri), settings.samples, settings.seed
        )
        extractor = FeatureExtractor(path_utils.serving_model_path(classifier.uri))
        real = {name: _read_split(input_dict["examples"], name) for name in ("train", "eval")}
        figures = measure(
            samples,
            RealDigits(train=real["train"], eval=real["eval"]),
            extractor,
            resamples=settings.resamples,
            seed=settings.seed,
        )
        checks = check_bounds(figures, settings.thresholds)
        _write_evaluation(evaluation, samples, figures, checks)
        _write_blessing(blessing, checks)


def draw_samples(model_dir: str, count: int, seed: int) -> Samples:
    """Draws `count` digits with consecutive seeds, asking for 0..9 in turn.

    An unconditional generator is not asked for any.
    """
    generate = tf.saved_model.load(model_dir).signatures["generate_pixels"]
    no_digit = tf.constant([-1], tf.int64)
    conditional = int(generate(seed=tf.constant([0], tf.int64), digit=no_digit)["digit"][0]) != -1
    images = []
    asked = np.arange(count) % 10 if conditional else np.full(count, -1)
    for start in range(0, count, _BATCH):
        digit = tf.constant(asked[start : start + _BATCH], tf.int64)
        seeds = tf.range(len(digit), dtype=tf.int64) + seed + start
        images.append(generate(seed=seeds, digit=digit)["image"].numpy())
    return Samples(np.concatenate(images), asked if conditional else None)


def _read_split(examples: list[Any], split: str) -> np.ndarray:
    [uri] = artifact_utils.get_split_uris(examples, split)
    images, _ = load_split([io_utils.all_files_pattern(uri)])
    return images


def _write_evaluation(
    evaluation: Any, samples: Samples, figures: dict[str, float], checks: list[Check]
) -> None:
    for name, value in figures.items():
        evaluation.set_float_custom_property(name, value)
    content = {"figures": figures, "checks": [dataclasses.asdict(check) for check in checks]}
    with fileio.open(os.path.join(evaluation.uri, "evaluation.json"), "w") as file:
        json.dump(content, file, indent=2)
    with fileio.open(os.path.join(evaluation.uri, "samples.png"), "wb") as file:
        file.write(encode_grid(samples.images[:_GRID], columns=10))


def _write_blessing(blessing: Any, checks: list[Check]) -> None:
    failed = "; ".join(str(check) for check in checks if not check.passed)
    blessed = not failed
    blessing.set_int_custom_property("blessed", int(blessed))
    blessing.set_string_custom_property("failed_bounds", failed)
    name = "BLESSED" if blessed else "NOT_BLESSED"
    with fileio.open(os.path.join(blessing.uri, name), "w") as file:
        file.write(failed)
    logging.info("The generator is %s. %s", name.lower().replace("_", " "), failed)
