"""Evaluates the generator by `evaluation/`, and writes the result into TFX artifacts."""

import io
import json
import logging
import os
from typing import Any

import numpy as np
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

import storage
from components.anomalies import find_anomalies
from components.data_blessing import read_blessing
from components.run_id import run_id
from evaluation import document
from evaluation.evaluate import evaluate_model
from evaluation.image_statistics import RealDigits
from evaluation.report.render import render_report
from evaluation.settings import EvaluationSettings
from evaluation.verification import FOLDER
from mnist.records import load_split
from models.digit_classifier.features import FeatureExtractor
from models.gan.samples import encode_grid
from models.gan.settings import TrainSettings
from models.gan.tuning_settings import with_hyperparameters
from registry.integrity import fingerprint, read_files
from registry.lineage import read_start

_progress_log = logging.getLogger("mnist_gan.progress")


class Executor(base_executor.BaseExecutor):
    """Emits an evaluation with its images, a ModelBlessing and a report."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Measures the generator. A generator that is not blessed is a result, and no error.

        Args:
          input_dict: `model`, `classifier`, `examples`, `anomalies`, `model_run`, one each, and
            optionally `data_blessing` and `hyperparameters`.
          output_dict: `evaluation`, `blessing` and `report`, one artifact each.
          exec_properties: `settings`, EvaluationSettings as JSON; `serving_dir`, folder or URI of
            the served versions; `train` and `classifier_settings`, the settings of both trainings
            as JSON.

        Raises:
          GeneratorError: If the model does not fulfill the serving contract.
          BrokenBaselineError: If the served model cannot be loaded, and
            `evaluation.broken_baseline` is `fail`.
        """
        settings = EvaluationSettings.model_validate_json(exec_properties["settings"])
        train = json.loads(exec_properties.get("train") or "{}")
        tuned = _read_tuned(input_dict, train)
        artifacts = {
            name: artifact_utils.get_single_instance(found)
            for name, found in (input_dict | output_dict).items()
            if found
        }
        real = _read_real(input_dict["examples"])
        classifier = path_utils.serving_model_path(artifacts["classifier"].uri)
        content, arrays, verification = evaluate_model(
            path_utils.serving_model_path(artifacts["model"].uri),
            exec_properties.get("serving_dir") or "",
            real,
            FeatureExtractor(classifier),
            settings,
            latent=(train | tuned).get("latent", "normal"),
        )
        content["about"] = document.about_section(
            _describe_data(artifacts["examples"], real),
            train,
            tuned,
            json.loads(exec_properties.get("classifier_settings") or "{}"),
            settings.model_dump(mode="json"),
        )
        data = read_blessing(artifacts["data_blessing"]) if "data_blessing" in artifacts else None
        content["about"]["provenance"] = _provenance(
            artifacts["model"].uri, artifacts["classifier"].uri, data
        )
        _write_evaluation(artifacts["evaluation"], content, arrays)
        _write_blessing(artifacts["blessing"], content)
        verification.write(os.path.join(artifacts["blessing"].uri, FOLDER), classifier)
        page = render_report(
            content,
            arrays,
            _read_progress(artifacts["model_run"]),
            find_anomalies(artifacts["anomalies"]),
            run_id(self, exec_properties),
            data,
        )
        _write(artifacts["report"], "report.html", page.encode())


def _read_real(examples: list[Any]) -> RealDigits:
    train, eval_ = _read_split(examples, "train"), _read_split(examples, "eval")
    has_test = "test" in artifact_utils.decode_split_names(examples[0].split_names)
    test = _read_split(examples, "test")[0] if has_test else None
    return RealDigits(*train, *eval_, test)


def _read_split(examples: list[Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    [uri] = artifact_utils.get_split_uris(examples, name)
    return load_split([io_utils.all_files_pattern(uri)])


def _describe_data(examples: Any, real: RealDigits) -> dict[str, Any]:
    """Returns span, source, counts and fingerprint of an Examples artifact of MnistExampleGen."""
    counts = {"train": len(real.train), "eval": len(real.eval)}
    if real.test is not None:
        counts["test"] = len(real.test)
    return {
        "span": int(examples.span or 0),
        "source": examples.get_string_custom_property("source"),
        "counts": counts,
        "fingerprint": examples.get_string_custom_property("train_fingerprint"),
    }


def _provenance(model: str, classifier: str, data: dict[str, Any] | None) -> dict[str, str | None]:
    """Returns what the training started from, and fingerprints; None for what is not known."""
    start = read_start(path_utils.serving_model_path(model))
    files = read_files(path_utils.serving_model_path(classifier))
    return {
        "classifier_sha256": fingerprint(files),
        "start": start.start if start else None,
        "schema_sha256": (data or {}).get("schema_sha256"),
    }


def _read_tuned(input_dict: dict[str, list[Any]], train: dict[str, Any]) -> dict[str, Any]:
    """Returns the training settings that a search replaced; {} without a search."""
    if not input_dict.get("hyperparameters"):
        return {}
    folder = artifact_utils.get_single_uri(input_dict["hyperparameters"])
    found = json.loads(io_utils.read_string_file(io_utils.get_only_uri_in_dir(folder)))["values"]
    trained = with_hyperparameters(TrainSettings.model_validate(train), found)
    return {name: trained.model_dump(mode="json")[name] for name in found}


def _read_progress(model_run: Any) -> list[dict[str, Any]]:
    """Returns the lines of the training's `progress.jsonl`, oldest first."""
    content = storage.read(os.path.join(model_run.uri, "progress.jsonl"))
    return [json.loads(line) for line in content.splitlines()]


def _write_evaluation(evaluation: Any, content: dict[str, Any], arrays: dict[str, Any]) -> None:
    for name, metric in content["metrics"].items():
        low, high = metric["interval"] or (None, None)
        for suffix, value in (
            ("", metric["value"]),
            ("_low", low),
            ("_high", high),
            ("_floor", metric["floor"]),
        ):
            if value is not None:
                evaluation.set_float_custom_property(name + suffix, value)
    _write(evaluation, "evaluation.json", document.encode(content).encode())
    _write(evaluation, "samples.png", encode_grid(arrays["images"], columns=10))
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    _write(evaluation, "samples.npz", packed.getvalue())


def _write_blessing(blessing: Any, content: dict[str, Any]) -> None:
    verdict, baseline = content["verdict"], content["baseline"]
    failed = "; ".join(verdict["reasons"])
    blessing.set_int_custom_property("blessed", int(verdict["blessed"]))
    blessing.set_string_custom_property("failed_bounds", failed)
    blessing.set_string_custom_property("checks", json.dumps(content["checks"]))
    blessing.set_string_custom_property("baseline", baseline["message"])
    _write(blessing, "evaluation.json", document.encode(content).encode())
    name = "BLESSED" if verdict["blessed"] else "NOT_BLESSED"
    _write(blessing, name, failed.encode())
    level = logging.WARNING if baseline["status"] == "unloadable" else logging.INFO
    _progress_log.log(level, baseline["message"])
    _progress_log.info("blessed" if verdict["blessed"] else f"not blessed: {failed}")


def _write(artifact: Any, name: str, content: bytes) -> None:
    storage.write(os.path.join(artifact.uri, name), content)
