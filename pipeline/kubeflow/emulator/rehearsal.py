"""Runs a compiled spec on this machine as the backend would, without a cluster.

Only the spec's file is used, nothing of the pipeline, so that what passes here is what a cluster
gets. `driver.py`, `launcher.py` and `metadata.py` do what the backend's parts of those names do.
What differs from a cluster: there are no images, resources and lost pods, tasks run one after the
other, and a volume is a folder whose path stands in parameters in place of the path where it
would be mounted, since mounting needs root. Secrets are variables of this machine's environment.
"""

import datetime
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format, struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow.compiler.spec_checks import (
    SpecError,
    is_exit_task,
    order_of,
    producers_of,
)
from pipeline.kubeflow.compiler.spec_file import PipelineFile
from pipeline.kubeflow.container.store import FOLDERS
from pipeline.kubeflow.emulator.driver import Scope, build_executor_input, resolve_parameters
from pipeline.kubeflow.emulator.launcher import Launcher
from pipeline.kubeflow.emulator.limits import check_rehearsable
from pipeline.kubeflow.emulator.metadata import COMPLETE, FAILED, BackendError, MetadataStore

DEFAULT_ROOT = "{store}://mlpipeline/v2/artifacts"
_PROJECT = Path(__file__).parents[3]


@dataclass(frozen=True)
class TaskResult:
    """How a task ended. `message` says why it failed, or what it waited for."""

    name: str
    outcome: str  # succeeded, failed or skipped
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
      listener: called with each task that ended.
      publish_logs: as the cluster's PUBLISH_LOGS, which is on unless it is switched off.

    Returns:
      A result per task, in the order in which they ran.

    Raises:
      SpecError: before anything runs, for what only a cluster can run.
    """
    check_rehearsable(pipeline.spec)
    values = _with_defaults(pipeline, parameters)
    run_id = datetime.datetime.now().strftime("%Y-%m-%dT%H-%M-%S-%f")
    work_dir = work_dir.absolute()
    folder = work_dir / run_id
    rehearsal = _Rehearsal(
        spec=json_format.ParseDict(pipeline.spec, pipeline_spec_pb2.PipelineSpec()),
        deployment=json_format.ParseDict(
            pipeline.spec["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig()
        ),
        platform=pipeline.platform,
        launcher=Launcher(
            run_root=f"{_root(pipeline, store)}/{pipeline.name}/{run_id}",
            bucket=folder / "bucket",
            pods=folder / "pods",
            logs=folder / "logs",
            workdir=_PROJECT,
        ),
        volumes={
            path: str(work_dir / "volumes" / claim)
            for path, claim in _volumes(pipeline.platform).items()
        },
        placeholders=_placeholders(pipeline, run_id),
        listener=listener,
        publish_logs=publish_logs,
    )
    rehearsal.run_dag(rehearsal.spec.root.dag, values)
    return rehearsal.results


@dataclass
class _Rehearsal:
    """One run; `results` are of all tasks with containers, in the order in which they ended."""

    spec: Any
    deployment: Any
    platform: Mapping[str, Any]
    launcher: Launcher
    volumes: Mapping[str, str]
    placeholders: Mapping[str, str]
    listener: Callable[[TaskResult], None]
    publish_logs: bool
    results: list[TaskResult] = field(default_factory=list)

    def run_dag(self, dag: Any, parameters: Mapping[str, struct_pb2.Value]) -> str:
        """Runs the tasks of a DAG, an exit task after what it follows; gives its state."""
        store = MetadataStore()
        scope = Scope(parameters, store, self.placeholders)
        for name in order_of(dag):
            waited_for = [(each, store.state(each)) for each in producers_of(dag.tasks[name])]
            if is_exit_task(dag.tasks[name]):
                missing = [each for each, state in waited_for if state is None]
            else:
                missing = [each for each, state in waited_for if state != COMPLETE]
            if missing:
                self._skip(name, dag.tasks[name], f"{', '.join(missing)} did not succeed")
            else:
                store.record_state(name, self._run_task(name, dag.tasks[name], scope))
        complete = all(store.state(name) == COMPLETE for name in dag.tasks)
        return COMPLETE if complete else FAILED

    def _run_task(self, name: str, task: Any, scope: Scope) -> str:
        component = self.spec.components[task.component_ref.name]
        if not component.executor_label:
            return self.run_dag(component.dag, resolve_parameters(task, component, scope))
        started = time.monotonic()
        outcome, message = "succeeded", ""
        try:
            self._run_container(name, task, component, scope)
        except BackendError as error:
            outcome, message = "failed", str(error)
        warnings = self.launcher.warnings.get(name, ())
        self._tell(TaskResult(name, outcome, time.monotonic() - started, message, warnings))
        return COMPLETE if outcome == "succeeded" else FAILED

    def _run_container(self, name: str, task: Any, component: Any, scope: Scope) -> None:
        executor_input = build_executor_input(
            name,
            task,
            component,
            scope,
            run_root=self.launcher.run_root,
            publish_logs=self.publish_logs,
        )
        _mount(executor_input, self.volumes)
        container = self.deployment.executors[component.executor_label].container
        secrets = secrets_of(self.platform, component.executor_label)
        self.launcher.launch(name, executor_input, component, container, secrets, scope.store)

    def _skip(self, name: str, task: Any, message: str) -> None:
        component = self.spec.components[task.component_ref.name]
        if component.executor_label:
            self._tell(TaskResult(name, "skipped", 0.0, message))
        for each in order_of(component.dag):
            self._skip(each, component.dag.tasks[each], message)

    def _tell(self, result: TaskResult) -> None:
        self.results.append(result)
        self.listener(result)


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


def _placeholders(pipeline: PipelineFile, run_id: str) -> dict[str, str]:
    """What the driver fills in for constants that are one of these (driver/resolve.go)."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "{{$.pipeline_job_name}}": f"{pipeline.name} {run_id}",
        "{{$.pipeline_job_resource_name}}": f"{pipeline.name}-{run_id}",
        "{{$.pipeline_job_uuid}}": run_id,
        "{{$.pipeline_task_uuid}}": "1",
        "{{$.pipeline_job_create_time_utc}}": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "{{$.pipeline_job_schedule_time_utc}}": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
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
    for name, executor in _executors(platform_spec).items():
        for mount in executor.get("pvcMount", []):
            if "constant" not in mount:
                raise SpecError("only a volume claim that the spec names is rehearsed", name)
            volumes[mount["mountPath"]] = mount["constant"]
    return volumes


