"""`evaluation.json`, as `docs/evaluation.md` describes it, and the images beside it."""

import datetime
import importlib.metadata
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.baseline import Baseline
from evaluation.decision import Check
from evaluation.image_statistics import ReferenceStatistics, SampleStatistics
from evaluation.metric_table import METRICS
from evaluation.sampling import ANY_DIGIT, Samples
from evaluation.verification import VerificationSet
from metrics.labels import class_accuracy, class_shares, confusion_matrix
from metrics.resampling import Estimate

SCHEMA_VERSION = 1
_PACKAGES = ("tensorflow", "keras", "tfx", "numpy", "scipy")


def metrics_section(
    candidate: Mapping[str, Estimate],
    floor: Mapping[str, Estimate],
    baseline: Mapping[str, Estimate],
    differences: Mapping[str, Estimate],
) -> dict[str, Any]:
    """Returns each metric of the candidate beside its floor, baseline and difference.

    The metrics stand in the order of the metric table. Title, unit and direction go along, so that
    whoever reads the document needs no table.
    """
    return {
        name: {
            "title": metric.title,
            "unit": metric.unit,
            "direction": metric.direction,
            **_estimate(candidate[name]),
            "floor": _number(floor[name].value) if name in floor else None,
            "baseline": _estimate(baseline[name]) if name in baseline else None,
            "difference": _estimate(differences[name]) if name in differences else None,
        }
        for name, metric in METRICS.items()
        if name in candidate
    }


def verdict_section(checks: Sequence[Check]) -> dict[str, Any]:
    """Returns whether the candidate is blessed, and a sentence per failed check."""
    reasons = [str(check) for check in checks if not check.passed]
    return {"blessed": not reasons, "reasons": reasons}


def checks_section(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Returns every check, with the value that was held against its bound."""
    return [
        {
            "kind": check.kind,
            "metric": check.metric,
            **_estimate(Estimate(math.nan if check.value is None else check.value, check.interval)),
            "bound": check.bound,
            "passed": bool(check.passed),
        }
        for check in checks
    ]


def classes_section(candidate: SampleStatistics, reference: ReferenceStatistics) -> dict[str, Any]:
    """Returns how often each label is predicted, and which label is predicted for which."""
    confusion = None
    if candidate.samples.labels is not None:
        confusion = confusion_matrix(candidate.samples.labels, candidate.logits)
    return {
        "shares": class_shares(candidate.logits).tolist(),
        "real_shares": reference.class_shares.tolist(),
        "conditional_accuracy": None if confusion is None else _numbers(class_accuracy(confusion)),
        "confusion": None if confusion is None else confusion.tolist(),
    }


def baseline_section(baseline: Baseline) -> dict[str, Any]:
    """Returns what the candidate was compared with."""
    return {
        "status": baseline.status,
        "version": baseline.version,
        "path": baseline.path,
        "message": baseline.message,
    }


def verification_section(candidate: SampleStatistics, first: VerificationSet) -> dict[str, Any]:
    """Returns the metrics of the first samples, which a verification has to find again."""
    count = len(first.digits)
    metrics = first.measure(candidate.features[:count], candidate.logits[:count])
    return {"samples": count, "metrics": metrics}


def about_section(
    data: Mapping[str, Any],
    train: Mapping[str, Any],
    tuned: Mapping[str, Any],
    classifier: Mapping[str, Any],
    evaluation: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns when, with which data, settings, packages and commit the evaluation was made."""
    now = datetime.datetime.now(datetime.timezone.utc)
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "created": now.isoformat(timespec="seconds"),
        "data": dict(data),
        "train": dict(train),
        "tuned": dict(tuned),
        "classifier": dict(classifier),
        "evaluation": dict(evaluation),
        "versions": {"python": sys.version.split()[0], **versions},
        "commit": _commit(),
    }


def encode(document: Mapping[str, Any]) -> str:
    """Returns JSON that any parser reads: without NaN and infinity.

    Raises:
      ValueError: If a number is NaN or infinite.
    """
    return json.dumps(document, indent=2, allow_nan=False)


def image_arrays(
    candidate: SampleStatistics,
    reference: ReferenceStatistics,
    grid: Samples,
    baseline: Baseline,
    interpolation: np.ndarray,
) -> dict[str, np.ndarray]:
    """Returns the arrays of `samples.npz`.

    Args:
      candidate: statistics of the candidate's samples.
      reference: statistics of the real images.
      grid: the candidate's samples for `GRID_LABELS`.
      baseline: the served model.
      interpolation: uint8 [rows, columns, 28, 28, 1], images between latents.
    """
    closest = _closest(candidate)
    neighbors = reference.real.train[candidate.nearest.rows[closest]]
    arrays = {
        "images": grid.images,
        "labels": np.full(len(grid.images), ANY_DIGIT) if grid.labels is None else grid.labels,
        "interpolation": interpolation,
        "nearest": np.stack([candidate.samples.images[closest], neighbors], axis=1),
        "nearest_distance": candidate.nearest.distances[closest],
    }
    if baseline.grid is not None:
        arrays["baseline_images"] = baseline.grid.images
    return arrays


def _closest(candidate: SampleStatistics) -> np.ndarray:
    """Returns the rows of the two samples of each class that are nearest to a training image."""
    order = np.argsort(candidate.nearest.distances, kind="stable")
    return np.concatenate([order[candidate.predicted[order] == digit][:2] for digit in range(10)])


def _estimate(estimate: Estimate) -> dict[str, Any]:
    interval = None if estimate.interval is None else _numbers(estimate.interval)
    return {"value": _number(estimate.value), "interval": interval}


def _numbers(values: Sequence[float] | np.ndarray) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _commit() -> str | None:
    """Returns the commit of the checkout; None outside a checkout or without git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
