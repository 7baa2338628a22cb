"""All figures of a generator against real digits: what each is and which way is better."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from evaluation.observation import Observed, Reference
from metrics import diversity, labels
from metrics.frechet import fit_gaussian, gaussian_distance
from metrics.resampling import Interval, interval_of


class Estimate(NamedTuple):
    """A figure and its 95 % interval; None where there is none."""

    value: float
    interval: Interval | None


Compute = Callable[[Observed, Reference, np.ndarray], float]


@dataclass(frozen=True)
class Figure:
    """A row of the table of figures.

    Attributes:
      better: the way in which a generator is better; None where neither is.
      compute: from a set, the reference and rows int [m] of the set.
      relative: its tolerance is a share of the baseline's value.
      conditional: only for generators that are asked for a digit.
      wide: from all samples that were drawn, not from the first n.
      tested: only where the data have a test split.
      limits: the lowest and the highest value that it can have.
    """

    better: Literal["lower", "higher"] | None
    compute: Compute | None
    relative: bool = False
    conditional: bool = False
    wide: bool = False
    tested: bool = False
    limits: tuple[float, float] = (0.0, np.inf)


def _fid(seen: Observed, real: Reference, rows: np.ndarray) -> float:
    return gaussian_distance(fit_gaussian(seen.features[rows]), real.gaussian)


def _test_fid(seen: Observed, real: Reference, rows: np.ndarray) -> float:
    assert real.test_gaussian is not None
    return gaussian_distance(fit_gaussian(seen.features[rows]), real.test_gaussian)


def _shares(seen: Observed, rows: np.ndarray) -> np.ndarray:
    return labels.digit_shares(seen.logits[rows])


def _agreement(seen: Observed, real: Reference, rows: np.ndarray) -> float:
    return labels.agreement(seen.asked[rows], seen.logits[rows])


def _lowest_share(seen: Observed, real: Reference, rows: np.ndarray) -> float:
    known = real.shares > 0
    return float((_shares(seen, rows)[known] / real.shares[known]).min())


def _lowest_agreement(seen: Observed, real: Reference, rows: np.ndarray) -> float:
    counts = labels.confusion(seen.asked[rows], seen.logits[rows])
    return float(np.nanmin(labels.class_agreement(counts)))


def _nearest(seen: Observed, real: Reference, rows: np.ndarray) -> float:
    test = float(np.median(real.nearest.distances))
    return float(np.median(seen.nearest.distances[rows])) / max(test, 1e-12)


def _spread(seen: Observed, real: Reference, rows: np.ndarray) -> float:
    return diversity.lowest_relative_spread(seen.features[rows], seen.seen[rows], real.spread)


def _ink(seen: Observed, real: Reference, rows: np.ndarray) -> float:
    return abs(float(seen.ink[rows].mean()) / max(real.ink, 1e-12) - 1)


def _sharpness(seen: Observed, real: Reference, rows: np.ndarray) -> float:
    edges = seen.variation[rows].sum() / max(seen.ink[rows].sum(), 1.0)
    return abs(float(edges) / max(real.edges, 1e-12) - 1)


_SHARE = (0.0, 1.0)

# Those without a way to compute them follow from a FID, or train a network (`deep.py`).
FIGURES: Mapping[str, Figure] = {
    "fid": Figure("lower", _fid, relative=True, wide=True),
    "fid_ratio": Figure("lower", None),
    "test_fid": Figure("lower", _test_fid, relative=True, wide=True, tested=True),
    "test_fid_ratio": Figure("lower", None, tested=True),
    "fid_infinity": Figure("lower", None, limits=(-np.inf, np.inf)),
    "kid": Figure(
        "lower",
        lambda s, real, rows: float(s.kernel.influence[rows].mean()),
        relative=True,
        limits=(-np.inf, np.inf),
    ),
    "classifier_score": Figure(
        "higher", lambda s, real, rows: labels.classifier_score(s.logits[rows]), limits=(1.0, 10.0)
    ),
    "precision": Figure("higher", lambda s, real, rows: s.overlap.precision(rows), limits=_SHARE),
    "recall": Figure("higher", lambda s, real, rows: s.overlap.recall(rows), limits=_SHARE),
    "density": Figure("higher", lambda s, real, rows: s.overlap.mean_density(rows)),
    "coverage": Figure("higher", lambda s, real, rows: s.overlap.coverage(rows), limits=_SHARE),
    "digit_distance": Figure(
        "lower",
        lambda s, real, rows: labels.share_distance(_shares(s, rows), real.shares),
        limits=_SHARE,
    ),
    "lowest_digit_share": Figure("higher", _lowest_share, limits=_SHARE),
    "agreement": Figure("higher", _agreement, conditional=True, limits=_SHARE),
    "lowest_agreement": Figure("higher", _lowest_agreement, conditional=True, limits=_SHARE),
    "lowest_class_spread": Figure("higher", _spread),
    "nearest_distance": Figure(None, _nearest),
    "near_copies": Figure(
        "lower", lambda s, real, rows: float(s.is_near[rows].mean()), limits=_SHARE
    ),
    "ink_difference": Figure("lower", _ink),
    "sharpness_difference": Figure("lower", _sharpness),
    "two_sample_accuracy": Figure("lower", None, limits=_SHARE),
    "classification_accuracy": Figure("higher", None, conditional=True, limits=_SHARE),
}


@dataclass(frozen=True)
class Measured:
    """Figures by name, and their values float64 [resamples] on each of the half-samples."""

    values: dict[str, float]
    draws: dict[str, np.ndarray]

    def estimates(self) -> dict[str, Estimate]:
        """Each with its interval, which keeps to the figure's limits."""
        return {
            name: Estimate(
                value,
                Interval(*np.clip(interval_of(value, self.draws[name]), *FIGURES[name].limits)),
            )
            for name, value in self.values.items()
        }


