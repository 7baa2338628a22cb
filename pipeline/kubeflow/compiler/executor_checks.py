"""What open-source Kubeflow Pipelines v2 does not run, seen in the executors of a compiled spec.

Each check names the place in the backend's source (`backend/src/v2/` of kubeflow/pipelines) for
which it is there.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from parsing import parse_yaml
from pipeline.settings.kubeflow import IMAGE

_PLACEHOLDER = re.compile(r"\{\{\$.*?\}\}")


def of_executor(component: Any, deployment: Any) -> Iterator[str]:
    """Yields what is wrong with a component that is no DAG.

    Args:
      component: the ComponentSpec.
      deployment: the PipelineDeploymentConfig with its executor.
    """
    yield from _of_types(component)
    executor = deployment.executors.get(component.executor_label)
    kind = executor.WhichOneof("spec") if executor is not None else None
    if kind == "importer":
        # component/importer_launcher.go, getOutPutArtifactName
        if len(component.output_definitions.artifacts) != 1:
            yield "an importer has one output"
    elif kind != "container":
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
    if "{{$" not in container.image and not IMAGE.fullmatch(container.image):
        yield f"{container.image!r} is no name of an image, so its pod never starts"
    # driver/driver.go, initPodSpecPatch: the pod is started without what was asked for
    resources = container.resources
    wanted = resources.accelerator
    if resources.HasField("accelerator") and not (wanted.type and wanted.count > 0):
        yield f"{wanted.count} accelerators of the type {wanted.type!r} are left out of the pod"
    for name in ("cpu", "memory"):
        request, limit = (getattr(resources, f"{name}_{end}") for end in ("request", "limit"))
        if 0 < limit < request:
            yield f"its {name} request, {request:g}, is above the limit, {limit:g}"


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
                yield f"the launcher does not fill {placeholder} in an argument"
