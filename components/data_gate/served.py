"""Statistics of the data behind the generator that is served, read from where it is served."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import storage
from components.data_blessing import STATISTICS_FILES, STATISTICS_FOLDER
from components.data_gate.statistics import DataStatistics


class Served(NamedTuple):
    """What new data are compared with.

    Attributes:
      message: that in a sentence.
      version: None where there is none to compare with.
      statistics: None likewise.
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
      OSError, tf.errors.OpError: the store does not say.
    """
    names = storage.names_in(serving_dir) if serving_dir else []
    for version in sorted(filter(str.isdecimal, names), key=int, reverse=True):
        model = os.path.join(serving_dir, version, "saved_model.pb")
        if "://" in serving_dir and not storage.exists(model):
            continue  # a push that was cut off
        folder = os.path.join(serving_dir, version, "assets.extra", STATISTICS_FOLDER)
        paths = {name: os.path.join(folder, name) for name in STATISTICS_FILES}
        if not all(map(storage.exists, paths.values())):
            return Served(f"Version {version} has no statistics of its data to compare with.")
        try:
            found = DataStatistics.of_files({n: storage.read(path) for n, path in paths.items()})
        except ValueError as error:
            return Served(f"Not compared with version {version}: {error}")
        if found.fingerprints != list(fingerprints):
            return Served(f"Compared with the data behind version {version}.", version, found)
    return Served("No generator of other data is served, so there is no drift to measure.")
