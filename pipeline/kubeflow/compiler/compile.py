"""Compiles the pipeline to a spec that open-source Kubeflow Pipelines v2 runs.

TFX compiles; what the backend wants otherwise is patched here. `docs/kubeflow-backend.md` says why.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner
from tfx.v1.dsl.experimental import RuntimeParameter

import storage
from pipeline.kubeflow.compiler import parameters
from pipeline.kubeflow.compiler.exit_handler import add_exit_handler
from pipeline.kubeflow.compiler.pipeline_checks import check_pipeline
from pipeline.kubeflow.compiler.platform_spec import platform_spec
from pipeline.kubeflow.compiler.spec_checks import SpecError, check_spec
from pipeline.kubeflow.compiler.vertex import trains_elsewhere, vertex_trainer
from pipeline.kubeflow.container.failures import FOLDER as FAILURES
from pipeline.kubeflow.container.ui_outputs import add_page_outputs
from pipeline.pipeline import create_pipeline
from pipeline.settings.beam import check_flags
from pipeline.settings.kubeflow import DEFAULT, KubeflowSettings, NodeResources
from pipeline.settings.sections import Settings

COMMAND = ("python", "-m", "pipeline.kubeflow.container.supervisor")
# `entrypoint.py` finds it in the image, wherever the package is installed there.
_SCHEMA_FILE = "package://pipeline/schema/schema.pbtxt"
# A cluster may run containers as a user without a home.
_ENVIRONMENT = {"HOME": "/tmp", "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
_SUFFIX = "_executor"  # of the name of a node's executor
_NO_ROOT = "minio://mlpipeline/v2/artifacts"


def compile_settings(settings: Settings) -> list[dict[str, Any]]:
    """Compiles the pipeline; see `compile_pipeline` for what is returned and raised."""
    return compile_pipeline(kubeflow_pipeline(settings), settings)


def kubeflow_pipeline(settings: Settings) -> tfx.dsl.Pipeline:
    """The one DAG, with addresses and runtime parameters for a cluster."""
    kubeflow = settings.kubeflow
    check_flags(settings.beam)
    return create_pipeline(
        settings,
        data_dir=RuntimeParameter(
            parameters.DATA_DIR, str, settings.data.dir, parameters.DATA_DIR_DESCRIPTION
        ),
        span=RuntimeParameter(
            parameters.SPAN,
            int,
            -1 if settings.data.span is None else settings.data.span,
            parameters.SPAN_DESCRIPTION,
        ),
        window=RuntimeParameter(
            parameters.WINDOW, str, settings.data.window, parameters.WINDOW_DESCRIPTION
        ),
        source="the data folder of the run",
        pipeline_root=kubeflow.pipeline_root or _NO_ROOT,
        serving_root=kubeflow.serving_root,
        checkpoint_root=kubeflow.checkpoint_root,
        beam_pipeline_args=settings.beam.arguments(),
        schema_file=_SCHEMA_FILE,
        build_trainer=_trainer(kubeflow),
    )


def _trainer(kubeflow: KubeflowSettings) -> Callable[..., tfx.components.Trainer]:
    if not kubeflow.vertex.project:
        return tfx.components.Trainer
    return vertex_trainer(kubeflow.vertex, kubeflow.resources_of("Trainer"), kubeflow.image)


def compile_pipeline(pipeline: tfx.dsl.Pipeline, settings: Settings) -> list[dict[str, Any]]:
    """Compiles a pipeline.

    Args:
      pipeline: any TFX pipeline of components that the backend runs.
      settings: `kubeflow` says image, addresses and resources; the others stand in nodes'
        properties and are where runtime parameters are put.

    Returns:
      The YAML documents of the spec: the pipeline spec (schema 2.1.0), and the platform spec with
      what pods get beyond it, such as a volume.

    Raises:
      SpecError: for what the backend does not run, all of it.
    """
    check_pipeline(pipeline)
    _check_resources(pipeline, settings.kubeflow)
    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            default_image=settings.kubeflow.image,
            default_commands=list(COMMAND),
            use_pipeline_spec_2_1=True,
        )
    )
    spec = runner.run(pipeline, write_out=False)["pipelineSpec"]
    _set_runtime_parameters(spec, pipeline, settings)
    for task in spec["root"]["dag"]["tasks"].values():
        # An artifact that a lifecycle rule has deleted would still be taken for a result.
        task["cachingOptions"] = {}
    failure_dir = f"{settings.kubeflow.checkpoint_root}/{FAILURES}"
    _name_the_run(spec, failure_dir if settings.kubeflow.webhook_secret else None)
    add_page_outputs(spec)
    if settings.kubeflow.webhook_secret:
        serving_dir = f"{settings.kubeflow.serving_root}/{settings.push.model_name}"
        add_exit_handler(spec, settings.kubeflow, serving_dir, failure_dir)
    _leave_uris_to_beam(spec, pipeline, settings)
    executors = spec["deploymentSpec"]["executors"]
    containers = {
        name: each["container"] for name, each in executors.items() if "container" in each
    }
    wanted = _wanted(containers, pipeline, settings.kubeflow)
    for name, container in containers.items():
        _set_container(container, wanted[name], settings.kubeflow)
        _set_attempts(name, container, wanted[name], settings.kubeflow)
    if settings.kubeflow.pipeline_root:
        spec["defaultPipelineRoot"] = settings.kubeflow.pipeline_root
    platform = platform_spec(wanted, settings.kubeflow)
    check_spec(spec, platform)
    return [spec, platform]


def _wanted(
    executors: Iterable[str], pipeline: tfx.dsl.Pipeline, kubeflow: KubeflowSettings
) -> dict[str, NodeResources]:
    """What the container of each executor may use."""
    wanted = {name: kubeflow.resources_of(name.removesuffix(_SUFFIX)) for name in executors}
    for node in pipeline.components:
        if trains_elsewhere(node):
            # It waits there as long as the training takes, and needs no more than other nodes.
            seconds = wanted[f"{node.id}{_SUFFIX}"].timeout_seconds
            waiting = kubeflow.resources_of(DEFAULT).model_copy(update={"timeout_seconds": seconds})
            wanted[f"{node.id}{_SUFFIX}"] = waiting
    return wanted


def _check_resources(pipeline: tfx.dsl.Pipeline, kubeflow: KubeflowSettings) -> None:
    """Refuses rows of `kubeflow.resources` that no node would use."""
    nodes = [node.id for node in pipeline.components]
    rows = set(kubeflow.resources) - set(KubeflowSettings().resources) - set(nodes)
    if rows:
        raise SpecError(
            f"the pipeline has no node {', '.join(sorted(rows))}",
            "kubeflow.resources",
            f"name one of {', '.join(nodes)}",
        )


def write_spec(documents: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes a spec as YAML, whole or not at all."""
    content = yaml.safe_dump_all(documents, sort_keys=True, width=100)
    storage.write(str(path), content.encode())


