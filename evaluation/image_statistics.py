"""Statistics of real and generated images, from which every metric is computed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evaluation.sampling import Samples
from metrics import diversity
from metrics.distances import Nearest, nearest_images
from metrics.frechet import Gaussian, fit_gaussian
from metrics.images import require_images, total_intensity, total_variation
from metrics.kernel import KernelDistance, kernel_distance
from metrics.manifold import Overlap, RealManifold, overlap, real_manifold

# uint8 [n, 28, 28, 1] -> features float32 [n, d], logits float32 [n, 10].
Extractor = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

# A sample counts as memorized if it is nearer to a training image than all but this share of the
# eval images of its class. So this is the memorization rate of real images.
_MEMORIZATION_QUANTILE = 0.01
_FEWEST_IMAGES = 10


@dataclass(frozen=True)
class RealDigits:
    """The splits: images uint8 [n, 28, 28, 1] and labels int [n].

    Attributes:
      train: what the candidate was trained on.
      eval: the reference of every metric; disjoint from `train`.
      test: images that are the same in every run; None if the data have no test split.
    """

    train: np.ndarray
    train_labels: np.ndarray
    eval: np.ndarray
    eval_labels: np.ndarray
    test: np.ndarray | None = None

    @property
    def class_shares(self) -> np.ndarray:
        """Share of each label in train and eval split together, float64 [10]."""
        labels = np.concatenate([self.train_labels, self.eval_labels])
        return np.bincount(labels, minlength=10) / len(labels)


@dataclass(frozen=True)
class ReferenceStatistics:
    """Statistics of real images, of the eval split unless an attribute says otherwise.

    Attributes:
      real: the images.
      features: float32 [n, d].
      gaussian: fitted to `features`.
      test_gaussian: fitted to the features of the test split; None without one.
      manifold: of `features`.
      class_shares: float64 [10], of the labels of both splits.
      class_variance: float64 [10], feature variance within each class.
      mean_intensity: mean of the total intensity of an image.
      sharpness: total variation per intensity.
      nearest: nearest training image of each eval image.
      memorization_distances: float64 [10], by class, the distance below which a generated image
        counts as memorized.
      is_memorized: bool [n], whether an eval image would count as memorized.
    """

    real: RealDigits
    features: np.ndarray
    gaussian: Gaussian
    test_gaussian: Gaussian | None
    manifold: RealManifold
    class_shares: np.ndarray
    class_variance: np.ndarray
    mean_intensity: float
    sharpness: float
    nearest: Nearest
    memorization_distances: np.ndarray
    is_memorized: np.ndarray


@dataclass(frozen=True)
class SampleStatistics:
    """Statistics of each image of a set; a metric is computed from some of the rows.

    Attributes:
      features: float32 [N, d], of all samples.
      samples: the first n samples, which every further attribute describes.
      logits: float32 [n, 10].
      predicted: int [n], the predicted labels.
      overlap: of the features with the real manifold.
      kernel: kernel distance to the real features.
      intensity: float64 [n], total intensity.
      variation: float64 [n], total variation.
      nearest: nearest training images.
      is_memorized: bool [n], whether the nearest training image is too near.
    """

    features: np.ndarray
    samples: Samples
    logits: np.ndarray
    predicted: np.ndarray
    overlap: Overlap
    kernel: KernelDistance
    intensity: np.ndarray
    variation: np.ndarray
    nearest: Nearest
    is_memorized: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Labels of the samples, int [n]; only for metrics that require labels."""
        assert self.samples.labels is not None
        return self.samples.labels


