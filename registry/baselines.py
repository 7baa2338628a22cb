"""Which version a new model, or new data, are compared with."""

import os
from collections.abc import Sequence

from registry.integrity import fingerprint, intact_versions, model_of, read_files
from registry.layout import list_versions, version_address
from registry.records import data_fingerprints

_Base = str | os.PathLike[str]


def model_baseline(base: _Base, model_dir: _Base) -> int | None:
    """The newest intact version with another model than this one; None where there is none.

    A model that was blessed and pushed is the newest version when its run is repeated. What it was
    compared with is the version before, and so the evaluation that blessed it still stands.

    Args:
      base: path or URI of the folder that is watched; it need not exist.
      model_dir: path or URI of a SavedModel.
    """
    model = fingerprint(read_files(model_dir))
    versions = intact_versions(base)
    return next((v for v in versions if model_of(version_address(base, v)) != model), None)


def data_baseline(base: _Base, fingerprints: Sequence[str]) -> int | None:
    """The newest version made of other data than these, or of unknown data; None for none.

    Args:
      base: path or URI of the folder that is watched; it need not exist.
      fingerprints: of the spans at hand.
    """
    for version in reversed(list_versions(base)):
        if data_fingerprints(version_address(base, version)) != list(fingerprints):
            return version
    return None
