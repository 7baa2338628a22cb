"""The table of metrics: the one place that names, describes, directs and bounds each.

To add a metric, add a row to `METRICS` and a function to `metrics/`. The settings
`evaluation.thresholds` and `evaluation.tolerances`, `evaluation.json`, the report, the model card,
the output of `local_runner.py` and `docs/metrics.md` are made from the rows; the last one by
`python -m evaluation.metric_table > docs/metrics.md`.
"""

import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from metrics import diversity, labels
from metrics.frechet import Gaussian, fit_gaussian, gaussian_distance

if TYPE_CHECKING:
    from evaluation.image_statistics import ReferenceStatistics, SampleStatistics

Compute = Callable[["SampleStatistics", "ReferenceStatistics", np.ndarray], float]
Requirement = Literal["labels", "test split", "deep"]


@dataclass(frozen=True)
class Metric:
    """A row of the table.

    Attributes:
      name: key of the metric in settings, documents and ML Metadata.
      title: heading in reports and on the terminal.
      description: what is measured, with its source.
      unit: unit or range of the value.
      direction: `lower` or `higher` is better; None for a metric that only informs.
      compute: function of the statistics of a set of images, the reference statistics and rows
        int [m] of the set; None for a metric that `measurement.py` derives from another metric, or
        for which `deep.py` trains a network.
      threshold: default of `evaluation.thresholds`; None for no bound.
      tolerance: how much worse than the served model's it may be; None for no bound.
      in_feature_units: whether the value depends on the scale of the classifier's features. Such a
        metric has no threshold, which would mean something else for each classifier, and its
        tolerance, a share of the served model's value, is a setting of `evaluation.tolerances`.
      limits: lowest and highest value that is possible.
      requires: what the metric needs besides images: `labels` (a conditional generator), a
        `test split`, or `deep` (the setting `evaluation.deep`).
      uses_all_samples: computed on `evaluation.fid_samples` images, if these are more than
        `evaluation.samples`.
    """

    name: str
    title: str
    description: str
    unit: str
    direction: Literal["lower", "higher"] | None
    compute: Compute | None = None
    threshold: float | None = None
    tolerance: float | None = None
    in_feature_units: bool = False
    limits: tuple[float, float] = (0, math.inf)
    requires: tuple[Requirement, ...] = ()
    uses_all_samples: bool = False

    @property
    def is_bounded(self) -> bool:
        """Whether the metric has a setting in `evaluation.thresholds`."""
        return self.direction is not None and not self.in_feature_units

    @property
    def is_comparable(self) -> bool:
        """Whether a candidate is compared with the served model by this metric."""
        return self.compute is not None and self.direction is not None

    def accepts(self, value: float, threshold: float) -> bool:
        """Whether a value is as good as a threshold or better; False for NaN."""
        return value >= threshold if self.direction == "higher" else value <= threshold


def _fid(images: "SampleStatistics", real: Gaussian, rows: np.ndarray) -> float:
    return gaussian_distance(fit_gaussian(images.features[rows]), real)


def _test_fid(images: "SampleStatistics", real: "ReferenceStatistics", rows: np.ndarray) -> float:
    assert real.test_gaussian is not None
    return _fid(images, real.test_gaussian, rows)


def _lowest_class_share(
    images: "SampleStatistics", real: "ReferenceStatistics", rows: np.ndarray
) -> float:
    known = real.class_shares > 0
    shares = labels.class_shares(images.logits[rows])
    return float((shares[known] / real.class_shares[known]).min())


def _lowest_conditional_accuracy(
    images: "SampleStatistics", real: "ReferenceStatistics", rows: np.ndarray
) -> float:
    confusion = labels.confusion_matrix(images.labels[rows], images.logits[rows])
    return float(np.nanmin(labels.class_accuracy(confusion)))


def _neighbor_distance(
    images: "SampleStatistics", real: "ReferenceStatistics", rows: np.ndarray
) -> float:
    of_real = float(np.median(real.nearest.distances))
    return float(np.median(images.nearest.distances[rows])) / max(of_real, 1e-12)


def _intensity_difference(
    images: "SampleStatistics", real: "ReferenceStatistics", rows: np.ndarray
) -> float:
    return abs(float(images.intensity[rows].mean()) / max(real.mean_intensity, 1e-12) - 1)


