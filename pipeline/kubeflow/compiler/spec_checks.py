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

from errors import UserError
from parsing import parse_yaml

SCHEMA_VERSION = "2.1.0"
# compiler/argocompiler/argo.go, templateName: ids become Argo's names as they are.
NODE_ID = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]{0,127}")
# apiserver/template/v2_template.go, less the dots that it also takes.
PIPELINE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,126}[a-z0-9])?")
_PLACEHOLDER = re.compile(r"\{\{\$.*?\}\}")
# driver/resolve.go, resolveInputParameter: of a run, and only where they are the whole constant
_OF_A_RUN = {
    f"{{{{$.pipeline_{name}}}}}"
    for name in (
        *("job_name", "job_resource_name", "job_uuid", "task_name", "task_uuid"),
        *("job_create_time_utc", "job_schedule_time_utc"),
    )
}


class SpecError(UserError):
    """A pipeline, a spec, a parameter or a pipeline root that the backend does not take."""


def raise_for(problems: Sequence[str]) -> None:
    """Raises SpecError where there are problems."""
    if problems:
        raise SpecError("Kubeflow Pipelines would not run this", findings=problems)


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
    name = parsed.pipeline_info.name
    if not PIPELINE_NAME.fullmatch(name):
        problems.append(f"the pipeline's name {name!r} may hold only a-z, 0-9 and inner dashes")
    if not parsed.root.dag.tasks:
        problems.append("the spec has no tasks")
    problems += _of_dag(parsed.root, parsed, deployment, ())
    raise_for(problems)


def is_exit_task(task: Any) -> bool:
    """Whether a PipelineTaskSpec is to run however what it depends on ends."""
    strategies = pipeline_spec_pb2.PipelineTaskSpec.TriggerPolicy.TriggerStrategy
    return bool(task.trigger_policy.strategy == strategies.ALL_UPSTREAM_TASKS_COMPLETED)


def _of_dag(parent: Any, spec: Any, deployment: Any, inside: tuple[str, ...]) -> Iterator[str]:
    """Of the DAG of a component, which is inside the components of those names."""
    dag = parent.dag
    exit_tasks = {name for name, task in dag.tasks.items() if is_exit_task(task)}
    followed = [each for name in sorted(exit_tasks) for each in dag.tasks[name].dependent_tasks]
    for name, task in sorted(dag.tasks.items()):
        label = task.component_ref.name
        if label not in spec.components:
            yield f"{name}: there is no component {label!r}"
            continue
        if label in inside:
            yield f"{name}: the component {label!r} holds itself"
            continue
        component = spec.components[label]
        for problem in (*_of_task(name, task, component, dag), *_of_inputs(task, parent)):
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
            yield from _of_dag(component, spec, deployment, (*inside, label))
        else:
            for problem in _of_executor(component, deployment):
                yield f"{name}: {problem}"
    try:
        order_of(dag)
    except graphlib.CycleError as error:
        yield f"tasks depend on each other in a circle: {', '.join(error.args[1])}"
    if exit_tasks == set(dag.tasks) and (exit_tasks or inside):
        yield "a DAG without a task that is no exit task"


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
    if component.dag.outputs.artifacts or component.dag.outputs.parameters:
        yield "outputs of a nested pipeline are not supported"


def _of_inputs(task: Any, parent: Any) -> Iterator[str]:
    """Of a task in the DAG of `parent`: driver/resolve.go, resolveInputParameter and others."""
    for key, value in sorted(task.inputs.parameters.items()):
        kind = value.WhichOneof("kind")
        constant = value.runtime_value.constant.string_value
        if "{{$.pipeline_" in constant and constant not in _OF_A_RUN:
            yield f"the driver leaves {constant!r} of parameter {key!r} as it stands"
        if kind == "runtime_value" and value.runtime_value.WhichOneof("value") != "constant":
            yield f"parameter {key!r} is a runtime parameter, not a constant"
        known = parent.input_definitions.parameters
        if kind == "component_input_parameter" and value.component_input_parameter not in known:
            yield f"the DAG has no input parameter {value.component_input_parameter!r}"
    for key, artifact in sorted(task.inputs.artifacts.items()):
        if artifact.WhichOneof("kind") != "task_output_artifact":
            yield f"input artifact {key!r} is not another task's output, which is not supported"


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
        yield from _of_container(executor.container)
        yield from _of_arguments(component, executor.container)


def _of_container(container: Any) -> Iterator[str]:
    # component/launcher_v2.go, NewLauncherV2: the launcher has nothing to run
    if not (*container.command, *container.args):
        yield "its container has no command"
    # driver/driver.go, initPodSpecPatch: the pod is started without what was asked for
    wanted = container.resources.accelerator
    if container.resources.HasField("accelerator") and not (wanted.type and wanted.count > 0):
        yield f"{wanted.count} accelerators of the type {wanted.type!r} are left out of the pod"


def _of_types(component: Any) -> Iterator[str]:
    artifacts = {**component.input_definitions.artifacts, **component.output_definitions.artifacts}
    for name, definition in sorted(artifacts.items()):
        schema = definition.artifact_type
        # metadata/client.go, SchemaToArtifactType: the launcher ends there
        if not schema.schema_title and not _title(schema.instance_schema):
            yield f"the type of the artifact {name!r} has no title"


def _title(schema: str) -> str | None:
    try:
        content = parse_yaml(schema)
    except (yaml.YAMLError, ValueError):
        return None
    return content.get("title") if isinstance(content, dict) else None


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
