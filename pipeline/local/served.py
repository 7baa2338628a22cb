"""What is being served, as far as a training or an evaluation depends on it."""

import filecmp
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.gan.warm_start import read_origin
from models.versions import newest_version

_CARD = Path("assets.extra") / "model_card.json"


def baseline_version(serving_dir: Path, model_dir: Path) -> str:
    """The newest version that is not this model itself; "" where there is none.

    A model that was blessed and pushed is the newest version when the run is repeated. What it was
    compared with is the one before, and so the evaluation that blessed it still stands.

    Args:
      serving_dir: with a folder per version, named by its number; need not exist.
      model_dir: a SavedModel.
    """
    if not serving_dir.is_dir():
        return ""
    names = [path.name for path in serving_dir.iterdir() if path.name.isdecimal()]
    others = (name for name in sorted(names, key=int, reverse=True))
    return next((name for name in others if not _holds(serving_dir / name, model_dir)), "")


def data_baseline_version(serving_dir: Path, fingerprints: Sequence[str]) -> str:
    """The newest version that was made of other data; "" where there is none.

    Args:
      serving_dir: as for `baseline_version`.
      fingerprints: of the spans at hand.
    """
    if not serving_dir.is_dir():
        return ""
    names = [path.name for path in serving_dir.iterdir() if path.name.isdecimal()]
    for name in sorted(names, key=int, reverse=True):
        if _data_behind(serving_dir / name) != list(fingerprints):
            return name
    return ""


def _data_behind(version: Path) -> list[str] | None:
    """Fingerprints of the spans that a version was made of; None where it does not say."""
    path = version / "assets.extra" / "data_statistics" / "data.json"
    try:
        return [span["fingerprint"] for span in json.loads(path.read_text())["spans"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def training_start(serving_dir: Path, train: dict[str, Any], fingerprint: str) -> str:
    """Names the state that a warm start goes on from; "" where there is none.

    A training that was pushed is the newest version when its run is repeated. What it began from is
    what that version's state says, and so the training still stands.

    Args:
      serving_dir: with a folder per version, named by its number; need not exist.
      train: the settings of the training, as JSON.
      fingerprint: of the digits that it is trained on.
    """
    version = newest_version(str(serving_dir))
    if version is None:
        return ""
    digest, origin = read_origin(str(serving_dir), version)
    try:
        card = json.loads((serving_dir / version / _CARD).read_text())
        repeated = (card["data"]["fingerprint"], card["settings"]["train"]) == (fingerprint, train)
    except (OSError, ValueError, LookupError, TypeError):
        repeated = False
    return (origin or "") if repeated else digest


def _holds(version: Path, model_dir: Path) -> bool:
    """Whether every file of the model is in the version, byte for byte."""
    files = [str(path.relative_to(model_dir)) for path in model_dir.rglob("*") if path.is_file()]
    same, _, _ = filecmp.cmpfiles(version, model_dir, files, shallow=False)
    return bool(files) and len(same) == len(files)
