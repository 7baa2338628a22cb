"""Where things lie in a base, `<model name>/<version>/`; imports no TensorFlow.

TensorFlow Serving takes the children of that folder whose names are numbers for versions, and
serves the highest: https://www.tensorflow.org/tfx/serving/serving_config. It does not look into
`assets.extra/`.
"""

import os
from pathlib import Path

import storage

SAVED_MODEL = "saved_model.pb"
MODEL_CARD = os.path.join("assets.extra", "model_card.json")
MODEL_CARD_TEXT = os.path.join("assets.extra", "model_card.md")
PUSH_RECORD = os.path.join("assets.extra", "push.json")
# The state of the training behind the model, with which a warm start begins.
TRAINING_STATE = os.path.join("assets.extra", "training")
WARM_UP_REQUESTS = os.path.join("assets.extra", "tf_serving_warmup_requests")
# The statistics of the data behind the model, with which new data are compared.
DATA_STATISTICS = os.path.join("assets.extra", "data_statistics")
STATISTICS_FILES = ("statistics.pb", "class_means.npy", "data.json")
# The classifier and the samples with which a served version is verified.
VERIFICATION = os.path.join("assets.extra", "verification")
LARGEST_VERSION = 2**63 - 1


def version_number(name: str) -> int | None:
    """Reads the name of a version's folder.

    Returns:
      The version, 0 to 2**63 - 1; None for a name that is no version: one with other characters
      than ASCII digits, or a number that TensorFlow Serving's int64 does not hold.
    """
    if not (name.isascii() and name.isdecimal() and len(name) <= len(str(LARGEST_VERSION))):
        return None
    number = int(name)
    return number if number <= LARGEST_VERSION else None


def list_versions(base: str | os.PathLike[str]) -> list[int]:
    """Lists the versions in a base, ascending.

    In a local folder, a version is a folder named as `version_number` reads it and as a push writes
    it, without leading zeros; files and links are none. In an object store it also holds a
    `saved_model.pb`, which a push writes last.

    Args:
      base: local path or URI of the folder that is watched, `<model name>/`.

    Returns:
      The versions; none where there is no such folder.
    """
    address = os.fspath(base)
    if not storage.is_local(address):
        return [number for number in store_numbers(address) if is_complete(address, number)]
    try:
        with os.scandir(address) as entries:
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


def newest_version(base: str | os.PathLike[str]) -> int | None:
    """The highest version in a base, which a server loads; None where there is none."""
    address = os.fspath(base)
    if storage.is_local(address):
        return max(list_versions(address), default=None)
    numbers = reversed(store_numbers(address))
    return next((number for number in numbers if is_complete(address, number)), None)


def version_dir(base: str | os.PathLike[str], version: int) -> Path:
    """The folder of a version in a local base."""
    return Path(base, str(version))


def version_address(base: str | os.PathLike[str], version: int) -> str:
    """The local path or URI of a version's folder."""
    return os.path.join(os.fspath(base), str(version))


def store_numbers(base: str) -> list[int]:
    """The numbers in an object store, ascending, with those of pushes that were cut off."""
    numbers = map(version_number, storage.names_in(base))
    return sorted({number for number in numbers if number is not None})


def is_complete(base: str, version: int) -> bool:
    """Whether a version in an object store has the file that a push writes last."""
    return storage.exists(os.path.join(version_address(base, version), SAVED_MODEL))
