"""What a warm start begins with, for the cache."""

import os
from pathlib import Path
from typing import Any

from models.gan.warm_start import read_origin
from registry.layout import TRAINING_STATE, newest_version, version_dir
from registry.records import read_card


def training_start(base: Path, train: dict[str, Any], fingerprint: str) -> str:
    """Names the state that a warm start begins with; "" where there is none.

    A training that was pushed is the newest version when its run is repeated. What it began with is
    in that version's state, and so the training still stands.

    Args:
      base: with a folder per version, named by its number; need not exist.
      train: the settings of the training, as JSON.
      fingerprint: of the digits that it is trained on.
    """
    version = newest_version(base)
    if version is None:
        return ""
    folder = version_dir(base, version)
    digest, origin = read_origin(os.path.join(folder, TRAINING_STATE))
    card = read_card(folder)
    made_of = (card.data.fingerprint, card.settings.get("train"))
    return (origin or "") if made_of == (fingerprint, train) else digest
