"""The baseline: the served generator, which a candidate is compared with."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from errors import UserError
from evaluation.sampling import GRID_LABELS, Generator, GeneratorError, Samples
from registry.integrity import newest_intact_version
from registry.layout import newest_version, version_address


class BrokenBaselineError(UserError):
    """The served model cannot be loaded, and `evaluation.broken_baseline` is `fail`."""


@dataclass(frozen=True)
class Baseline:
    """The newest served version, and its samples.

    Attributes:
      status: `none`, `measured`, `unloadable`, or `unchanged` if it has the candidate's weights
        and signatures and generates the same images.
      message: the status in a sentence.
      version: number of the version; None if nothing is served.
      path: its folder or URI.
      samples: of the labels and seeds of the candidate's samples; None unless it is `measured`.
      grid: samples for `GRID_LABELS`; None unless it is `measured`.
    """

    status: Literal["none", "measured", "unloadable", "unchanged"]
    message: str
    version: str | None = None
    path: str | None = None
    samples: Samples | None = None
    grid: Samples | None = None


def find_baseline(
    serving_dir: str,
    labels: np.ndarray,
    candidate: Samples,
    seed: int,
    broken: str,
    *,
    identity: str,
) -> Baseline:
    """Samples from the newest version whose files are those that were pushed.

    Args:
      serving_dir: folder or URI with a folder per version, named by its number, as TensorFlow
        Serving watches it. It need not exist; "" if nothing is served.
      labels: int [n], 0 to 9.
      candidate: the candidate's samples of these labels.
      seed: seed of the first sample.
      broken: `fail` or `ignore`, what to do if the version cannot be loaded.
      identity: of the candidate, as `Generator` has it.

    Raises:
      BrokenBaselineError: If the version cannot be loaded, and `broken` is `fail`.
    """
    newest, intact = newest_version(serving_dir), newest_intact_version(serving_dir)
    if intact is None:
        found = "No model is served yet" if newest is None else f"Version {newest} was altered"
        return Baseline("none", f"{found}, so the thresholds alone decide.")
    version, path = str(intact), version_address(serving_dir, intact)
    try:
        generator = Generator(path)
        samples, grid = generator.sample(labels, seed), generator.sample(GRID_LABELS, seed)
    except GeneratorError as error:
        if broken == "fail":
            raise BrokenBaselineError(
                f"the served model cannot be loaded, so the candidate cannot be compared with it: "
                f"{error.what}",
                error.where,
                "remove that version, or evaluate without it: "
                "--set evaluation.broken_baseline=ignore",
            ) from None
        message = f"The served model cannot be loaded and was not compared with: {error}"
        return Baseline("unloadable", message, version, path)
    if generator.identity == identity and (samples.images == candidate.images).all():
        return Baseline("unchanged", f"Version {version} is this model already.", version, path)
    message = f"Compared with version {version}."
    return Baseline("measured", message, version, path, samples, grid)
