"""The artifact that says that data may be trained on, and what is in it."""

import json
import os
from typing import Any

from tfx import v1 as tfx
from tfx.v1.dsl.io import fileio

BLESSING_FILE = "data_blessing.json"
STATISTICS_FOLDER = "data_statistics"
STATISTICS_FILES = ("statistics.pb", "class_means.npy", "data.json")


class DataBlessing(tfx.dsl.Artifact):
    """Emitted by DataGate for data that may be trained on.

    Holds `data_blessing.json`, which says what was compared, and `data_statistics/`, which goes
    with a generator that is pushed, so that the next data can be compared with what it was made of.
    """

    TYPE_NAME = "components.DataBlessing"


def read_blessing(blessing: Any) -> dict[str, Any]:
    """What the gate wrote down; `components/data_gate/executor.py` says what is in it."""
    with fileio.open(os.path.join(blessing.uri, BLESSING_FILE)) as file:
        return json.load(file)


def statistics_files(blessing: Any) -> dict[str, bytes]:
    """The content of `data_statistics/`, by path relative to a pushed version's `assets.extra/`."""
    contents = {}
    for name in STATISTICS_FILES:
        with fileio.open(os.path.join(blessing.uri, STATISTICS_FOLDER, name), "rb") as file:
            contents[f"{STATISTICS_FOLDER}/{name}"] = file.read()
    return contents
