"""What open-source Kubeflow Pipelines v2 does not run, seen in a compiled spec.

Each check names the place in the backend's source (`backend/src/v2/` of kubeflow/pipelines) for
which it is there. Importing this does not import TFX.
"""

import graphlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from errors import UserError
from pipeline.kubeflow.compiler.executor_checks import of_executor
from pipeline.kubeflow.compiler.platform_spec import unknown_fields

SCHEMA_VERSION = "2.1.0"
# compiler/argocompiler/argo.go, templateName: ids become Argo's names as they are.
NODE_ID = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]{0,127}")
# apiserver/validation/: of a pipeline that is uploaded. A run takes longer names, and dots.
_PIPELINE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
# driver/resolve.go, resolveInputParameter: of a run, and only where they are the whole constant
_OF_A_RUN = {
    f"{{{{$.pipeline_{name}}}}}"
    for name in (
        *("job_name", "job_resource_name", "job_uuid", "task_name", "task_uuid"),
        *("job_create_time_utc", "job_schedule_time_utc"),
    )
}
# driver/resolve.go, handleParamTypeValidationAndConversion: what a constant of each kind may go to,
# besides STRING, which takes all.
_TYPES_OF_A_CONSTANT = {
    "number_value": ("NUMBER_INTEGER", "NUMBER_DOUBLE"),
    "bool_value": ("BOOLEAN",),
    "list_value": ("LIST",),
    "struct_value": ("STRUCT", "TASK_FINAL_STATUS", "TASK_CONFIG"),
}


class SpecError(UserError):
    """A pipeline, a spec, a parameter or a pipeline root that the backend does not take."""


def raise_for(problems: Sequence[str], where: str = "") -> None:
    """Raises SpecError where there are problems."""
    if problems:
        raise SpecError("Kubeflow Pipelines would not run this", where, findings=problems)


def check_spec(spec: dict[str, Any], platform: Mapping[str, Any], where: str = "") -> None:
    """Refuses a compiled spec that `kfp`'s messages do not hold or the backend does not run.

    Args:
      spec: the pipeline spec.
      platform: the platform spec; empty where there is none.
      where: the file, for the message.

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
        raise SpecError(
            f"this is no pipeline spec: {' '.join(str(error).split())}", where
        ) from None
    problems = []
    if parsed.schema_version != SCHEMA_VERSION:
        problems.append(
            f"schema version {parsed.schema_version!r}, and the backend takes {SCHEMA_VERSION} only"
        )
    problems += of_name(parsed.pipeline_info.name)
    if not parsed.root.dag.tasks:
        problems.append("the spec has no tasks")
    problems += _of_dag(parsed.root, parsed, deployment, ())
    problems += unknown_fields(platform)
    raise_for(problems, where)


def of_name(pipeline: str) -> list[str]:
    """What is wrong with the name of a pipeline."""
    if _PIPELINE_NAME.fullmatch(pipeline):
        return []
    return [f"the name {pipeline!r} may hold only a-z, 0-9 and dashes, 128 at most"]


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
        for problem in (
            *_of_task(name, task, dag),
            *_of_inputs(task, parent),
            *_of_outputs_read(task, dag, spec),
            *_of_parameters(task, component),
        ):
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
            for problem in of_executor(component, deployment):
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


def _of_task(name: str, task: Any, dag: Any) -> Iterator[str]:
    if not NODE_ID.fullmatch(name):
        yield "a task's name may hold letters, digits and dashes only, 128 at most"
    for producer in producers_of(task):
        if producer not in dag.tasks:
            yield f"unknown producer task {producer!r}"
    # expression/expression.go: the driver fails where the executor has not recorded the property
    if ".metadata[" in task.trigger_policy.condition:
        yield "a condition on an artifact's metadata fails; use its URI, or a parameter"


def _of_inputs(task: Any, parent: Any) -> Iterator[str]:
    """Of a task in the DAG of `parent`: driver/resolve.go, resolveInputParameter and others."""
    known = parent.input_definitions
    for key, value in sorted(task.inputs.parameters.items()):
        kind = value.WhichOneof("kind")
        constant = value.runtime_value.constant.string_value
        if "{{$.pipeline_" in constant and constant not in _OF_A_RUN:
            yield f"the driver leaves {constant!r} of parameter {key!r} as it stands"
        if kind == "runtime_value" and value.runtime_value.WhichOneof("value") != "constant":
            yield f"parameter {key!r} is a runtime parameter, not a constant"
        name = value.component_input_parameter
        if kind == "component_input_parameter" and name not in known.parameters:
            yield f"the DAG has no input parameter {name!r}"
    for key, artifact in sorted(task.inputs.artifacts.items()):
        kind, name = artifact.WhichOneof("kind"), artifact.component_input_artifact
        if kind == "component_input_artifact" and name not in known.artifacts:
            yield f"the DAG has no input artifact {name!r}, which {key!r} is to be"


def _of_outputs_read(task: Any, dag: Any, spec: Any) -> Iterator[str]:
    """Outputs that no producer has: the driver of the task that reads them ends in a panic."""
    read = [
        *(
            ("artifacts", each.task_output_artifact.producer_task, output)
            for each in task.inputs.artifacts.values()
            if (output := each.task_output_artifact.output_artifact_key)
        ),
        *(
            ("parameters", each.task_output_parameter.producer_task, output)
            for each in task.inputs.parameters.values()
            if (output := each.task_output_parameter.output_parameter_key)
        ),
    ]
    for kind, producer, output in read:
        label = dag.tasks[producer].component_ref.name if producer in dag.tasks else ""
        if label in spec.components:
            outputs = getattr(spec.components[label].output_definitions, kind)
            if output not in outputs:
                yield f"{producer} has no output {output!r} among its {kind}"


def _of_parameters(task: Any, component: Any) -> Iterator[str]:
    """driver/resolve.go, handleParamTypeValidationAndConversion."""
    for name, definition in sorted(component.input_definitions.parameters.items()):
        given = task.inputs.parameters.get(name)
        if given is None:
            if not definition.is_optional and name != task.parameter_iterator.item_input:
                yield f"its parameter {name!r} gets no value"
            continue
        constant = given.runtime_value.constant.WhichOneof("kind")
        wanted = pipeline_spec_pb2.ParameterType.ParameterTypeEnum.Name(definition.parameter_type)
        if constant and wanted not in ("STRING", *_TYPES_OF_A_CONSTANT.get(constant, ())):
            yield f"the constant of parameter {name!r} is a {constant[:-6]}, and not {wanted}"
