"""Runs a compiled spec on this machine as the backend would, without a cluster.

Only the spec's file is used, nothing of the pipeline, so that what passes here is what a cluster
gets. `backend_driver.py`, `backend_launcher.py` and `backend_metadata.py` do what the backend's
parts of those names do. What differs from a cluster: there are no images, resources, retries and
caches, tasks run one after the other, and a volume is a folder whose path stands in parameters in
place of the path where it would be mounted, since mounting needs root.
"""

import contextlib
import datetime
import graphlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from google.protobuf import json_format, struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow.backend_driver import build_executor_input
from pipeline.kubeflow.backend_launcher import Launcher
from pipeline.kubeflow.backend_metadata import BackendError, MetadataStore
from pipeline.kubeflow.spec_checks import SpecError, check_spec
from pipeline.kubeflow.store import FOLDERS

DEFAULT_ROOT = "{store}://mlpipeline/v2/artifacts"
_PROJECT = Path(__file__).parents[2]
_TYPES = pipeline_spec_pb2.ParameterType
_EXPECTED = {
    _TYPES.NUMBER_DOUBLE: ("number_value", "a number"),
    _TYPES.NUMBER_INTEGER: ("number_value", "an integer"),
    _TYPES.STRING: ("string_value", "text"),
    _TYPES.BOOLEAN: ("bool_value", "true or false"),
    _TYPES.LIST: ("list_value", "a list"),
    _TYPES.STRUCT: ("struct_value", "a mapping"),
}


class ParameterError(ValueError):
    """A runtime parameter that the API server would refuse."""


@dataclass(frozen=True)
class TaskResult:
    """How a task ended. `message` says why it failed, or what it waited for in vain."""

    name: str
    outcome: Literal["succeeded", "failed", "skipped"]
    seconds: float
    message: str = ""
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class SpecFile:
    """A spec that was read: its own messages, and the volume claim of each mount path."""

    spec: Any
    deployment: Any
    volumes: Mapping[str, str]


