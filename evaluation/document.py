"""`evaluation.json`, as `docs/evaluation.md` describes it, and the pictures beside it."""

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
from evaluation.metric_table import FIGURES, Estimate
from evaluation.observation import Observed, RealDigits, Reference
from evaluation.sampling import ANY_DIGIT, Samples
from metrics import labels

SCHEMA_VERSION = 1
_PACKAGES = ("tensorflow", "keras", "tfx", "numpy", "scipy")


def figures_section(
    candidate: Mapping[str, Estimate],
    floor: Mapping[str, Estimate],
    baseline: Mapping[str, Estimate],
    differences: Mapping[str, Estimate],
) -> dict[str, Any]:
    """Each figure of the candidate, with its floor, the baseline's and the difference.

    In the order of the table of figures.
    """
    return {
        name: {
            **_estimate(candidate[name]),
            "floor": _number(floor[name].value) if name in floor else None,
            "baseline": _estimate(baseline[name]) if name in baseline else None,
            "difference": _estimate(differences[name]) if name in differences else None,
        }
        for name in FIGURES
        if name in candidate
    }


def verdict_section(checks: Sequence[Check]) -> dict[str, Any]:
    """Whether the candidate is blessed, and what failed."""
    reasons = [str(check) for check in checks if not check.passed]
    return {"blessed": not reasons, "reasons": reasons}


def checks_section(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Every bound with the value that was held against it."""
    return [
        {
            "kind": check.kind,
            "figure": check.figure,
            **_estimate(Estimate(math.nan if check.value is None else check.value, check.interval)),
            "bound": check.bound,
            "passed": bool(check.passed),
        }
        for check in checks
    ]


def digits_section(observed: Observed, reference: Reference) -> dict[str, Any]:
    """How often each digit is drawn, and what is seen when it is asked for."""
    counts = None
    if observed.samples.asked is not None:
        counts = labels.confusion(observed.samples.asked, observed.logits)
    return {
        "shares": labels.digit_shares(observed.logits).tolist(),
        "real_shares": reference.shares.tolist(),
        "agreement": None if counts is None else _numbers(labels.class_agreement(counts)),
        "confusion": None if counts is None else counts.tolist(),
    }


def baseline_section(baseline: Baseline) -> dict[str, Any]:
    """What the candidate was compared with."""
    return {
        "status": baseline.status,
        "version": baseline.version,
        "path": baseline.path,
        "message": baseline.message,
    }


def about_section(
    data: Mapping[str, Any],
    train: Mapping[str, Any],
    tuned: Mapping[str, Any],
    classifier: Mapping[str, Any],
    evaluation: Mapping[str, Any],
) -> dict[str, Any]:
    """When, of what and by what; `data` as `describe_data` gives it, settings as JSON objects."""
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


def describe_data(examples: Any, real: RealDigits) -> dict[str, Any]:
    """Span, source, counts and fingerprint of an Examples artifact of MnistExampleGen."""
    counts = {"train": len(real.train), "eval": len(real.eval)}
    if real.test is not None:
        counts["test"] = len(real.test)
    return {
        "span": int(examples.span or 0),
        "source": examples.get_string_custom_property("source"),
        "counts": counts,
        "fingerprint": examples.get_string_custom_property("train_fingerprint"),
    }


def encode(document: Mapping[str, Any]) -> str:
    """As JSON that any parser reads: no NaN, no infinity."""
    return json.dumps(document, indent=2, allow_nan=False)


def picture_arrays(
    observed: Observed,
    reference: Reference,
    shown: Samples,
    baseline: Baseline,
    interpolation: np.ndarray,
) -> dict[str, np.ndarray]:
    """The arrays of `samples.npz`."""
    samples = observed.samples
    closest = _closest(observed)
    others = reference.real.train[observed.nearest.rows[closest]]
    asked = np.full(len(shown.images), ANY_DIGIT) if shown.asked is None else shown.asked
    arrays = {
        "images": shown.images,
        "asked": asked,
        "interpolation": interpolation,
        "nearest": np.stack([samples.images[closest], others], axis=1),
        "nearest_distance": observed.nearest.distances[closest],
    }
    if baseline.shown is not None:
        arrays["baseline_images"] = baseline.shown.images
    return arrays


def _closest(observed: Observed) -> np.ndarray:
    """Rows of the two samples of each digit that lie closest to a training digit."""
    order = np.argsort(observed.nearest.distances, kind="stable")
    return np.concatenate([order[observed.seen[order] == digit][:2] for digit in range(10)])


def _estimate(estimate: Estimate) -> dict[str, Any]:
    interval = None if estimate.interval is None else _numbers(estimate.interval)
    return {"value": _number(estimate.value), "interval": interval}


def _numbers(values: Sequence[float] | np.ndarray) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _commit() -> str | None:
    """Of the checkout that this file lies in; None where it is none, or there is no git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
