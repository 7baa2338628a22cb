"""The artifact that says that data may be trained on, and what is in it."""

import json
import os
from typing import Any

from tfx import v1 as tfx

import storage
from registry.layout import STATISTICS_FILES

BLESSING_FILE = "data_blessing.json"
STATISTICS_FOLDER = "data_statistics"


class DataBlessing(tfx.dsl.Artifact):
    """Emitted by DataGate for data that may be trained on.

    Holds `data_blessing.json`, which says what was compared, and `data_statistics/`, which goes
    with a generator that is pushed, so that the next data can be compared with what it was made of.
    """

    TYPE_NAME = "components.DataBlessing"


def read_blessing(blessing: Any) -> dict[str, Any]:
    """What the gate wrote down; `components/data_gate/executor.py` says what is in it."""
    return json.loads(storage.read(os.path.join(blessing.uri, BLESSING_FILE)))


def statistics_contents(blessing: Any) -> dict[str, bytes]:
    """The files in `data_statistics/`, content by the names in `STATISTICS_FILES`."""
    folder = os.path.join(blessing.uri, STATISTICS_FOLDER)
    return {name: storage.read(os.path.join(folder, name)) for name in STATISTICS_FILES}
