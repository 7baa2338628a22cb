"""What the backend runs and the rehearsal does not."""

from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow.compiler.spec_checks import SpecError


def check_rehearsable(spec: dict[str, Any]) -> None:
    """Refuses a pipeline spec with conditions, importers, iterators or outputs of a nested DAG.

    Raises:
      SpecError: naming every task and reason.
    """
    parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    problems = list(_of_dag(parsed.root, parsed))
    if problems:
        raise SpecError("the rehearsal cannot run this, though a cluster can", findings=problems)


def _of_dag(parent: Any, spec: Any) -> Iterator[str]:
    executors = spec.deployment_spec.fields["executors"].struct_value.fields
    for name, task in sorted(parent.dag.tasks.items()):
        component = spec.components[task.component_ref.name]
        if task.trigger_policy.condition:
            yield f"{name}: conditions are not evaluated"
        if task.HasField("parameter_iterator") or task.HasField("artifact_iterator"):
            yield f"{name}: iterators are not supported"
        if component.dag.outputs.artifacts or component.dag.outputs.parameters:
            yield f"{name}: outputs of a nested pipeline are not supported"
        if "importer" in executors[component.executor_label].struct_value.fields:
            yield f"{name}: importers are not supported"
        for key, artifact in sorted(task.inputs.artifacts.items()):
            if artifact.WhichOneof("kind") != "task_output_artifact":
                yield f"{name}: input artifact {key!r} is not another task's output"
        yield from _of_dag(component, spec)
