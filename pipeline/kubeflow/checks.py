"""What open-source Kubeflow Pipelines v2 does not run, found before anything is submitted.

Each check names the place in the backend's source (`backend/src/v2/` of kubeflow/pipelines) or in
TFX's for which it is there.
"""

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx import components
from tfx.dsl.component.experimental import executor_specs
from tfx.dsl.components.base import base_component, executor_spec
from tfx.dsl.components.common import importer, resolver
from tfx.dsl.experimental.conditionals import conditional
from tfx.dsl.placeholder import placeholder
from tfx.orchestration.kubeflow.v2 import compiler_utils
from tfx.utils import import_utils, name_utils
from tfx.v1 import dsl

SCHEMA_VERSION = "2.1.0"
# compiler/argocompiler/argo.go, templateName: ids become Argo's names as they are.
_NODE_ID = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]{0,127}")
# apiserver/template/v2_template.go: the name must be one of Kubernetes' own.
_PIPELINE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,126}[a-z0-9])?")
# TFX's compiler_utils: the title of a custom type's schema, of which the container imports the class.
_CUSTOM_TYPE = re.compile(r"[a-z][a-z0-9-_]{2,20}[.][A-Z][a-zA-Z0-9-_]{2,49}")


class SpecError(ValueError):
    """A pipeline or a spec that the backend does not run; one line per node and reason."""


def check_pipeline(pipeline: dsl.Pipeline) -> None:
    """Refuses a pipeline that compiles or not, but that the backend would not run.

    Raises:
      SpecError: naming every node and reason.
    """
    problems = [
        f"{node.id}: {problem}" for node in pipeline.components for problem in _of_node(node, pipeline)
    ]
    name = pipeline.pipeline_info.pipeline_name
    if not _PIPELINE_NAME.fullmatch(name):
        problems.append(f"the pipeline's name {name!r} may hold only a-z, 0-9 and inner dashes")
    _raise(problems)


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
    _raise(problems)


def _raise(problems: list[str]) -> None:
    if problems:
        raise SpecError("\n".join(["Kubeflow Pipelines would not run this:", *problems]))


def _of_node(node: Any, pipeline: dsl.Pipeline) -> Iterator[str]:
    if not _NODE_ID.fullmatch(node.id):
        yield "a node's id may hold letters, digits and dashes only, 128 at most"
    # compiler/argocompiler/dag.go: "resolver executors not implemented"
    if isinstance(node, resolver.Resolver):
        yield "the backend has no resolvers; let the component find what it needs"
        return
    # compiler/argocompiler/importer.go: types and reuse of TFX's importers were not tried
    if isinstance(node, importer.Importer):
        yield "importers are not supported; let a component of your own emit the artifact"
        return
    # TFX's step_builder refuses it
    if isinstance(node, components.InfraValidator):
        yield "TFX does not compile InfraValidator; components.serving_check is in its place"
        return
    # TFX compiles its driver to lifecycle.preCacheCheck, which the backend ignores
    if isinstance(node, components.FileBasedExampleGen):
        yield "the backend ignores the driver of FileBasedExampleGen, so no span is resolved"
        return
    if conditional.get_predicates(node, pipeline.dsl_context_registry):
        yield "conditions on artifacts are not supported; let the component decide"
    yield from _of_executor(node)
    yield from _of_types(node)
    for name, value in node.exec_properties.items():
        # TFX appends "_task" to the producer: "unknown producer task" in argocompiler/dag.go
        if isinstance(value, placeholder.Placeholder):
            yield f"property {name} is another node's output; pass the artifact instead"


def _of_executor(node: Any) -> Iterator[str]:
    if not isinstance(node, base_component.BaseComponent):
        yield f"{type(node).__name__} is no component with an executor"
        return
    spec = node.executor_spec
    if isinstance(spec, executor_specs.TemplatedExecutorContainerSpec):
        return
    if not isinstance(spec, executor_spec.ExecutorClassSpec):
        yield f"TFX does not compile executors of the kind {type(spec).__name__}"
        return
    problem = _not_importable(name_utils.get_full_name(spec.executor_class, strict_check=False))
    if problem:
        yield f"its executor {problem}"


def _of_types(node: Any) -> Iterator[str]:
    types = {channel.type for channel in (*node.inputs.values(), *node.outputs.values())}
    for artifact in sorted(types, key=lambda each: str(each.TYPE_NAME)):
        title = str(artifact.TYPE_NAME)
        if f"tfx.{title}" in compiler_utils.TITLE_TO_CLASS_PATH:
            continue
        if not _CUSTOM_TYPE.fullmatch(title):
            yield (
                f"the type {title!r} is imported by its name, which has to be package.Class: "
                "3 to 21 of a-z, 0-9, - and _, a dot, and a capitalised name of 3 to 50"
            )
            continue
        if artifact.PROPERTIES:
            yield f"the type {title!r} declares PROPERTIES; use custom properties"
        problem = _not_importable(title)
        if problem:
            yield f"the type {title!r} {problem}"


def _not_importable(path: str) -> str | None:
    if path.startswith("__main__."):
        return f"{path} is defined in a script, which a container cannot import"
    if "<locals>" in path:
        return f"{path} is defined in a function, which a container cannot import"
    try:
        import_utils.import_class_by_path(path)
    except (ImportError, AttributeError, ValueError) as error:
        return f"{path} cannot be imported: {error}"
    return None


def _of_task(name: str, task: Any, spec: Any, deployment: Any) -> Iterator[str]:
    if not _NODE_ID.fullmatch(name):
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
