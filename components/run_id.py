"""The id of the run that an executor works for."""

from collections.abc import Mapping
from typing import Any

from tfx.dsl.components.base import base_executor


def run_id(executor: base_executor.BaseExecutor, exec_properties: Mapping[str, Any]) -> str | None:
    """Returns the id that Kubeflow gives as a parameter, else the orchestrator's; None for none."""
    given = exec_properties.get("run_id")
    return given or (executor._context.pipeline_run_id if executor._context else None)
