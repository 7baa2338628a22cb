"""What is being served, as far as an evaluation depends on it."""

import filecmp
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


def _holds(version: Path, model_dir: Path) -> bool:
    """Whether every file of the model is in the version, byte for byte."""
    files = [str(path.relative_to(model_dir)) for path in model_dir.rglob("*") if path.is_file()]
    same, _, _ = filecmp.cmpfiles(version, model_dir, files, shallow=False)
    return bool(files) and len(same) == len(files)