def _set_runtime_parameters(
    spec: dict[str, Any], pipeline: tfx.dsl.Pipeline, settings: Settings
) -> None:
    """Gives the parameters TFX compiled their defaults, and settings inside JSON parameters."""
    inputs = spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    for parameter in _runtime_parameters(pipeline):
        if parameter.default is not None:
            inputs[parameter.name]["defaultValue"] = parameter.default
        if parameter.description:
            inputs[parameter.name]["description"] = parameter.description
    tasks = spec["root"]["dag"]["tasks"]
    for parameter in parameters.SETTING_PARAMETERS:
        for name, key in parameter.places():
            if name not in tasks:
                continue
            component = spec["components"][tasks[name]["componentRef"]["name"]]
            component["inputDefinitions"]["parameters"][key] = {"parameterType": "NUMBER_DOUBLE"}
            tasks[name]["inputs"]["parameters"][key] = {"componentInputParameter": parameter.name}
            inputs[parameter.name] = {
                "parameterType": "NUMBER_DOUBLE",
                "defaultValue": parameter.default(settings),
                "description": parameter.description,
            }


def _runtime_parameters(pipeline: tfx.dsl.Pipeline) -> Iterator[RuntimeParameter]:
    for node in pipeline.components:
        for value in node.exec_properties.values():
            if isinstance(value, RuntimeParameter):
                yield value