def _sharpness_difference(
    images: "SampleStatistics", real: "ReferenceStatistics", rows: np.ndarray
) -> float:
    sharpness = images.variation[rows].sum() / max(images.intensity[rows].sum(), 1.0)
    return abs(float(sharpness) / max(real.sharpness, 1e-12) - 1)


_ANY = (-math.inf, math.inf)
_SHARE = (0, 1)

_ROWS = (
    Metric(
        name="fid",
        title="FID",
        description="Frechet distance to the eval split in classifier features (Heusel et al. "
        "2017)",
        unit="squared feature units",
        direction="lower",
        compute=lambda images, real, rows: _fid(images, real.gaussian, rows),
        tolerance=0.03,
        in_feature_units=True,
        uses_all_samples=True,
    ),
    Metric(
        name="fid_ratio",
        title="FID / floor",
        description="FID divided by the FID of as many real training images, which does not "
        "depend on the scale of the features",
        unit="multiple of the floor",
        direction="lower",
        threshold=10.0,
    ),
    Metric(
        name="test_fid",
        title="FID, test split",
        description="Frechet distance to the fixed test split, if the data have one",
        unit="squared feature units",
        direction="lower",
        compute=_test_fid,
        tolerance=0.2,
        in_feature_units=True,
        requires=("test split",),
        uses_all_samples=True,
    ),
    Metric(
        name="test_fid_ratio",
        title="FID / floor, test split",
        description="test-split FID divided by the FID of as many real training images",
        unit="multiple of the floor",
        direction="lower",
        requires=("test split",),
    ),
    Metric(
        name="fid_infinity",
        title="FID, infinite samples",
        description="FID extrapolated to infinitely many samples (Chong and Forsyth 2020)",
        unit="squared feature units",
        direction="lower",
        in_feature_units=True,
        limits=_ANY,
    ),
    Metric(
        name="kid",
        title="KID",
        description="kernel distance to the eval split in classifier features, unbiased: about 0 "
        "at best, below 0 by chance (Binkowski et al. 2018)",
        unit="kernel units",
        direction="lower",
        compute=lambda images, real, rows: float(images.kernel.influence[rows].mean()),
        in_feature_units=True,
        limits=_ANY,
    ),
    Metric(
        name="classifier_score",
        title="Classifier score",
        description="Inception Score (Salimans et al. 2016) with the digit classifier",
        unit="classes, 1 to 10",
        direction="higher",
        compute=lambda images, real, rows: labels.classifier_score(images.logits[rows]),
        tolerance=0.1,
        limits=(1, 10),
    ),
    Metric(
        name="precision",
        title="Precision",
        description="generated images inside the real manifold, 3 neighbors (Kynkaanniemi et al. "
        "2019)",
        unit="share of generated images",
        direction="higher",
        compute=lambda images, real, rows: images.overlap.precision(rows),
        threshold=0.5,
        tolerance=0.03,
        limits=_SHARE,
    ),
    Metric(
        name="recall",
        title="Recall",
        description="real images inside the generated manifold, 3 neighbors (Kynkaanniemi et al. "
        "2019)",
        unit="share of real images",
        direction="higher",
        compute=lambda images, real, rows: images.overlap.recall(rows),
        threshold=0.3,
        tolerance=0.03,
        limits=_SHARE,
    ),
    Metric(
        name="density",
        title="Density",
        description="real 5-neighbor balls around a generated image (Naeem et al. 2020)",
        unit="multiple of real images'",
        direction="higher",
        compute=lambda images, real, rows: images.overlap.mean_density(rows),
        tolerance=0.1,
    ),
    Metric(
        name="coverage",
        title="Coverage",
        description="real images with a generated image in their 5-neighbor ball (Naeem et al. "
        "2020)",
        unit="share of real images",
        direction="higher",
        compute=lambda images, real, rows: images.overlap.coverage(rows),
        threshold=0.3,
        tolerance=0.03,
        limits=_SHARE,
    ),
    Metric(
        name="class_share_distance",
        title="Class share distance",
        description="total variation distance of the predicted labels from the labels of the data",
        unit="share of generated images",
        direction="lower",
        compute=lambda images, real, rows: labels.total_variation_distance(
            labels.class_shares(images.logits[rows]), real.class_shares
        ),
        threshold=0.08,
        tolerance=0.01,
        limits=_SHARE,
    ),
    Metric(
        name="lowest_class_share",
        title="Lowest class share",
        description="share of a predicted label divided by its share in the data, of the label "
        "for which it is lowest",
        unit="multiple of the data's share",
        direction="higher",
        compute=_lowest_class_share,
        threshold=0.5,
        tolerance=0.1,
        limits=_SHARE,
    ),
    Metric(
        name="conditional_accuracy",
        title="Conditional accuracy",
        description="generated images whose predicted label is their label",
        unit="share of generated images",
        direction="higher",
        compute=lambda images, real, rows: labels.conditional_accuracy(
            images.labels[rows], images.logits[rows]
        ),
        threshold=0.95,
        tolerance=0.01,
        limits=_SHARE,
        requires=("labels",),
    ),
    Metric(
        name="lowest_conditional_accuracy",
        title="Lowest conditional accuracy",
        description="conditional accuracy of the label for which it is lowest",
        unit="share of the label's images",
        direction="higher",
        compute=_lowest_conditional_accuracy,
        threshold=0.85,
        tolerance=0.03,
        limits=_SHARE,
        requires=("labels",),
    ),
    Metric(
        name="lowest_class_diversity",
        title="Lowest class diversity",
        description="feature variance within a class divided by the variance of real images, of "
        "the class for which it is lowest",
        unit="multiple of real images'",
        direction="higher",
        compute=lambda images, real, rows: diversity.lowest_class_diversity(
            images.features[rows], images.predicted[rows], real.class_variance
        ),
        threshold=0.3,
        tolerance=0.1,
    ),
    Metric(
        name="nearest_neighbor_distance",
        title="Nearest-neighbor distance",
        description="median pixel distance to the nearest training image of the class, divided by "
        "the distance of the eval split",
        unit="multiple of real images'",
        direction=None,
        compute=_neighbor_distance,
    ),
    Metric(
        name="memorization_rate",
        title="Memorization rate",
        description="generated images nearer to a training image, in pixels, than 99 % of the eval "
        "images of the class",
        unit="share of generated images",
        direction="lower",
        compute=lambda images, real, rows: float(images.is_memorized[rows].mean()),
        threshold=0.1,
        tolerance=0.02,
        limits=_SHARE,
    ),
    Metric(
        name="mean_intensity_difference",
        title="Mean intensity difference",
        description="relative difference of the mean intensity from the eval split's",
        unit="share of the eval split's",
        direction="lower",
        compute=_intensity_difference,
        threshold=0.3,
        tolerance=0.05,
    ),
    Metric(
        name="sharpness_difference",
        title="Sharpness difference",
        description="relative difference of total variation per intensity from the eval split's",
        unit="share of the eval split's",
        direction="lower",
        compute=_sharpness_difference,
        threshold=0.5,
        tolerance=0.05,
    ),
    Metric(
        name="two_sample_accuracy",
        title="Two-sample test accuracy",
        description="accuracy of a network trained to tell generated from real images, 0.5 at best "
        "(Lopez-Paz and Oquab 2017)",
        unit="share of test images",
        direction="lower",
        limits=_SHARE,
        requires=("deep",),
    ),
    Metric(
        name="classification_accuracy_score",
        title="Classification accuracy score",
        description="accuracy on real images of a classifier trained on generated images (Ravuri "
        "and Vinyals 2019)",
        unit="share of real images",
        direction="higher",
        limits=_SHARE,
        requires=("labels", "deep"),
    ),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ROWS}


def as_markdown() -> str:
    """Returns the page `docs/metrics.md`."""
    signs = {"lower": "↓", "higher": "↑", None: ""}
    lines = [
        "# Metrics",
        "",
        "Reference, generated: `python -m evaluation.metric_table > docs/metrics.md`.",
        "",
        "↓: lower is better, ↑: higher is better. Thresholds and tolerances are defaults:",
        "[evaluation.md](evaluation.md#the-decision).",
        "",
    ]
    for metric in METRICS.values():
        threshold = "" if metric.threshold is None else f"{metric.threshold:g}"
        tolerance = "" if metric.tolerance is None else f"{metric.tolerance:g}"
        tolerance += " of the value" if tolerance and metric.in_feature_units else ""
        needs = f" (needs: {', '.join(metric.requires)})" if metric.requires else ""
        bounds = f" Threshold {threshold}." if threshold else ""
        bounds += f" Tolerance {tolerance}." if tolerance else ""
        entry = f"- `{metric.name}` {signs[metric.direction]} {metric.description}{needs}."
        entry += f" Unit: {metric.unit}.{bounds}"
        lines += textwrap.wrap(" ".join(entry.split()), 118, subsequent_indent="  ")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
