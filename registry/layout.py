"""Where things lie in a folder of versions, `<model name>/<version>/`; imports no TensorFlow.

TensorFlow Serving takes the children of that folder whose names are numbers for versions, and
serves the highest: https://www.tensorflow.org/tfx/serving/serving_config.
"""

import os
from pathlib import Path

MODEL_CARD = os.path.join("assets.extra", "model_card.json")
WARM_UP_REQUESTS = os.path.join("assets.extra", "tf_serving_warmup_requests")
_LARGEST = 2**63 - 1


def version_number(name: str) -> int | None:
    """Reads the name of a version's folder.

    Returns:
      The version, 0 to 2**63 - 1; None for a name that is no version: one with other characters
      than ASCII digits, or a number that TensorFlow Serving's int64 does not hold.
    """
    if not (name.isascii() and name.isdecimal() and len(name) <= len(str(_LARGEST))):
        return None
    number = int(name)
    return number if number <= _LARGEST else None


def list_versions(base: str | os.PathLike[str]) -> list[int]:
    """Lists the versions in a local folder, ascending.

    A version is a folder named as `version_number` reads it and as a push writes it, without
    leading zeros. Files and links are none.

    Args:
      base: the folder that is watched, `<model name>/`.

    Returns:
      The versions; none where there is no such folder.

    Raises:
      OSError: the folder cannot be listed.
    """
    try:
        with os.scandir(base) as entries:
            found = [
                number
                for entry in entries
                if (number := version_number(entry.name)) is not None
                and entry.name == str(number)
                and entry.is_dir(follow_symlinks=False)
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found)


def version_dir(base: str | os.PathLike[str], version: int) -> Path:
    """The folder of a version."""
    return Path(base, str(version))
