"""What is looked at of real digits and of samples, before any figure is computed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evaluation.sampling import Samples
from metrics import diversity
from metrics import images as pictures
from metrics.distances import Nearest, nearest_pictures
from metrics.frechet import Gaussian, fit_gaussian
from metrics.kernel import KernelDistance, kernel_distance
from metrics.manifold import Overlap, RealManifold, overlap, real_manifold

# uint8 [n, 28, 28, 1] -> features float32 [n, d], logits float32 [n, 10].
Extractor = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

# A sample that lies nearer to a training digit than all but this share of the eval digits of its
# kind is a near-copy; so real digits themselves have this share.
_NEAR = 0.01


@dataclass(frozen=True)
class RealDigits:
    """The splits: images uint8 [n, 28, 28, 1] and labels int [n].

    Attributes:
      eval: the reference: held out of the data that the candidate was trained on.
      test: the same digits in every run; None where the data have no such split.
    """

    train: np.ndarray
    train_labels: np.ndarray
    eval: np.ndarray
    eval_labels: np.ndarray
    test: np.ndarray | None = None

    @property
    def shares(self) -> np.ndarray:
        """Of the digits 0..9, float64 [10]; of both splits, as a small one has others by chance."""
        digits = np.concatenate([self.train_labels, self.eval_labels])
        return np.bincount(digits, minlength=10) / len(digits)


@dataclass(frozen=True)
class Reference:
    """What real digits are like; see `metrics/` for each."""

    real: RealDigits
    features: np.ndarray
    gaussian: Gaussian
    test_gaussian: Gaussian | None
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
        test_gaussian=_fit_test(real.test, extractor),
        manifold=real_manifold(features),
        shares=real.shares,
        spread=diversity.class_spread(features, seen),
        ink=float(ink.mean()),
        edges=float(pictures.variation(real.eval).sum() / max(ink.sum(), 1.0)),
        nearest=nearest,
        near=near,
        is_near=nearest.distances <= near[seen],
    )


def _fit_test(images: np.ndarray | None, extractor: Extractor) -> Gaussian | None:
    if images is None:
        return None
    pictures.require_pictures("test split", images, fewest=10)
    return fit_gaussian(extractor(images)[0])


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