def _leave_uris_to_beam(
    spec: dict[str, Any], pipeline: tfx.dsl.Pipeline, settings: Settings
) -> None:
    """Tells nodes whose Beam workers are elsewhere to use the store itself."""
    if settings.beam.sees_this_disk:
        return
    if not (settings.kubeflow.pipeline_root or "").startswith("gs://"):
        raise SpecError(
            "the workers of beam.pipeline_args do not see a container's disk, and TensorFlow reads "
            "no store but gs://",
            "kubeflow.pipeline_root",
            "set kubeflow.pipeline_root to gs://..., or beam.pipeline_args=[]",
        )
    for node in pipeline.components:
        if isinstance(node.executor_spec, executor_spec.BeamExecutorSpec):
            executor = spec["deploymentSpec"]["executors"][f"{node.id}{_SUFFIX}"]
            executor["container"]["args"].append("--leave_gs_uris")


def _name_the_run(spec: dict[str, Any], failure_dir: str | None) -> None:
    """Gives each container the id of the run, and the folder for `container/failures.py`."""
    constants = {"run_id": "{{$.pipeline_job_uuid}}"}
    if failure_dir:
        constants["failure_dir"] = failure_dir
    for task in spec["root"]["dag"]["tasks"].values():
        component = spec["components"][task["componentRef"]["name"]]
        if "container" not in spec["deploymentSpec"]["executors"][component["executorLabel"]]:
            continue
        known = component.setdefault("inputDefinitions", {}).setdefault("parameters", {})
        values = task.setdefault("inputs", {}).setdefault("parameters", {})
        for name, value in constants.items():
            known[name] = {"parameterType": "STRING"}
            values[name] = {"runtimeValue": {"constant": value}}


def _set_attempts(
    name: str, container: dict[str, Any], wanted: NodeResources, kubeflow: KubeflowSettings
) -> None:
    """Tells the supervisor how often to run a node, and for how long."""
    if container["command"] != list(COMMAND):
        return
    options = [f"--node={name.removesuffix(_SUFFIX)}", f"--retries={kubeflow.retries}"]
    if wanted.timeout_seconds:
        options.append(f"--seconds={wanted.timeout_seconds}")
    container["command"] += options


def _set_container(
    container: dict[str, Any], wanted: NodeResources, kubeflow: KubeflowSettings
) -> None:
    environment = dict(_ENVIRONMENT)
    if kubeflow.s3_endpoint:
        environment[storage.ENDPOINT_VARIABLE] = kubeflow.s3_endpoint
    container.setdefault("env", []).extend(
        {"name": name, "value": value} for name, value in environment.items()
    )
    # What the DAG itself asked for with `with_platform_config` stands.
    if "resources" not in container:
        container["resources"] = _resources(wanted)


def _resources(wanted: NodeResources) -> dict[str, Any]:
    # The backend reads memory in G of 10^9 bytes.
    memory = round(wanted.memory_gib * 1024**3 / 1e9, 3)
    resources: dict[str, Any] = {
        "cpuLimit": wanted.cpu,
        "cpuRequest": wanted.cpu,
        "memoryLimit": memory,
        "memoryRequest": memory,
    }
    if wanted.gpu:
        resources["accelerator"] = {"type": wanted.gpu_type, "count": str(wanted.gpu)}
    return resources
