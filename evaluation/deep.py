"""The figures that train a network for each set of pictures."""

from evaluation.metric_table import Estimate
from evaluation.observation import RealDigits
from evaluation.sampling import Samples
from evaluation.trained import classification_accuracy, two_sample_accuracy
from models.digit_classifier.settings import ClassifierSettings


def measure_deep(samples: Samples, real: RealDigits, seed: int) -> dict[str, Estimate]:
    """Trains a network to tell samples from the eval split, and one on what they teach.

    Returns:
      `two_sample_accuracy` and, when digits were asked for, `classification_accuracy`; the latter
      without an interval.
    """
    told = two_sample_accuracy(samples.images, real.eval, seed=seed)
    figures = {"two_sample_accuracy": Estimate(told.accuracy, told.interval)}
    if samples.asked is not None:
        taught = classification_accuracy(
            samples.images,
            samples.asked,
            real.eval,
            real.eval_labels,
            seed=seed,
            steps=ClassifierSettings().steps,
        )
        figures["classification_accuracy"] = Estimate(taught, None)
    return figures
