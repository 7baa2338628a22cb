"""What open-source Kubeflow Pipelines v2 does not run, seen in a compiled spec.

Each check names the place in the backend's source (`backend/src/v2/` of kubeflow/pipelines) for
which it is there. Importing this does not import TFX.
"""

import graphlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

SCHEMA_VERSION = "2.1.0"
# compiler/argocompiler/argo.go, templateName: ids become Argo's names as they are.
NODE_ID = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]{0,127}")
_PLACEHOLDER = re.compile(r"\{\{\$.*?\}\}")
# driver/resolve.go, resolveInputParameter: of a run, and only where they are the whole constant
_OF_A_RUN = {
    f"{{{{$.pipeline_{name}}}}}"
    for name in (
        *("job_name", "job_resource_name", "job_uuid", "task_name", "task_uuid"),
        *("job_create_time_utc", "job_schedule_time_utc"),
    )
}


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
    problems += _of_dag(parsed.root.dag, parsed, deployment)
    raise_for(problems)


def is_exit_task(task: Any) -> bool:
    """Whether a PipelineTaskSpec is to run however what it depends on ends."""
    strategies = pipeline_spec_pb2.PipelineTaskSpec.TriggerPolicy.TriggerStrategy
    return bool(task.trigger_policy.strategy == strategies.ALL_UPSTREAM_TASKS_COMPLETED)


def _of_dag(dag: Any, spec: Any, deployment: Any) -> Iterator[str]:
    exit_tasks = {name for name, task in dag.tasks.items() if is_exit_task(task)}
    followed = [each for name in sorted(exit_tasks) for each in dag.tasks[name].dependent_tasks]
    for name, task in sorted(dag.tasks.items()):
        if task.component_ref.name not in spec.components:
            yield f"{name}: there is no component {task.component_ref.name!r}"
            continue
        component = spec.components[task.component_ref.name]
        for problem in _of_task(name, task, component, dag):
            yield f"{name}: {problem}"
        # compiler/argocompiler/dag.go: an exit task is a hook of each task it depends on, and a
        # task has one hook
        if name in exit_tasks and len(task.dependent_tasks) != 1:
            yield f"{name}: an exit task runs once for each task it depends on; give it just one"
        if followed.count(name) > 1:
            yield f"{name}: of several exit tasks after it, the backend runs one"
        for each in sorted(exit_tasks.intersection(producers_of(task))):
            yield f"{name}: nothing can depend on the exit task {each}"
        if component.HasField("dag"):
            yield from _of_dag(component.dag, spec, deployment)
        else:
            for problem in _of_executor(component, deployment):
                yield f"{name}: {problem}"
    try:
        order_of(dag)
    except graphlib.CycleError as error:
        yield f"tasks depend on each other in a circle: {', '.join(error.args[1])}"
    if exit_tasks and exit_tasks == set(dag.tasks):
        yield "a DAG of exit tasks only: there has to be something that they follow"


def order_of(dag: Any) -> list[str]:
    """The tasks of a DagSpec, each after those it waits for; raises graphlib.CycleError."""
    graph = {name: producers_of(task) for name, task in sorted(dag.tasks.items())}
    return list(graphlib.TopologicalSorter(graph).static_order())


def producers_of(task: Any) -> list[str]:
    """The tasks that a PipelineTaskSpec waits for: named, or producers of its inputs."""
    found = [
        *task.dependent_tasks,
        *(each.task_output_artifact.producer_task for each in task.inputs.artifacts.values()),
        *(each.task_output_parameter.producer_task for each in task.inputs.parameters.values()),
    ]
    return sorted({name for name in found if name})


def _of_task(name: str, task: Any, component: Any, dag: Any) -> Iterator[str]:
    if not NODE_ID.fullmatch(name):
        yield "a task's name may hold letters, digits and dashes only, 128 at most"
    for producer in producers_of(task):
        if producer not in dag.tasks:
            yield f"unknown producer task {producer!r}"
    if task.trigger_policy.condition:
        yield "conditions are not supported"
    if task.HasField("parameter_iterator") or task.HasField("artifact_iterator"):
        yield "iterators are not supported"
    for key, value in task.inputs.parameters.items():
        constant = value.runtime_value.constant.string_value
        if "{{$.pipeline_" in constant and constant not in _OF_A_RUN:
            yield f"the driver leaves {constant!r} of parameter {key!r} as it stands"
    if component.dag.outputs.artifacts or component.dag.outputs.parameters:
        yield "outputs of a nested pipeline are not supported"


def _of_executor(component: Any, deployment: Any) -> Iterator[str]:
    yield from _of_types(component)
    executor = deployment.executors.get(component.executor_label)
    kind = executor.WhichOneof("spec") if executor is not None else None
    if kind != "container":
        yield f"an executor of the kind {kind or 'none'} is not run by the backend"
    # driver and compiler never read it
    elif executor.container.lifecycle.HasField("pre_cache_check"):
        yield "lifecycle.preCacheCheck is ignored by the backend"
    else:
        yield from _of_arguments(component, executor.container)


def _of_types(component: Any) -> Iterator[str]:
    artifacts = {**component.input_definitions.artifacts, **component.output_definitions.artifacts}
    for name, definition in sorted(artifacts.items()):
        schema = definition.artifact_type
        # metadata/client.go, SchemaToArtifactType: the launcher ends there
        if not schema.schema_title and "title" not in (
            yaml.safe_load(schema.instance_schema) or {}
        ):
            yield f"the type of the artifact {name!r} has no title"


def _of_arguments(component: Any, container: Any) -> Iterator[str]:
    known = {"{{$}}"}
    for side in ("input", "output"):
        definitions = getattr(component, f"{side}_definitions")
        for name in definitions.artifacts:
            known |= {f"{{{{$.{side}s.artifacts['{name}'].{what}}}}}" for what in ("uri", "path")}
    known |= {f"{{{{$.inputs.parameters['{n}']}}}}" for n in component.input_definitions.parameters}
    for name in component.output_definitions.parameters:
        known.add(f"{{{{$.outputs.parameters['{name}'].output_file}}}}")
    # component/launcher_v2.go, getPlaceholders
    for word in (*container.command, *container.args):
        for placeholder in _PLACEHOLDER.findall(word):
            if placeholder not in known:
                yield f"the launcher leaves {placeholder} in an argument as it stands"
