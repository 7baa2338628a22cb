"""What open-source Kubeflow Pipelines v2 does not run, seen in a compiled spec.

Each check names the place in the backend's source (`backend/src/v2/` of kubeflow/pipelines) for
which it is there. Importing this does not import TFX.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

SCHEMA_VERSION = "2.1.0"
# compiler/argocompiler/argo.go, templateName: ids become Argo's names as they are.
NODE_ID = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]{0,127}")


class SpecError(ValueError):
    """A pipeline, a spec, a parameter or a pipeline root that the backend does not take."""


def raise_for(problems: Sequence[str]) -> None:
    """Raises SpecError where there are problems."""
    if problems:
        raise SpecError("\n".join(["Kubeflow Pipelines would not run this:", *problems]))


def check_spec(spec: dict[str, Any]) -> None:
    """Refuses a compiled spec that `kfp`'s messages do not hold or the backend does not run.

    Raises:
      SpecError: naming every task and reason.
    """
    parsed = pipeline_spec_pb2.PipelineSpec()
    try:
        json_format.ParseDict(spec, parsed)
        deployment = json_format.ParseDict(
            spec.get("deploymentSpec", {}), pipeline_spec_pb2.PipelineDeploymentConfig()
        )
    except json_format.ParseError as error:
        raise SpecError(f"this is no pipeline spec: {error}") from None
    problems = []
    if parsed.schema_version != SCHEMA_VERSION:
        problems.append(
            f"schema version {parsed.schema_version!r}, and the backend takes {SCHEMA_VERSION} only"
        )
    if not parsed.root.dag.tasks:
        problems.append("the spec has no tasks")
    for name, task in sorted(parsed.root.dag.tasks.items()):
        problems += [f"{name}: {problem}" for problem in _of_task(name, task, parsed, deployment)]
    raise_for(problems)


def _of_task(name: str, task: Any, spec: Any, deployment: Any) -> Iterator[str]:
    if not NODE_ID.fullmatch(name):
        yield "a task's name may hold letters, digits and dashes only, 128 at most"
    tasks = spec.root.dag.tasks
    producers = [
        *task.dependent_tasks,
        *(each.task_output_artifact.producer_task for each in task.inputs.artifacts.values()),
        *(each.task_output_parameter.producer_task for each in task.inputs.parameters.values()),
    ]
    for producer in dict.fromkeys(producers):
        if producer and producer not in tasks:
            yield f"unknown producer task {producer!r}"
    if task.trigger_policy.condition:
        yield "conditions are not supported"
    if task.HasField("parameter_iterator") or task.HasField("artifact_iterator"):
        yield "iterators are not supported"
    component = spec.components.get(task.component_ref.name)
    if component is None or not component.executor_label:
        yield "nested pipelines are not supported"
        return
    executor = deployment.executors.get(component.executor_label)
    kind = executor.WhichOneof("spec") if executor is not None else None
    if kind != "container":
        yield f"an executor of the kind {kind or 'none'} is not run by the backend"
    # driver and compiler never read it
    elif executor.container.lifecycle.HasField("pre_cache_check"):
        yield "lifecycle.preCacheCheck is ignored by the backend"
