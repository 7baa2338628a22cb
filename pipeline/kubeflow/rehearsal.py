"""Runs a compiled spec on this machine as the backend would, without a cluster.

Only the spec's file is used, nothing of the pipeline, so that what passes here is what a cluster
gets. `backend_driver.py`, `backend_launcher.py` and `backend_metadata.py` do what the backend's
parts of those names do. What differs from a cluster: there are no images, resources, retries and
caches, tasks run one after the other, and a volume is a folder whose path stands in parameters in
place of the path where it would be mounted, since mounting needs root.
"""

import datetime
import graphlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from google.protobuf import json_format, struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow.backend_driver import build_executor_input
from pipeline.kubeflow.backend_launcher import Launcher
from pipeline.kubeflow.backend_metadata import BackendError, MetadataStore
from pipeline.kubeflow.spec_checks import SpecError, check_spec
from pipeline.kubeflow.spec_file import PipelineFile
from pipeline.kubeflow.store import FOLDERS

DEFAULT_ROOT = "{store}://mlpipeline/v2/artifacts"
_PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class TaskResult:
    """How a task ended. `message` says why it failed, or what it waited for in vain."""

    name: str
    outcome: Literal["succeeded", "failed", "skipped"]
    seconds: float
    message: str = ""
    warnings: Sequence[str] = ()


def rehearse(
    pipeline: PipelineFile,
    parameters: Mapping[str, Any],
    *,
    work_dir: Path,
    store: str | None = None,
    listener: Callable[[TaskResult], None] = lambda result: None,
    publish_logs: bool = True,
) -> list[TaskResult]:
    """Runs a spec.

    Args:
      pipeline: the spec.
      parameters: of the run, as `spec_file.run_parameters` reads them.
      work_dir: receives a folder per run: `bucket/`, `pods/`, `logs/`; and `volumes/`, which stay.
      store: minio, gs or s3; None for the one of the spec's own root, or minio.
      listener: told of each task that ended.
      publish_logs: as the cluster's PUBLISH_LOGS, which is on unless it is switched off.

    Returns:
      A result per task, in the order in which they ran.

    Raises:
      SpecError: before anything runs, for what the backend would not take.
    """
    check_spec(pipeline.spec)
    spec = json_format.ParseDict(pipeline.spec, pipeline_spec_pb2.PipelineSpec())
    deployment = json_format.ParseDict(
        pipeline.spec["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig()
    )
    values = _with_defaults(pipeline, parameters)
    run_id = datetime.datetime.now().strftime("%Y-%m-%dT%H-%M-%S-%f")
    work_dir = work_dir.absolute()
    folder = work_dir / run_id
    outputs = MetadataStore()
    launcher = Launcher(
        run_root=f"{_root(pipeline, store)}/{pipeline.name}/{run_id}",
        bucket=folder / "bucket",
        pods=folder / "pods",
        logs=folder / "logs",
        workdir=_PROJECT,
        store=outputs,
    )
    volumes = {
        path: str(work_dir / "volumes" / claim)
        for path, claim in _volumes(pipeline.platform).items()
    }

    def run_task(name: str) -> None:
        task = spec.root.dag.tasks[name]
        component = spec.components[task.component_ref.name]
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
        container = deployment.executors[component.executor_label].container
        launcher.launch(name, executor_input, component, container)

    results: dict[str, TaskResult] = {}
    for name in order_of(spec):
        results[name] = _run_one(name, spec, results, run_task, launcher.warnings)
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


def _with_defaults(pipeline: PipelineFile, given: Mapping[str, Any]) -> dict[str, struct_pb2.Value]:
    """All parameters of a run, as the backend fills them up (argocompiler/argo.go, Compile)."""
    defaults = {
        name: definition["defaultValue"]
        for name, definition in pipeline.parameters.items()
        if "defaultValue" in definition
    }
    return {
        name: json_format.ParseDict(value, struct_pb2.Value())
        for name, value in {**defaults, **given}.items()
    }


def _root(pipeline: PipelineFile, store: str | None) -> str:
    named = pipeline.default_root.split("?")[0].rstrip("/")
    scheme = named.partition("://")[0]
    if named and scheme in FOLDERS and store in (None, scheme):
        return named
    return DEFAULT_ROOT.format(store=store or "minio")


def _volumes(platform_spec: Mapping[str, Any]) -> dict[str, str]:
    """The claim that is mounted at each path."""
    volumes = {}
    kubernetes = platform_spec.get("platforms", {}).get("kubernetes", {})
    executors = kubernetes.get("deploymentSpec", {}).get("executors", {})
    for name, executor in executors.items():
        for mount in executor.get("pvcMount", []):
            if "constant" not in mount:
                raise SpecError(f"{name}: only a volume claim named in the spec is rehearsed")
            volumes[mount["mountPath"]] = mount["constant"]
    return volumes


def _mount(executor_input: Any, volumes: Mapping[str, str]) -> None:
    for mount_path, folder in volumes.items():
        whole = re.compile(rf'(?<![\w./-]){re.escape(mount_path)}(?=[/"]|$)')
        plain = folder.replace("\\", r"\\")
        for value in executor_input.inputs.parameter_values.values():
            if value.WhichOneof("kind") == "string_value":
                value.string_value = whole.sub(plain, value.string_value)