def secrets_of(platform_spec: Mapping[str, Any], executor: str) -> dict[str, str]:
    """The variables that a pod has from secrets, with the values that they have here.

    Raises:
      BackendError: for one that has none, without which the pod would never start.
    """
    variables = [
        (secret["secretName"], each["secretKey"], each["envVar"])
        for secret in _executors(platform_spec).get(executor, {}).get("secretAsEnv", [])
        for each in secret["keyToEnv"]
    ]
    for secret, key, variable in variables:
        if variable not in os.environ:
            raise BackendError(
                f"the pod waits for the key {key} of the secret {secret}: for a rehearsal, give "
                f"its value in the environment variable {variable}"
            )
    return {variable: os.environ[variable] for _, _, variable in variables}


def _executors(platform_spec: Mapping[str, Any]) -> dict[str, Any]:
    kubernetes = platform_spec.get("platforms", {}).get("kubernetes", {})
    found: dict[str, Any] = kubernetes.get("deploymentSpec", {}).get("executors", {})
    return found


def _mount(executor_input: Any, volumes: Mapping[str, str]) -> None:
    for mount_path, folder in volumes.items():
        whole = re.compile(rf'(?<![\w./-]){re.escape(mount_path)}(?=[/"]|$)')
        plain = folder.replace("\\", r"\\")
        for value in executor_input.inputs.parameter_values.values():
            if value.WhichOneof("kind") == "string_value":
                value.string_value = whole.sub(plain, value.string_value)