def measure(observed: Observed, reference: Reference, halves: list[np.ndarray]) -> Measured:
    """Computes all figures but ratios and those that train a network.

    Args:
      observed: of samples.
      reference: real digits.
      halves: rows of each half-sample, of all samples that were drawn.
    """
    count = len(observed.seen)
    values, draws = {}, {}
    for name, figure in FIGURES.items():
        absent = (figure.conditional and observed.samples.asked is None) or (
            figure.tested and reference.test_gaussian is None
        )
        if not figure.compute or absent:
            continue
        total = len(observed.features) if figure.wide else count
        values[name] = figure.compute(observed, reference, np.arange(total))
        draws[name] = np.array(
            [figure.compute(observed, reference, rows[rows < total]) for rows in halves]
        )
    # What is left out falls as 1 / n (Chong and Forsyth 2020), so from n / 2 to n by half.
    values["fid_infinity"] = 2 * values["fid"] - float(draws["fid"].mean())
    draws["fid_infinity"] = draws["fid"]
    return Measured(values, draws)


def with_ratios(measured: Measured, floor: Measured) -> Measured:
    """Adds each Frechet distance as a multiple of real training digits' own."""
    values, draws = dict(measured.values), dict(measured.draws)
    for name in ("fid", "test_fid"):
        if name in values:
            unit = max(floor.values[name], 1e-12)
            values[f"{name}_ratio"] = values[name] / unit
            draws[f"{name}_ratio"] = draws[name] / unit
    return Measured(values, draws)


def difference(candidate: Measured, baseline: Measured) -> dict[str, Estimate]:
    """Candidate minus baseline for each figure of both, on the same half-samples."""
    return {
        name: Estimate(gap, interval_of(gap, candidate.draws[name] - baseline.draws[name]))
        for name, value in candidate.values.items()
        if name in baseline.values
        for gap in [value - baseline.values[name]]
    }