def read_spec(path: Path) -> SpecFile:
    """Reads a compiled spec; raises SpecError for what the backend would not take."""
    try:
        documents = [each for each in yaml.safe_load_all(path.read_text("utf-8")) if each]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from None
    if not documents or not all(isinstance(each, dict) for each in documents):
        raise SpecError(f"{path} holds no pipeline spec; `kubeflow_runner.py compile` writes one")
    check_spec(documents[0])
    spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
    deployment = json_format.ParseDict(
        documents[0]["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig()
    )
    return SpecFile(spec, deployment, _volumes(documents[1:]))


def _volumes(platform_specs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The claim that is mounted at each path."""
    volumes = {}
    for document in platform_specs:
        kubernetes = document.get("platforms", {}).get("kubernetes", {})
        executors = kubernetes.get("deploymentSpec", {}).get("executors", {})
        for name, executor in executors.items():
            for mount in executor.get("pvcMount", []):
                if "constant" not in mount:
                    raise SpecError(f"{name}: only a volume claim named in the spec is rehearsed")
                volumes[mount["mountPath"]] = mount["constant"]
    return volumes


def parse_parameters(spec: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Reads `name=value`, by the declared type: text as it stands, all else as JSON.

    Raises:
      ParameterError: for what is not `name=value`.
    """
    wanted = spec.root.input_definitions.parameters
    parsed: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ParameterError(f"{text!r}: expected name=value, for example span=3")
        parsed[name] = value
        if name not in wanted or wanted[name].parameter_type != _TYPES.STRING:
            with contextlib.suppress(ValueError):  # Refused with its type, by `run_parameters`.
                parsed[name] = json.loads(value)
    return parsed


def run_parameters(spec: Any, given: Mapping[str, Any]) -> dict[str, struct_pb2.Value]:
    """Checks the parameters of a run and adds defaults, as the API server does.

    Args:
      spec: a PipelineSpec.
      given: by name, of JSON's types.

    Raises:
      ParameterError: for one that is unknown, missing or of another type.
    """
    wanted = spec.root.input_definitions.parameters
    unknown = sorted(set(given) - set(wanted))
    if unknown:
        raise ParameterError(
            f"the pipeline has no parameter {', '.join(unknown)}; "
            f"it has {', '.join(sorted(wanted))}"
        )
    values = {}
    for name, definition in wanted.items():
        if name in given:
            values[name] = json_format.ParseDict(given[name], struct_pb2.Value())
            kind, words = _EXPECTED[definition.parameter_type]
            if values[name].WhichOneof("kind") != kind:
                raise ParameterError(f"parameter {name} takes {words}, not {given[name]!r}")
        elif definition.HasField("default_value"):
            values[name] = definition.default_value
        elif not definition.is_optional:
            raise ParameterError(
                f"parameter {name} has no default: give it with --param {name}=..."
            )
    return values


def rehearse(
    file: SpecFile,
    parameters: Mapping[str, Any],
    *,
    work_dir: Path,
    store: str | None = None,
    listener: Callable[[TaskResult], None] = lambda result: None,
    publish_logs: bool = True,
) -> list[TaskResult]:
    """Runs a spec.

    Args:
      file: what `read_spec` read.
      parameters: runtime parameters by name, of JSON's types.
      work_dir: receives a folder per run: `bucket/`, `pods/`, `logs/`; and `volumes/`, which stay.
      store: minio, gs or s3; None for the one of the spec's own root, or minio.
      listener: told of each task that ended.
      publish_logs: as the cluster's PUBLISH_LOGS, which is on unless it is switched off.

    Returns:
      A result per task, in the order in which they ran.

    Raises:
      ParameterError: before anything runs.
    """
    values = run_parameters(file.spec, parameters)
    run_id = datetime.datetime.now().strftime("%Y-%m-%dT%H-%M-%S-%f")
    work_dir = work_dir.absolute()
    folder = work_dir / run_id
    outputs = MetadataStore()
    launcher = Launcher(
        run_root=f"{_root(file.spec, store)}/{file.spec.pipeline_info.name}/{run_id}",
        bucket=folder / "bucket",
        pods=folder / "pods",
        logs=folder / "logs",
        workdir=_PROJECT,
        store=outputs,
    )
    volumes = {path: str(work_dir / "volumes" / claim) for path, claim in file.volumes.items()}

    def run_task(name: str) -> None:
        task = file.spec.root.dag.tasks[name]
        component = file.spec.components[task.component_ref.name]
        executor_input = build_executor_input(
            name,
            task,
            component,
            run_root=launcher.run_root,
            root_parameters=values,
            store=outputs,
            publish_logs=publish_logs,
        )
        _mount(executor_input, volumes)
        container = file.deployment.executors[component.executor_label].container
        launcher.launch(name, executor_input, component, container)

    results: dict[str, TaskResult] = {}
    for name in order_of(file.spec):
        results[name] = _run_one(name, file.spec, results, run_task, launcher.warnings)
        listener(results[name])
    return list(results.values())


def order_of(spec: Any) -> list[str]:
    """The tasks, each after those it depends on; raises SpecError for a circle."""
    graph = {name: dependencies(task) for name, task in sorted(spec.root.dag.tasks.items())}
    try:
        return list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        raise SpecError(f"tasks depend on each other in a circle: {error.args[1]}") from None


def dependencies(task: Any) -> list[str]:
    """The tasks that a task waits for: named, or producers of its inputs."""
    found = [
        *task.dependent_tasks,
        *(each.task_output_artifact.producer_task for each in task.inputs.artifacts.values()),
        *(each.task_output_parameter.producer_task for each in task.inputs.parameters.values()),
    ]
    return sorted({name for name in found if name})


def _run_one(
    name: str,
    spec: Any,
    results: Mapping[str, TaskResult],
    run_task: Callable[[str], None],
    warnings: Mapping[str, list[str]],
) -> TaskResult:
    waited_for = dependencies(spec.root.dag.tasks[name])
    missing = [each for each in waited_for if results[each].outcome != "succeeded"]
    if missing:
        return TaskResult(name, "skipped", 0.0, f"{', '.join(missing)} did not succeed")
    started = time.monotonic()
    try:
        run_task(name)
    except BackendError as error:
        seconds = time.monotonic() - started
        return TaskResult(name, "failed", seconds, str(error), warnings.get(name, ()))
    return TaskResult(
        name, "succeeded", time.monotonic() - started, warnings=warnings.get(name, ())
    )


def _root(spec: Any, store: str | None) -> str:
    named = spec.default_pipeline_root.split("?")[0].rstrip("/")
    scheme = named.partition("://")[0]
    if named and scheme in FOLDERS and store in (None, scheme):
        return named
    return DEFAULT_ROOT.format(store=store or "minio")


def _mount(executor_input: Any, volumes: Mapping[str, str]) -> None:
    for mount_path, folder in volumes.items():
        whole = re.compile(rf'(?<![\w./-]){re.escape(mount_path)}(?=[/"]|$)')
        plain = folder.replace("\\", r"\\")
        for value in executor_input.inputs.parameter_values.values():
            if value.WhichOneof("kind") == "string_value":
                value.string_value = whole.sub(plain, value.string_value)