def reference_statistics(real: RealDigits, extractor: Extractor) -> ReferenceStatistics:
    """Computes the statistics of real images.

    Raises:
      ValueError: If a split has another dtype or shape or fewer than ten images, or features are
        NaN or infinite.
    """
    require_images("train split", real.train, _FEWEST_IMAGES)
    require_images("eval split", real.eval, _FEWEST_IMAGES)
    features, logits = extractor(real.eval)
    predicted = logits.argmax(axis=1)
    nearest = nearest_images(real.eval, predicted, real.train, real.train_labels)
    limits = np.zeros(10)
    for digit in np.unique(predicted):
        own = nearest.distances[predicted == digit]
        limits[digit] = np.quantile(own, _MEMORIZATION_QUANTILE)
    intensity = total_intensity(real.eval)
    return ReferenceStatistics(
        real=real,
        features=features,
        gaussian=fit_gaussian(features),
        test_gaussian=_fit_test(real.test, extractor),
        manifold=real_manifold(features),
        class_shares=real.class_shares,
        class_variance=diversity.class_variance(features, predicted),
        mean_intensity=float(intensity.mean()),
        sharpness=float(total_variation(real.eval).sum() / max(intensity.sum(), 1.0)),
        nearest=nearest,
        memorization_distances=limits,
        is_memorized=nearest.distances <= limits[predicted],
    )


def _fit_test(images: np.ndarray | None, extractor: Extractor) -> Gaussian | None:
    if images is None:
        return None
    require_images("test split", images, _FEWEST_IMAGES)
    return fit_gaussian(extractor(images)[0])


def sample_statistics(
    samples: Samples, count: int, reference: ReferenceStatistics, extractor: Extractor, seed: int
) -> SampleStatistics:
    """Computes the features of all samples, and the other statistics of the first `count`.

    Raises:
      ValueError: If the samples have another dtype or shape or are fewer than ten, or features or
        logits are NaN or infinite.
    """
    real = reference.real
    features, logits = _extract(samples, extractor)
    first, predicted = samples.head(count), logits[:count].argmax(axis=1)
    nearest = nearest_images(first.images, predicted, real.train, real.train_labels)
    is_memorized = nearest.distances <= reference.memorization_distances[predicted]
    return _statistics(first, features, logits[:count], reference, seed, nearest, is_memorized)


def floor_statistics(
    total: int, count: int, reference: ReferenceStatistics, extractor: Extractor, seed: int
) -> SampleStatistics:
    """Computes the statistics of up to `total` training images as if they were samples.

    Their metrics are the real-data baseline, or floor. The distances to training images are those
    of eval images, since a training image would be its own neighbor.
    """
    real = reference.real
    rows = np.random.default_rng(seed).permutation(len(real.train))[:total]
    samples = Samples(real.train[rows], real.train_labels[rows])
    features, logits = _extract(samples, extractor)
    first = samples.head(count)
    others = np.arange(len(first.images)) % len(real.eval)
    nearest = Nearest(*(values[others] for values in reference.nearest))
    is_memorized = reference.is_memorized[others]
    return _statistics(first, features, logits[:count], reference, seed, nearest, is_memorized)


def _extract(samples: Samples, extractor: Extractor) -> tuple[np.ndarray, np.ndarray]:
    require_images("samples", samples.images, _FEWEST_IMAGES)
    features, logits = extractor(samples.images)
    for name, values in (("features", features), ("logits", logits)):
        if not np.isfinite(values).all():
            raise ValueError(f"the classifier gives NaN or infinite {name} for the samples")
    return features, logits


def _statistics(
    samples: Samples,
    features: np.ndarray,
    logits: np.ndarray,
    reference: ReferenceStatistics,
    seed: int,
    nearest: Nearest,
    is_memorized: np.ndarray,
) -> SampleStatistics:
    first = features[: len(logits)]
    return SampleStatistics(
        features=features,
        samples=samples,
        logits=logits,
        predicted=logits.argmax(axis=1),
        overlap=overlap(first, reference.manifold),
        kernel=kernel_distance(first, reference.features, seed=seed),
        intensity=total_intensity(samples.images),
        variation=total_variation(samples.images),
        nearest=nearest,
        is_memorized=is_memorized,
    )
