"""What the backend's driver hands to a container: an ExecutorInput.

Follows `backend/src/v2/driver/resolve.go` (resolveInputs) and `driver.go` (provisionOutputs) of
kubeflow/pipelines.
"""

import decimal
import json
import uuid
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format, struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow.backend_metadata import BackendError, MetadataStore
from pipeline.kubeflow.store import local_path

LOGS = "executor-logs"
_TYPES = pipeline_spec_pb2.ParameterType
_KINDS = {
    "number_value": (_TYPES.NUMBER_DOUBLE, _TYPES.NUMBER_INTEGER),
    "bool_value": (_TYPES.BOOLEAN,),
    "list_value": (_TYPES.LIST,),
    "struct_value": (_TYPES.STRUCT, _TYPES.TASK_FINAL_STATUS),
}


def build_executor_input(
    name: str,
    task: Any,
    component: Any,
    *,
    run_root: str,
    root_parameters: Mapping[str, struct_pb2.Value],
    store: MetadataStore,
    publish_logs: bool = True,
) -> Any:
    """Resolves a task's inputs and gives its outputs their URIs.

    Args:
      name: of the task.
      task: its PipelineTaskSpec.
      component: its ComponentSpec.
      run_root: URI below which all artifacts of the run are.
      root_parameters: of the run.
      store: what earlier tasks emitted.
      publish_logs: whether the log is an output too, as it is unless a cluster says otherwise.

    Raises:
      BackendError: where the driver would fail.
    """
    result = pipeline_spec_pb2.ExecutorInput()
    for key, spec in task.inputs.parameters.items():
        value = _resolve_parameter(spec, root_parameters, store)
        result.inputs.parameter_values[key].CopyFrom(value)
    _convert_parameters(result.inputs.parameter_values, component)
    for key, spec in task.inputs.artifacts.items():
        if spec.WhichOneof("kind") != "task_output_artifact":
            raise BackendError(f"input artifact {key!r} is not another task's output")
        source = spec.task_output_artifact
        artifact = store.artifact(source.producer_task, source.output_artifact_key)
        result.inputs.artifacts[key].artifacts.add().CopyFrom(artifact)
    _provision_outputs(result.outputs, name, component, run_root, publish_logs)
    return result


def _resolve_parameter(
    spec: Any, root_parameters: Mapping[str, struct_pb2.Value], store: MetadataStore
) -> struct_pb2.Value:
    kind = spec.WhichOneof("kind")
    if kind == "component_input_parameter":
        if spec.component_input_parameter not in root_parameters:
            raise BackendError(
                f"parent DAG does not have input parameter {spec.component_input_parameter}"
            )
        return root_parameters[spec.component_input_parameter]
    if kind == "task_output_parameter":
        source = spec.task_output_parameter
        return store.parameter(source.producer_task, source.output_parameter_key)
    if kind == "runtime_value" and spec.runtime_value.WhichOneof("value") == "constant":
        return spec.runtime_value.constant
    raise BackendError(f"parameter spec of kind {kind} not implemented yet")


def _convert_parameters(values: Any, component: Any) -> None:
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
        outputs.artifacts[key].artifacts[0].metadata.CopyFrom(spec.metadata)
    if publish_logs:
        logs_type = pipeline_spec_pb2.ArtifactTypeSchema(schema_title="system.Artifact")
        # The launcher appends the number of the attempt.
        _add_output(outputs, LOGS, f"{task_root}/{LOGS}-0", logs_type)
    for key in component.output_definitions.parameters:
        outputs.parameters[key].output_file = f"/tmp/kfp/outputs/{key}"
    outputs.output_file = f"{local_path(task_root)}/output_metadata.json"


def _add_output(outputs: Any, key: str, uri: str, artifact_type: Any) -> None:
    outputs.artifacts[key].artifacts.add(name=key, uri=uri, type=artifact_type)
