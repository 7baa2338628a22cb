"""Measures candidate, baseline and real digits, and decides."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from components.generator_evaluator import document
from components.generator_evaluator.baseline import Baseline
from components.generator_evaluator.decision import Check, check_baseline, check_thresholds
from components.generator_evaluator.deep import measure_deep
from components.generator_evaluator.figures import Estimate, difference, measure, with_ratio
from components.generator_evaluator.observation import (
    Extractor,
    Observed,
    RealDigits,
    Reference,
    observe,
    observe_real,
    study,
)
from components.generator_evaluator.samples import Samples
from components.generator_evaluator.settings import EvaluationSettings
from models.metrics.resampling import half_samples


@dataclass(frozen=True)
class Evaluation:
    """The outcome: `evaluation.json` without `about`, and what it is made of."""

    document: dict[str, Any]
    checks: list[Check]
    observed: Observed
    reference: Reference


def evaluate(
    candidate: Samples,
    baseline: Baseline,
    real: RealDigits,
    extractor: Extractor,
    settings: EvaluationSettings,
) -> Evaluation:
    """Measures candidate, baseline and floor, and decides.

    Raises:
      ValueError: for pictures of another kind, or features that are NaN or infinite.
    """
    seed, count = settings.seed, settings.samples
    reference = study(real, extractor)
    training = observe_real(len(candidate.images), count, reference, extractor, seed)
    # Which digits are among the training digits chosen was chance, so it is not fixed.
    chance = np.zeros(len(training.features), int)
    floor = measure(training, reference, _halves(chance, settings))
    floor = with_ratio(floor, floor)
    halves = _halves(candidate.strata, settings)
    observed = observe(candidate, count, reference, extractor, seed)
    measured = with_ratio(measure(observed, reference, halves), floor)
    figures, floors = measured.estimates(), floor.estimates()
    others: dict[str, Estimate] = {}
    differences: dict[str, Estimate] = {}
    if baseline.samples is not None:
        served = observe(baseline.samples, count, reference, extractor, seed)
        served_measured = with_ratio(measure(served, reference, halves), floor)
        others, differences = served_measured.estimates(), difference(measured, served_measured)
    if settings.deep:
        figures |= measure_deep(observed.samples, real, seed)
        floors |= measure_deep(training.samples, real, seed)
        if baseline.samples is not None:
            others |= measure_deep(served.samples, real, seed)
    checks = [
        *check_thresholds(figures, settings.thresholds),
        *check_baseline(differences, others, settings.tolerances),
    ]
    content = {
        "schema_version": document.SCHEMA_VERSION,
        "verdict": document.verdict_section(checks),
        "checks": document.checks_section(checks),
        "figures": document.figures_section(figures, floors, others, differences),
        "digits": document.digits_section(observed, reference),
        "baseline": document.baseline_section(baseline),
        "samples": len(observed.seen),
        "seed": seed,
    }
    return Evaluation(content, checks, observed, reference)


def _halves(strata: np.ndarray, settings: EvaluationSettings) -> list[np.ndarray]:
    """Half-samples that hold half of the samples for all figures, and half of those for FID."""
    further = np.arange(len(strata)) >= settings.samples
    return half_samples(strata + 100 * further, settings.resamples, settings.seed)
