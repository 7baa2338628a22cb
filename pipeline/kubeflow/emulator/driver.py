"""What the backend's driver hands to a container: an ExecutorInput.

Follows `backend/src/v2/driver/resolve.go` (resolveInputs) and `driver.go` (provisionOutputs) of
kubeflow/pipelines.
"""

import decimal
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format, struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow.container.store import local_path
from pipeline.kubeflow.emulator.metadata import BackendError, MetadataStore

LOGS = "executor-logs"
_TYPES = pipeline_spec_pb2.ParameterType
_KINDS = {
    "number_value": (_TYPES.NUMBER_DOUBLE, _TYPES.NUMBER_INTEGER),
    "bool_value": (_TYPES.BOOLEAN,),
    "list_value": (_TYPES.LIST,),
    "struct_value": (_TYPES.STRUCT, _TYPES.TASK_FINAL_STATUS),
}


@dataclass(frozen=True)
class Scope:
    """What the tasks of a DAG can refer to.

    Attributes:
      parameters: of the DAG.
      store: what its tasks emitted so far.
      placeholders: what a constant that is one of these stands for: the run's name, and the like.
    """

    parameters: Mapping[str, struct_pb2.Value]
    store: MetadataStore
    placeholders: Mapping[str, str]


def build_executor_input(
    name: str,
    task: Any,
    component: Any,
    scope: Scope,
    *,
    run_root: str,
    publish_logs: bool = True,
) -> Any:
    """Resolves a task's inputs and gives its outputs their URIs.

    Args:
      name: of the task.
      task: its PipelineTaskSpec.
      component: its ComponentSpec.
      scope: what it can refer to.
      run_root: URI below which all artifacts of the run are.
      publish_logs: whether the log is an output too, as it is unless a cluster says otherwise.

    Raises:
      BackendError: where the driver would fail.
    """
    result = pipeline_spec_pb2.ExecutorInput()
    for key, value in resolve_parameters(task, component, scope).items():
        result.inputs.parameter_values[key].CopyFrom(value)
    for key, spec in task.inputs.artifacts.items():
        if spec.WhichOneof("kind") != "task_output_artifact":
            raise BackendError(f"input artifact {key!r} is not another task's output")
        source = spec.task_output_artifact
        artifact = scope.store.artifact(source.producer_task, source.output_artifact_key)
        result.inputs.artifacts[key].artifacts.add().CopyFrom(artifact)
    _provision_outputs(result.outputs, name, component, run_root, publish_logs)
    return result


def resolve_parameters(task: Any, component: Any, scope: Scope) -> dict[str, struct_pb2.Value]:
    """The parameters of a task, of the types that its component declares.

    Raises:
      BackendError: where the driver would fail.
    """
    values = {}
    for key, spec in task.inputs.parameters.items():
        values[key] = struct_pb2.Value()
        values[key].CopyFrom(_resolve_parameter(spec, task, scope))
    _convert_parameters(values, component)
    return values


def _resolve_parameter(spec: Any, task: Any, scope: Scope) -> struct_pb2.Value:
    kind = spec.WhichOneof("kind")
    if kind == "component_input_parameter":
        if spec.component_input_parameter not in scope.parameters:
            raise BackendError(
                f"parent DAG does not have input parameter {spec.component_input_parameter}"
            )
        return scope.parameters[spec.component_input_parameter]
    if kind == "task_output_parameter":
        source = spec.task_output_parameter
        return scope.store.parameter(source.producer_task, source.output_parameter_key)
    if kind == "runtime_value" and spec.runtime_value.WhichOneof("value") == "constant":
        constant = spec.runtime_value.constant
        if constant.string_value == "{{$.pipeline_task_name}}":
            return struct_pb2.Value(string_value=task.task_info.name)
        filled = scope.placeholders.get(constant.string_value)
        return constant if filled is None else struct_pb2.Value(string_value=filled)
    if kind == "task_final_status":
        return _final_status(task, scope)
    raise BackendError(f"parameter spec of kind {kind} not implemented yet")


def _final_status(task: Any, scope: Scope) -> struct_pb2.Value:
    """Of the first task that this one names, whatever its input says; never with an error."""
    if not task.dependent_tasks:
        raise BackendError("the task has no dependent tasks")
    producer = task.dependent_tasks[0]
    status = struct_pb2.Value()
    status.struct_value.update(
        {
            "state": scope.store.state(producer) or "",
            "pipelineTaskName": producer,
            "pipelineJobResourceName": scope.placeholders["{{$.pipeline_job_resource_name}}"],
            "error": {},
        }
    )
    return status


def _convert_parameters(values: dict[str, struct_pb2.Value], component: Any) -> None:
    for name, spec in component.input_definitions.parameters.items():
        if name not in values:
            if not spec.is_optional and not spec.HasField("default_value"):
                raise BackendError(
                    f"neither value nor default value provided for non-optional parameter {name!r}"
                )
            continue
        kind = values[name].WhichOneof("kind")
        if spec.parameter_type == _TYPES.STRING:
            values[name].string_value = value_text(values[name])
        elif spec.parameter_type not in _KINDS.get(kind, ()):
            expected = _TYPES.ParameterTypeEnum.Name(spec.parameter_type)
            raise BackendError(f"input parameter {name!r} type mismatch: expect {expected}")


def value_text(value: struct_pb2.Value) -> str:
    """A value as the backend writes it into text (PbValueToText in metadata/converter.go)."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        text = format(decimal.Decimal(repr(value.number_value)), "f")
        return text.removesuffix(".0")
    if kind == "bool_value":
        return str(value.bool_value).lower()
    return "" if kind == "null_value" else json.dumps(json_format.MessageToDict(value))


def _provision_outputs(
    outputs: Any, name: str, component: Any, run_root: str, publish_logs: bool
) -> None:
    task_root = f"{run_root}/{name}/{uuid.uuid4()}"
    for key, spec in component.output_definitions.artifacts.items():
        _add_output(outputs, key, f"{task_root}/{key}", spec.artifact_type)
        if spec.metadata.fields:
            outputs.artifacts[key].artifacts[0].metadata.CopyFrom(spec.metadata)
    if publish_logs:
        logs_type = pipeline_spec_pb2.ArtifactTypeSchema(schema_title="system.Artifact")
        _add_output(outputs, LOGS, f"{task_root}/{LOGS}", logs_type)
    for key in component.output_definitions.parameters:
        outputs.parameters[key].output_file = f"/tmp/kfp/outputs/{key}"
    outputs.output_file = f"{local_path(task_root)}/output_metadata.json"


def _add_output(outputs: Any, key: str, uri: str, artifact_type: Any) -> None:
    outputs.artifacts[key].artifacts.add(name=key, uri=uri, type=artifact_type)
