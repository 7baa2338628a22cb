"""The generator that is being served, which a candidate has to match."""

from dataclasses import dataclass

import numpy as np

from components.generator_evaluator.samples import SHOWN, Generator, GeneratorError, Samples
from registry.integrity import newest_intact_version
from registry.layout import newest_version, version_address


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
    """Draws from the newest version whose files are those that were pushed.

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
    newest, intact = newest_version(serving_dir), newest_intact_version(serving_dir)
    if intact is None:
        found = "No model is served yet" if newest is None else f"Version {newest} was altered"
        return Baseline("none", f"{found}, so the thresholds alone decide.")
    version, path = str(intact), version_address(serving_dir, intact)
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
