"""Evaluates a generator: samples, metrics, comparison with the served model, decision."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation import document
from evaluation.baseline import Baseline, find_baseline
from evaluation.decision import Check, check_baseline, check_thresholds
from evaluation.deep import measure_deep
from evaluation.image_statistics import (
    Extractor,
    RealDigits,
    ReferenceStatistics,
    SampleStatistics,
    floor_statistics,
    reference_statistics,
    sample_statistics,
)
from evaluation.measurement import difference, measure, with_ratios
from evaluation.sampling import GRID_LABELS, Generator, Samples
from evaluation.settings import EvaluationSettings
from evaluation.verification import VerificationSet
from metrics.labels import labels_in_shares
from metrics.resampling import Estimate, half_samples

SEED = 0  # of the first sample
RESAMPLES = 50  # half-samples per interval


@dataclass(frozen=True)
class Evaluation:
    """The outcome of an evaluation.

    Attributes:
      document: `evaluation.json` without `about`.
      checks: every bound that was checked.
      candidate: statistics of the candidate's samples.
      reference: statistics of the real images.
      verification: the candidate's first samples.
    """

    document: dict[str, Any]
    checks: list[Check]
    candidate: SampleStatistics
    reference: ReferenceStatistics
    verification: VerificationSet


def evaluate_model(
    model_dir: str,
    serving_dir: str,
    real: RealDigits,
    extractor: Extractor,
    settings: EvaluationSettings,
    *,
    latent: str,
) -> tuple[dict[str, Any], dict[str, np.ndarray], VerificationSet]:
    """Samples from a generator and from the served one, measures both, and decides.

    Args:
      model_dir: folder or URI of the candidate's SavedModel.
      serving_dir: folder or URI of the served versions; "" if nothing is served.
      real: real images.
      extractor: features and logits of the digit classifier.
      settings: number of samples and bounds.
      latent: `normal` or `uniform`, the distribution of the candidate's latents.

    Returns:
      `evaluation.json` without `about`, the arrays of `samples.npz`, and what the candidate can be
      verified with once it is served.

    Raises:
      GeneratorError: If the candidate does not fulfill the serving contract.
      BrokenBaselineError: If the served model cannot be loaded, and `evaluation.broken_baseline`
        is `fail`.
      ValueError: If features of the samples are NaN or infinite.
    """
    count = max(settings.samples, settings.fid_samples)
    labels = labels_in_shares(count, real.class_shares)
    generator = Generator(model_dir)
    candidate = generator.sample(labels, SEED)
    interpolation = generator.interpolate(latent, SEED)
    grid = generator.sample(GRID_LABELS, SEED)
    baseline = find_baseline(
        serving_dir,
        labels,
        candidate,
        SEED,
        settings.broken_baseline,
        identity=generator.identity,
    )
    result = evaluate(candidate, baseline, real, extractor, settings)
    arrays = document.image_arrays(
        result.candidate, result.reference, grid, baseline, interpolation
    )
    return result.document, arrays, result.verification


def evaluate(
    candidate: Samples,
    baseline: Baseline,
    real: RealDigits,
    extractor: Extractor,
    settings: EvaluationSettings,
) -> Evaluation:
    """Measures the samples of candidate and baseline and the real-data baseline, and decides.

    Raises:
      ValueError: If images have another dtype or shape, or features are NaN or infinite.
    """
    reference = reference_statistics(real, extractor)
    sets = _all_statistics(candidate, baseline, reference, extractor, settings)
    # The labels of the floor's training images were drawn at random, so they are not fixed.
    strata = dict.fromkeys(sets, candidate.strata) | {"floor": np.zeros(len(real.train), int)}
    measured = {
        name: measure(each, reference, _halves(strata[name][: len(each.features)], settings))
        for name, each in sets.items()
    }
    measured = {name: with_ratios(each, measured["floor"]) for name, each in measured.items()}
    estimates: dict[str, dict[str, Estimate]] = {"baseline": {}}
    for name, each in measured.items():
        deep = measure_deep(sets[name].samples, real, SEED) if settings.deep else {}
        estimates[name] = each.estimates() | deep
    served = measured.get("baseline")
    differences = difference(measured["candidate"], served) if served else {}
    checks = [
        *check_thresholds(estimates["candidate"], settings.thresholds),
        *check_baseline(differences, estimates["baseline"], settings.tolerances),
    ]
    verification = VerificationSet.of(sets["candidate"], reference)
    content = {
        "schema_version": document.SCHEMA_VERSION,
        "verdict": document.verdict_section(checks),
        "checks": document.checks_section(checks),
        "metrics": document.metrics_section(
            estimates["candidate"], estimates["floor"], estimates["baseline"], differences
        ),
        "classes": document.classes_section(sets["candidate"], reference),
        "baseline": document.baseline_section(baseline),
        "samples": len(sets["candidate"].predicted),
        "seed": SEED,
        "verification": document.verification_section(sets["candidate"], verification),
    }
    return Evaluation(content, checks, sets["candidate"], reference, verification)


def _all_statistics(
    candidate: Samples,
    baseline: Baseline,
    reference: ReferenceStatistics,
    extractor: Extractor,
    settings: EvaluationSettings,
) -> dict[str, SampleStatistics]:
    """Returns the statistics of `candidate`, `floor` and, if it has samples, `baseline`."""
    count, seed = settings.samples, SEED
    samples = {"candidate": candidate}
    if baseline.samples is not None:
        samples["baseline"] = baseline.samples
    sets = {
        name: sample_statistics(each, count, reference, extractor, seed)
        for name, each in samples.items()
    }
    floor = floor_statistics(len(candidate.images), count, reference, extractor, seed)
    return sets | {"floor": floor}


def _halves(strata: np.ndarray, settings: EvaluationSettings) -> list[np.ndarray]:
    """Draws half of the first `samples` rows, and half of the rows that only FID uses."""
    only_fid = np.arange(len(strata)) >= settings.samples
    return half_samples(strata + 100 * only_fid, RESAMPLES, SEED)
