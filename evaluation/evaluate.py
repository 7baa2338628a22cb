"""Measures candidate, baseline and real digits, and decides."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation import document
from evaluation.baseline import Baseline
from evaluation.decision import Check, check_baseline, check_thresholds
from evaluation.deep import measure_deep
from evaluation.metric_table import Estimate, difference, measure, with_ratios
from evaluation.observation import (
    Extractor,
    Observed,
    RealDigits,
    Reference,
    observe,
    observe_real,
    study,
)
from evaluation.sampling import Samples
from evaluation.settings import EvaluationSettings
from metrics.resampling import half_samples


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
    reference = study(real, extractor)
    sets = _look(candidate, baseline, reference, extractor, settings)
    # Which digits are among the training digits chosen was chance, so it is not fixed.
    strata = dict.fromkeys(sets, candidate.strata) | {"floor": np.zeros(len(real.train), int)}
    measured = {
        name: measure(seen, reference, _halves(strata[name][: len(seen.features)], settings))
        for name, seen in sets.items()
    }
    measured = {name: with_ratios(each, measured["floor"]) for name, each in measured.items()}
    figures: dict[str, dict[str, Estimate]] = {"baseline": {}}
    for name, each in measured.items():
        deep = measure_deep(sets[name].samples, real, settings.seed) if settings.deep else {}
        figures[name] = each.estimates() | deep
    served = measured.get("baseline")
    differences = difference(measured["candidate"], served) if served else {}
    checks = [
        *check_thresholds(figures["candidate"], settings.thresholds),
        *check_baseline(differences, figures["baseline"], settings.tolerances),
    ]
    seen = sets["candidate"]
    content = {
        "schema_version": document.SCHEMA_VERSION,
        "verdict": document.verdict_section(checks),
        "checks": document.checks_section(checks),
        "figures": document.figures_section(
            figures["candidate"], figures["floor"], figures["baseline"], differences
        ),
        "digits": document.digits_section(seen, reference),
        "baseline": document.baseline_section(baseline),
        "samples": len(seen.seen),
        "seed": settings.seed,
    }
    return Evaluation(content, checks, seen, reference)


def _look(
    candidate: Samples,
    baseline: Baseline,
    reference: Reference,
    extractor: Extractor,
    settings: EvaluationSettings,
) -> dict[str, Observed]:
    """What is seen of `candidate` and `floor`, and of `baseline` where there is one."""
    count, seed = settings.samples, settings.seed
    samples = {"candidate": candidate}
    if baseline.samples is not None:
        samples["baseline"] = baseline.samples
    sets = {name: observe(x, count, reference, extractor, seed) for name, x in samples.items()}
    floor = observe_real(len(candidate.images), count, reference, extractor, seed)
    return sets | {"floor": floor}


def _halves(strata: np.ndarray, settings: EvaluationSettings) -> list[np.ndarray]:
    """Half-samples that hold half of the samples for all figures, and half of those for FID."""
    further = np.arange(len(strata)) >= settings.samples
    return half_samples(strata + 100 * further, settings.resamples, settings.seed)
