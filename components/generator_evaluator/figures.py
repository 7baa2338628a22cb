"""All figures of a generator against real digits: what each is and which way is better."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from components.generator_evaluator.samples import Samples
from models.metrics import labels, pictures, variety
from models.metrics.distances import Nearest, nearest_pictures
from models.metrics.frechet import Gaussian, fit_gaussian, gaussian_distance
from models.metrics.kernel import KernelDistance, kernel_distance
from models.metrics.manifold import Overlap, RealManifold, overlap, real_manifold
from models.metrics.resampling import Interval, interval_of

# uint8 [n, 28, 28, 1] -> features float32 [n, d], logits float32 [n, 10].
Extractor = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

# A sample that lies nearer to a training digit than all but this share of the test digits of its
# kind is a near-copy; so real digits themselves have this share.
_NEAR = 0.01


class Estimate(NamedTuple):
    """A figure and its 95 % interval; None where there is none."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class RealDigits:
    """Both splits: images uint8 [n, 28, 28, 1] and labels int [n]; eval is the reference."""

    train: np.ndarray
    train_labels: np.ndarray
    eval: np.ndarray
    eval_labels: np.ndarray


@dataclass(frozen=True)
class Reference:
    """What real digits are like; see `models/metrics/` for each."""

    real: RealDigits
    features: np.ndarray
    gaussian: Gaussian
    manifold: RealManifold
    shares: np.ndarray
    spread: np.ndarray
    ink: float
    edges: float
    nearest: Nearest
    near: np.ndarray
    is_near: np.ndarray


