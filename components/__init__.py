"""Custom TFX components, one package each, and the artifact types they emit.

A compiled pipeline names an artifact type as `components.<Class>` and imports it by that name. The
types are looked up on first use, so that importing a module from here does not import TFX.
"""

import importlib
from typing import Any

_ARTIFACT_MODULES = {
    "DataBlessing": "components.data_blessing",
    "EvaluationReport": "components.generator_evaluator.artifacts",
}


def __getattr__(name: str) -> Any:
    if name in _ARTIFACT_MODULES:
        return getattr(importlib.import_module(_ARTIFACT_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
