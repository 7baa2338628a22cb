"""Runs the probe on the exported model in a fresh process."""

import os
import subprocess
import sys
from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import path_utils
from tfx.v1.dsl.io import fileio

_PROBE = os.path.join(os.path.dirname(__file__), "probe.py")


class NotServableError(RuntimeError):
    """The exported model does not load or does not keep to the serving contract."""


class Executor(base_executor.BaseExecutor):
    """Emits an InfraBlessing, or fails and says what the probe saw."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Loads the model without this project's code on the path and calls each signature.

        Args:
          input_dict: `model`, one Model.
          output_dict: `blessing`, one InfraBlessing.
          exec_properties: `timeout_seconds`.

        Raises:
          NotServableError: when the probe fails or does not end in time.
        """
        model = artifact_utils.get_single_instance(input_dict["model"])
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        probe(path_utils.serving_model_path(model.uri), exec_properties["timeout_seconds"])
        blessing.set_int_custom_property("blessed", 1)
        with fileio.open(os.path.join(blessing.uri, "INFRA_BLESSED"), "w") as file:
            file.write("")


def probe(model_dir: str, timeout_seconds: float) -> None:
    """Runs `probe.py` on a SavedModel; see `Executor.Do` for what it raises."""
    try:
        # -I: neither the working directory nor PYTHONPATH is on the probe's path.
        result = subprocess.run(
            [sys.executable, "-I", _PROBE, model_dir],
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotServableError(
            f"the model in {model_dir} was not loaded and called within {timeout_seconds:g} s "
            "(serving_check.timeout_seconds)"
        ) from None
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
        raise NotServableError(f"the model in {model_dir} cannot be served: {lines[-1]}")
