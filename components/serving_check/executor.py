"""Runs the probe on the exported model in a fresh process, within limits."""

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

import psutil
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import path_utils

import storage
from components.serving_check.settings import ServingCheckSettings
from errors import UserError

_PROBE = os.path.join(os.path.dirname(__file__), "probe.py")
TIMEOUT_SECONDS = 300.0
_POLL_SECONDS = 0.1


class NotServableError(UserError):
    """The exported model does not load or does not keep to the serving contract."""


def _not_servable(model_dir: str, reason: str) -> NotServableError:
    return NotServableError(
        f"the model cannot be served, and is not pushed: {reason}",
        model_dir,
        "export it with export_generator of models/gan/export.py, which keeps to the contract in "
        "docs/serving-contract.md",
    )


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
        """Loads the model as TensorFlow Serving does, and calls each signature.

        The process that does it has none of this project's code on its path.

        Args:
          input_dict: `model`, one Model.
          output_dict: `blessing`, one InfraBlessing; its custom properties are `blessed` and what
            the probe measured.
          exec_properties: `settings`, ServingCheckSettings as JSON.

        Raises:
          NotServableError: when the probe fails, or goes beyond one of the limits.
        """
        model = artifact_utils.get_single_instance(input_dict["model"])
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        model_dir = path_utils.serving_model_path(model.uri)
        settings = ServingCheckSettings.model_validate_json(exec_properties["settings"])
        measured = probe(model_dir, settings.memory_gib)
        allowed = settings.max_latency_ms
        if measured["latency_ms"] > allowed:
            raise _not_servable(
                model_dir,
                f"serving_default takes {measured['latency_ms']:.0f} ms for one image, and "
                f"{allowed:g} are allowed (serving_check.max_latency_ms)",
            )
        blessing.set_int_custom_property("blessed", 1)
        for name, value in measured.items():
            blessing.set_float_custom_property(name, value)
        storage.write(os.path.join(blessing.uri, "INFRA_BLESSED"), json.dumps(measured).encode())


def probe(
    model_dir: str, memory_gib: float, timeout_seconds: float = TIMEOUT_SECONDS
) -> dict[str, float]:
    """Runs `probe.py` on a SavedModel.

    Its resident memory is watched, not limited: TensorFlow reserves far more address space than it
    ever uses, and the kernel limits address space or nothing.

    Returns:
      What `probe.check` measured, and `peak_gib`, the largest resident memory that was seen.

    Raises:
      NotServableError: when the probe fails, or goes beyond one of the limits.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            # -I: neither the working directory nor PYTHONPATH is on the probe's path.
            [sys.executable, "-I", _PROBE, model_dir],
            stdout=stdout,
            stderr=stderr,
            # On the CPU, where the export computed the responses that the probe compares; a GPU
            # rounds otherwise, and this process may hold all of its memory.
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
        )
        try:
            peak = _watch(process, model_dir, timeout_seconds, memory_gib)
        finally:
            process.kill()
            process.wait()
        printed, logged = _read_lines(stdout), _read_lines(stderr)
    found = json.loads(printed[-1]) if printed else {}
    if process.returncode:
        last = logged[-1] if logged else f"exit status {process.returncode}"
        raise _not_servable(model_dir, found.get("error", last))
    return found | {"peak_gib": peak}


def _read_lines(file: IO[bytes]) -> list[str]:
    file.seek(0)
    return file.read().decode(errors="replace").strip().splitlines()


def _watch(
    process: subprocess.Popen, model_dir: str, timeout_seconds: float, memory_gib: float
) -> float:
    """Waits for the end; the peak of the resident memory, GiB."""
    watched, peak, end = psutil.Process(process.pid), 0.0, time.monotonic() + timeout_seconds
    while process.poll() is None:
        peak = max(peak, watched.memory_info().rss / 2**30)
        if peak > memory_gib:
            raise _not_servable(
                model_dir,
                f"it took {peak:.1f} GiB when it was loaded and called, and {memory_gib:g} are "
                "allowed (serving_check.memory_gib)",
            )
        if time.monotonic() > end:
            raise _not_servable(
                model_dir,
                f"it was not loaded and called within {timeout_seconds:g} s",
            )
        time.sleep(_POLL_SECONDS)
    return peak
