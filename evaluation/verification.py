"""What a served version is verified with: its first samples, measured once more by themselves.

The same seeds and digits give the same images wherever a version is served, so what the evaluator
measured on the first samples has to come out again. The metrics of the whole evaluation do not
serve for that: FID depends on the number of samples. The pusher puts the files of the folder
`FOLDER` beside the model, so that a version can be verified when the run's artifacts are gone.
"""

import io
import os
from dataclasses import dataclass

import numpy as np

import storage
from evaluation.image_statistics import ReferenceStatistics, SampleStatistics
from evaluation.sampling import ANY_DIGIT
from metrics.frechet import Gaussian, fit_gaussian, gaussian_distance
from metrics.labels import conditional_accuracy

MOST_SAMPLES = 2000
FOLDER = "verification"
CLASSIFIER = "classifier"  # a SavedModel, in that folder
_FILE = "samples.npz"


@dataclass(frozen=True)
class VerificationSet:
    """The samples of a verification, and the real images that they are compared with.

    Attributes:
      digits: int64 [n], what the generator is called with, beside consecutive seeds from
        `evaluate.SEED`; all `ANY_DIGIT` for an unconditional generator.
      gaussian: fitted to the features of the eval split.
    """

    digits: np.ndarray
    gaussian: Gaussian

    @classmethod
    def of(cls, candidate: SampleStatistics, reference: ReferenceStatistics) -> "VerificationSet":
        """Takes the first samples of an evaluation."""
        samples = candidate.samples.head(MOST_SAMPLES)
        labels = np.full(len(samples.images), ANY_DIGIT)
        digits = labels if samples.labels is None else samples.labels
        return cls(digits.astype(np.int64), reference.gaussian)

    @classmethod
    def read(cls, folder: str) -> "VerificationSet":
        """Reads what `write` wrote into a folder, a local path or URI.

        Raises:
          OSError: when the file is missing or cannot be read.
        """
        content = storage.read(os.path.join(folder, _FILE))
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return cls(arrays["digits"], Gaussian(arrays["mean"], arrays["covariance"]))

    def write(self, folder: str, classifier_dir: str) -> None:
        """Writes the set and a copy of the classifier.

        Args:
          folder: local path or URI.
          classifier_dir: path or URI of the classifier's SavedModel.
        """
        packed = io.BytesIO()
        np.savez_compressed(packed, digits=self.digits, **self.gaussian._asdict())
        storage.write(os.path.join(folder, _FILE), packed.getvalue())
        for path in storage.files_in(classifier_dir):
            content = storage.read(os.path.join(classifier_dir, path))
            storage.write(os.path.join(folder, CLASSIFIER, path), content)

    def measure(self, features: np.ndarray, logits: np.ndarray) -> dict[str, float]:
        """Computes the metrics of images, `fid` and, for a conditional generator, one of labels.

        Args:
          features: float32 [n, d], of the classifier.
          logits: float32 [n, 10].

        Returns:
          Metrics by their name in the metric table.
        """
        found = {"fid": gaussian_distance(fit_gaussian(features), self.gaussian)}
        if (self.digits != ANY_DIGIT).all():
            found["conditional_accuracy"] = conditional_accuracy(self.digits, logits)
        return found