@dataclass(frozen=True)
class Observed:
    """What is known of each picture of a set; figures are computed from some of its rows.

    Attributes:
      features: [N, d], of all samples that were drawn.
      samples: the first n of them; the following are of these.
    """

    features: np.ndarray
    samples: Samples
    logits: np.ndarray
    seen: np.ndarray
    overlap: Overlap
    kernel: KernelDistance
    ink: np.ndarray
    variation: np.ndarray
    nearest: Nearest
    is_near: np.ndarray

    @property
    def asked(self) -> np.ndarray:
        """The digits asked for, int [n]; for figures that are of conditional generators only."""
        assert self.samples.asked is not None
        return self.samples.asked


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
    """

    better: Literal["lower", "higher"] | None
    compute: Compute | None
    relative: bool = False
    conditional: bool = False
    wide: bool = False


def _fid(seen: Observed, real: Reference, rows: np.ndarray) -> float:
    return gaussian_distance(fit_gaussian(seen.features[rows]), real.gaussian)


def _shares(seen: Observed, rows: np.ndarray) -> np.ndarray:
    return labels.digit_shares(seen.logits[rows])


def _agreement(seen: Observed, real: Reference, rows: np.ndarray) -> float:
    return labels.agreement(seen.asked[rows], seen.logits[rows])


def _lowest_agreement(seen: Observed, real: Reference, rows: np.ndarray) -> float:
    counts = labels.confusion(seen.asked[rows], seen.logits[rows])
    return float(np.nanmin(labels.class_agreement(counts)))


def _nearest(seen: Observed, real: Reference, rows: np.ndarray) -> float:
    test = float(np.median(real.nearest.distances))
    return float(np.median(seen.nearest.distances[rows])) / max(test, 1e-12)


def _sharpness(seen: Observed, real: Reference, rows: np.ndarray) -> float:
    edges = seen.variation[rows].sum() / max(seen.ink[rows].sum(), 1.0)
    return abs(float(edges) / max(real.edges, 1e-12) - 1)


# `fid_ratio`, `fid_infinity` follow from `fid`; the last two are of `components/.../deep.py`.
FIGURES: Mapping[str, Figure] = {
    "fid": Figure("lower", _fid, relative=True, wide=True),
    "fid_ratio": Figure("lower", None),
    "fid_infinity": Figure("lower", None),
    "kid": Figure(
        "lower", lambda s, real, rows: float(s.kernel.influence[rows].mean()), relative=True
    ),
    "classifier_score": Figure(
        "higher", lambda s, real, rows: labels.classifier_score(s.logits[rows])
    ),
    "precision": Figure("higher", lambda s, real, rows: s.overlap.precision(rows)),
    "recall": Figure("higher", lambda s, real, rows: s.overlap.recall(rows)),
    "density": Figure("higher", lambda s, real, rows: s.overlap.mean_density(rows)),
    "coverage": Figure("higher", lambda s, real, rows: s.overlap.coverage(rows)),
    "digit_distance": Figure(
        "lower", lambda s, real, rows: labels.share_distance(_shares(s, rows), real.shares)
    ),
    "lowest_digit_share": Figure("higher", lambda s, real, rows: float(_shares(s, rows).min())),
    "agreement": Figure("higher", _agreement, conditional=True),
    "lowest_agreement": Figure("higher", _lowest_agreement, conditional=True),
    "lowest_class_spread": Figure(
        "higher",
        lambda s, real, rows: variety.lowest_relative_spread(
            s.features[rows], s.seen[rows], real.spread
        ),
    ),
    "nearest_distance": Figure(None, _nearest),
    "near_copies": Figure("lower", lambda s, real, rows: float(s.is_near[rows].mean())),
    "ink_difference": Figure(
        "lower", lambda s, real, rows: abs(float(s.ink[rows].mean()) / max(real.ink, 1e-12) - 1)
    ),
    "sharpness_difference": Figure("lower", _sharpness),
    "two_sample_accuracy": Figure("lower", None),
    "classification_accuracy": Figure("higher", None, conditional=True),
}


@dataclass(frozen=True)
class Measured:
    """Figures by name, and their values float64 [resamples] on each of the half-samples."""

    values: dict[str, float]
    draws: dict[str, np.ndarray]

    def estimates(self) -> dict[str, Estimate]:
        """Each with its interval."""
        return {
            name: Estimate(value, interval_of(value, self.draws[name]))
            for name, value in self.values.items()
        }


def study(real: RealDigits, extractor: Extractor) -> Reference:
    """Looks at the real digits.

    Raises:
      ValueError: for pictures of another kind, fewer than ten of a split, or features that are NaN
        or infinite.
    """
    pictures.require_pictures("train split", real.train, fewest=10)
    pictures.require_pictures("eval split", real.eval, fewest=10)
    features, logits = extractor(real.eval)
    seen = logits.argmax(axis=1)
    nearest = nearest_pictures(real.eval, seen, real.train, real.train_labels)
    near = np.array(
        [
            np.quantile(nearest.distances[seen == digit], _NEAR) if (seen == digit).any() else 0.0
            for digit in range(10)
        ]
    )
    ink = pictures.ink(real.eval)
    return Reference(
        real=real,
        features=features,
        gaussian=fit_gaussian(features),
        manifold=real_manifold(features),
        shares=np.bincount(real.eval_labels, minlength=10) / len(real.eval_labels),
        spread=variety.class_spread(features, seen),
        ink=float(ink.mean()),
        edges=float(pictures.variation(real.eval).sum() / max(ink.sum(), 1.0)),
        nearest=nearest,
        near=near,
        is_near=nearest.distances <= near[seen],
    )


def observe(
    samples: Samples, count: int, reference: Reference, extractor: Extractor, seed: int
) -> Observed:
    """Looks at each of the samples, more closely at the first `count`.

    Raises:
      ValueError: for pictures of another kind, fewer than ten, or features that are NaN or
        infinite.
    """
    real = reference.real
    features, logits = _extract(samples, extractor)
    first, seen = samples.head(count), logits[:count].argmax(axis=1)
    nearest = nearest_pictures(first.images, seen, real.train, real.train_labels)
    is_near = nearest.distances <= reference.near[seen]
    return _observe(first, features, logits[:count], reference, seed, nearest, is_near)


def observe_real(
    drawn: int, count: int, reference: Reference, extractor: Extractor, seed: int
) -> Observed:
    """Looks at up to `drawn` training digits as if they were samples, for the floor.

    Only the distances to training digits are those of the eval split, which is not among them.
    """
    real = reference.real
    rows = np.random.default_rng(seed).permutation(len(real.train))[:drawn]
    samples = Samples(real.train[rows], real.train_labels[rows])
    features, logits = _extract(samples, extractor)
    first = samples.head(count)
    others = np.arange(len(first.images)) % len(real.eval)
    nearest = Nearest(*(values[others] for values in reference.nearest))
    is_near = reference.is_near[others]
    return _observe(first, features, logits[:count], reference, seed, nearest, is_near)


def _extract(samples: Samples, extractor: Extractor) -> tuple[np.ndarray, np.ndarray]:
    pictures.require_pictures("samples", samples.images, fewest=10)
    features, logits = extractor(samples.images)
    for name, values in (("features", features), ("logits", logits)):
        if not np.isfinite(values).all():
            raise ValueError(f"the classifier gives NaN or infinite {name} for the samples")
    return features, logits


def _observe(
    samples: Samples,
    features: np.ndarray,
    logits: np.ndarray,
    reference: Reference,
    seed: int,
    nearest: Nearest,
    is_near: np.ndarray,
) -> Observed:
    first = features[: len(logits)]
    return Observed(
        features=features,
        samples=samples,
        logits=logits,
        seen=logits.argmax(axis=1),
        overlap=overlap(first, reference.manifold),
        kernel=kernel_distance(first, reference.features, seed=seed),
        ink=pictures.ink(samples.images),
        variation=pictures.variation(samples.images),
        nearest=nearest,
        is_near=is_near,
    )


def measure(observed: Observed, reference: Reference, halves: list[np.ndarray]) -> Measured:
    """Computes all figures but `fid_ratio` and those that train a network.

    Args:
      observed: of samples.
      reference: real digits.
      halves: rows of each half-sample, of all samples that were drawn.
    """
    count = len(observed.seen)
    values, draws = {}, {}
    for name, figure in FIGURES.items():
        if not figure.compute or (figure.conditional and observed.samples.asked is None):
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


def with_ratio(measured: Measured, floor: Measured) -> Measured:
    """Adds `fid_ratio`, the distance as a multiple of real training digits' own."""
    unit = max(floor.values["fid"], 1e-12)
    return Measured(
        measured.values | {"fid_ratio": measured.values["fid"] / unit},
        measured.draws | {"fid_ratio": measured.draws["fid"] / unit},
    )


def difference(candidate: Measured, baseline: Measured) -> dict[str, Estimate]:
    """Candidate minus baseline for each figure of both, on the same half-samples."""
    return {
        name: Estimate(gap, interval_of(gap, candidate.draws[name] - baseline.draws[name]))
        for name, value in candidate.values.items()
        if name in baseline.values
        for gap in [value - baseline.values[name]]
    }
