"""Runs the probe on the exported model in a fresh process, within limits."""

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import psutil
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import path_utils
from tfx.v1.dsl.io import fileio

_PROBE = os.path.join(os.path.dirname(__file__), "probe.py")
_POLL_SECONDS = 0.1


class NotServableError(RuntimeError):
    """The exported model does not load or does not keep to the serving contract."""


class Executor(base_executor.BaseExecutor):
    """Emits an InfraBlessing, or fails and says what the probe saw.

    A model that cannot be served is a defect of the code and not a matter of quality, so unlike
    TFX's InfraValidator this stops the run, where somebody sees it.
    """

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Loads the model without this project's code on the path and calls each signature.

        Args:
          input_dict: `model`, one Model.
          output_dict: `blessing`, one InfraBlessing; its custom properties are `blessed` and what
            the probe measured.
          exec_properties: `timeout_seconds`, `memory_gib`, `max_latency_ms`.

        Raises:
          NotServableError: when the probe fails, or goes beyond one of the limits.
        """
        model = artifact_utils.get_single_instance(input_dict["model"])
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        model_dir = path_utils.serving_model_path(model.uri)
        measured = probe(
            model_dir, exec_properties["timeout_seconds"], exec_properties["memory_gib"]
        )
        allowed = exec_properties["max_latency_ms"]
        if measured["latency_ms"] > allowed:
            raise NotServableError(
                f"the model in {model_dir} takes {measured['latency_ms']:.0f} ms for one picture, "
                f"and {allowed:g} are allowed (serving_check.max_latency_ms)"
            )
        blessing.set_int_custom_property("blessed", 1)
        for name, value in measured.items():
            blessing.set_float_custom_property(name, value)
        with fileio.open(os.path.join(blessing.uri, "INFRA_BLESSED"), "w") as file:
            json.dump(measured, file)


def probe(model_dir: str, timeout_seconds: float, memory_gib: float) -> dict[str, float]:
    """Runs `probe.py` on a SavedModel.

    Its resident memory is watched, not limited: TensorFlow reserves far more address space than it
    ever uses, and the kernel limits address space or nothing.

    Returns:
      What `probe.check` measured, and `peak_gib`, the largest resident memory that was seen.

    Raises:
      NotServableError: when the probe fails, or goes beyond one of the limits.
    """
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        # -I: neither the working directory nor PYTHONPATH is on the probe's path.
        process = subprocess.Popen(
            [sys.executable, "-I", _PROBE, model_dir], stdout=said, stderr=complained
        )
        try:
            peak = _watch(process, model_dir, timeout_seconds, memory_gib)
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        complained.seek(0)
        if process.returncode:
            lines = complained.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit status {process.returncode}"
            raise NotServableError(f"the model in {model_dir} cannot be served: {reason}")
        return json.loads(said.read().splitlines()[-1]) | {"peak_gib": peak}


def _watch(
    process: subprocess.Popen, model_dir: str, timeout_seconds: float, memory_gib: float
) -> float:
    """Waits for the end; the peak of the resident memory, GiB."""
    watched, peak, end = psutil.Process(process.pid), 0.0, time.monotonic() + timeout_seconds
    while process.poll() is None:
        peak = max(peak, watched.memory_info().rss / 2**30)
        if peak > memory_gib:
            raise NotServableError(
                f"the model in {model_dir} took {peak:.1f} GiB when it was loaded and called, and "
                f"{memory_gib:g} are allowed (serving_check.memory_gib)"
            )
        if time.monotonic() > end:
            raise NotServableError(
                f"the model in {model_dir} was not loaded and called within {timeout_seconds:g} s "
                "(serving_check.timeout_seconds)"
            )
        time.sleep(_POLL_SECONDS)
    return peak
