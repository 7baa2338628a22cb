"""The generator that is being served, which a candidate has to match."""

import os
from dataclasses import dataclass

import numpy as np

from evaluation.sampling import SHOWN, Generator, GeneratorError, Samples
from models.versions import newest_version


class BrokenBaselineError(RuntimeError):
    """The model being served cannot be loaded, and the settings do not let that pass."""


@dataclass(frozen=True)
class Baseline:
    """What was found where models are served from.

    Attributes:
      status: `none`, `measured`, `unloadable`, or `unchanged` when it draws the very pictures of
        the candidate.
      message: that in a sentence.
      version: the newest; None when there is none.
      path: its folder or URI.
      samples: of the same digits and seeds as the candidate's; None unless it is `measured`.
      shown: of the digits `SHOWN`, likewise.
    """

    status: str
    message: str
    version: str | None = None
    path: str | None = None
    samples: Samples | None = None
    shown: Samples | None = None


def find_baseline(
    serving_dir: str, asked: np.ndarray, candidate: Samples, seed: int, broken: str
) -> Baseline:
    """Draws from the newest version that is served.

    Args:
      serving_dir: folder or URI with a folder per version, named by its number, as TensorFlow
        Serving watches it. It need not exist; "" for nothing served.
      asked: digits int [n].
      candidate: drawn for these from `seed` on.
      seed: the first.
      broken: `fail` or `ignore`, for a version that cannot be loaded.

    Raises:
      BrokenBaselineError: for such a version, with `fail`.
    """
    version = newest_version(serving_dir)
    if version is None:
        return Baseline("none", "No model is served yet, so the thresholds alone decide.")
    path = os.path.join(serving_dir, version)
    try:
        generator = Generator(path)
        samples, shown = generator.draw(asked, seed), generator.draw(SHOWN, seed)
    except GeneratorError as error:
        if broken == "fail":
            raise BrokenBaselineError(
                f"the model being served cannot be loaded, so nothing can be compared with it: "
                f"{error}. Remove that version, or go on without it with "
                "--set evaluation.broken_baseline=ignore."
            ) from None
        message = f"The model being served cannot be loaded and was not compared with: {error}"
        return Baseline("unloadable", message, version, path)
    if (samples.images == candidate.images).all():
        return Baseline("unchanged", f"Version {version} is this model already.", version, path)
    message = f"Compared with version {version}."
    return Baseline("measured", message, version, path, samples, shown)
