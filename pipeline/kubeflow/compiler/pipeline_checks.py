"""What open-source Kubeflow Pipelines v2 does not run, seen in the pipeline before it is compiled.

Each check names the place in the backend's source (`backend/src/v2/` of kubeflow/pipelines) or in
TFX's for which it is there.
"""

import re
from collections.abc import Iterator
from typing import Any

from tfx import components
from tfx.dsl.component.experimental import executor_specs
from tfx.dsl.components.base import base_component, executor_spec
from tfx.dsl.components.common import importer, resolver
from tfx.dsl.placeholder import placeholder
from tfx.orchestration.kubeflow.v2 import compiler_utils
from tfx.utils import import_utils, name_utils
from tfx.v1 import dsl

from pipeline.kubeflow.compiler.spec_checks import NODE_ID, of_name, raise_for

# TFX's compiler_utils: the title of a custom type's schema, by which the container imports it.
_CUSTOM_TYPE = re.compile(r"[a-z][a-z0-9-_]{2,20}[.][A-Z][a-zA-Z0-9-_]{2,49}")


def check_pipeline(pipeline: dsl.Pipeline) -> None:
    """Refuses a pipeline that compiles or not, but that the backend would not run.

    Raises:
      SpecError: naming every node and reason.
    """
    problems = [
        f"{node.id}: {problem}" for node in pipeline.components for problem in _of_node(node)
    ]
    raise_for(problems + of_name(pipeline.pipeline_info.pipeline_name))


def _of_node(node: Any) -> Iterator[str]:
    if not NODE_ID.fullmatch(node.id):
        yield "a node's id may hold letters, digits and dashes only, 128 at most"
    # compiler/argocompiler/dag.go: "resolver executors not implemented"
    if isinstance(node, resolver.Resolver):
        yield "the backend has no resolvers; let the component find what it needs"
        return
    if isinstance(node, importer.Importer):
        return
    # TFX's step_builder refuses it
    if isinstance(node, components.InfraValidator):
        yield "TFX does not compile InfraValidator; components.serving_check is in its place"
        return
    # TFX compiles its driver to lifecycle.preCacheCheck, which the backend ignores
    if isinstance(node, components.FileBasedExampleGen):
        yield "the backend ignores the driver of FileBasedExampleGen, so no span is resolved"
        return
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
