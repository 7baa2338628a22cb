"""What is being served, as far as an evaluation depends on it."""

import filecmp
import json
from collections.abc import Sequence
from pathlib import Path


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


def _holds(version: Path, model_dir: Path) -> bool:
    """Whether every file of the model is in the version, byte for byte."""
    files = [str(path.relative_to(model_dir)) for path in model_dir.rglob("*") if path.is_file()]
    same, _, _ = filecmp.cmpfiles(version, model_dir, files, shallow=False)
    return bool(files) and len(same) == len(files)
