"""Statistics of the data behind the generator that is served, read from where it is served."""

from collections.abc import Sequence
from typing import NamedTuple

from components.data_gate.statistics import DataStatistics
from registry.baselines import data_baseline
from registry.layout import version_address
from registry.records import read_statistics


class Served(NamedTuple):
    """What new data are compared with.

    Attributes:
      message: what was found, in a sentence.
      version: whose data they are; None where there is none to compare with.
      statistics: of its data; None where there is none to compare with.
    """

    message: str
    version: str | None = None
    statistics: DataStatistics | None = None


def find_served(serving_dir: str, fingerprints: Sequence[str]) -> Served:
    """Reads the newest version that was made of other data than these.

    Args:
      serving_dir: folder or URI with a folder per version, named by its number; "" for none.
      fingerprints: of the spans at hand.

    Raises:
      OSError: the store does not say.
    """
    version = data_baseline(serving_dir, fingerprints)
    if version is None:
        return Served("No generator of other data is served, so there is no drift to measure.")
    contents = read_statistics(version_address(serving_dir, version))
    if contents is None:
        return Served(f"Version {version} has no statistics of its data to compare with.")
    try:
        found = DataStatistics.of_files(contents)
    except ValueError as error:
        return Served(f"Not compared with version {version}: {error}")
    return Served(f"Compared with the data behind version {version}.", str(version), found)
