"""The training as a job of Vertex AI: the compiled spec, and the job that TFX makes of it."""

import json
from typing import Any

import pytest
from google.cloud.aiplatform_v1.types import CustomJob
from hypothesis import given
from hypothesis import strategies as st
from tfx.components.trainer.executor import GenericExecutor
from tfx.extensions.google_cloud_ai_platform import training_clients
from tfx.types import standard_artifacts
from tfx.utils import name_utils

from pipeline.kubeflow.compiler.compile import compile_settings, kubeflow_pipeline
from pipeline.kubeflow.compiler.pipeline_checks import check_pipeline
from pipeline.kubeflow.compiler.vertex import machine_type
from pipeline.kubeflow.container.supervisor import pod_seconds
from pipeline.settings.resolution import ConfigError, resolve

IMAGE = f"europe-docker.pkg.dev/p/r/mnist-gan@sha256:{'0' * 64}"
ON_GCS = ("kubeflow.pipeline_root=gs://b/root", "kubeflow.checkpoint_root=gs://b/checkpoints")
ON_VERTEX = ("kubeflow.vertex.project=my-project", "kubeflow.vertex.region=europe-west4")
GPU = ("kubeflow.resources.Trainer.gpu=2", "kubeflow.resources.Trainer.gpu_type=NVIDIA_TESLA_T4")


def settings(*assignments: str):
    image = f"kubeflow.image={IMAGE}"
    return resolve("smoke", environ={}, assignments=[image, *assignments]).settings


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return compile_settings(settings(*ON_GCS, *ON_VERTEX, *GPU))


@pytest.fixture(scope="module")
def spec(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return documents[0]


def custom_config(spec: dict[str, Any]) -> dict[str, Any]:
    parameters = spec["root"]["dag"]["tasks"]["Trainer"]["inputs"]["parameters"]
    return json.loads(parameters["custom_config"]["runtimeValue"]["constant"])


def test_the_trainer_is_tfx_own_for_vertex(spec) -> None:
    check_pipeline(kubeflow_pipeline(settings(*ON_GCS, *ON_VERTEX, *GPU)))
    container = spec["deploymentSpec"]["executors"]["Trainer_executor"]["container"]
    place = container["args"].index("--executor_class_path")
    assert container["args"][place + 1] == (
        "tfx.extensions.google_cloud_ai_platform.trainer.executor.GenericExecutor"
    )
    assert container["resources"]["cpuLimit"] == 2.0, "it only waits"
    assert "accelerator" not in container["resources"]
    classifier = spec["deploymentSpec"]["executors"]["DigitClassifier_executor"]["container"]
    assert "tfx.components.trainer.executor.GenericExecutor" in classifier["args"]


def test_it_may_wait_as_long_as_a_training_takes(documents) -> None:
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    limits = {name: executor["activeDeadlineSeconds"] for name, executor in executors.items()}
    assert limits["Trainer_executor"] == pod_seconds(2, 86_400)
    assert limits["StatisticsGen_executor"] == pod_seconds(2, 3600)


def test_the_training_is_the_same(spec) -> None:
    here = custom_config(compile_settings(settings(*ON_GCS))[0])
    there = custom_config(spec)
    assert {key: there[key] for key in here} == here
    parameters = spec["root"]["dag"]["tasks"]["Trainer"]["inputs"]["parameters"]
    assert "custom_config.settings.max_seconds" in parameters, "a run may still change it"
    assert parameters["run_fn"]["runtimeValue"]["constant"] == "models.gan.run_fn.run_fn"


def test_vertex_takes_the_job(spec) -> None:
    """TFX's client makes it, and Google's own message, which refuses unknown fields, holds it."""
    job_args = custom_config(spec)["ai_platform_training_args"]
    assert job_args.pop("project") == "my-project"
    model = standard_artifacts.Model()
    model.uri = "/gcs/b/place/run/Trainer/model"
    # Without its constructor, which asks for credentials.
    client = object.__new__(training_clients.VertexJobClient)
    made = client.create_training_job(
        {}, {"model": [model]}, {}, name_utils.get_full_name(GenericExecutor), job_args, None, {}
    )
    [pool] = CustomJob(made).job_spec.worker_pool_specs
    assert pool.machine_spec.machine_type == "n1-standard-4"
    assert pool.machine_spec.accelerator_type.name == "NVIDIA_TESLA_T4"
    assert (pool.machine_spec.accelerator_count, pool.replica_count) == (2, 1)
    assert pool.container_spec.image_uri == IMAGE
    assert list(pool.container_spec.command)[:3] == ["python", "-m", "tfx.scripts.run_executor"]
    made["job_spec"]["worker_pool_specs"][0]["cores"] = 4
    with pytest.raises(ValueError, match="cores"):
        CustomJob(made)


def test_without_a_project_nothing_is_different() -> None:
    container = compile_settings(settings())[0]["deploymentSpec"]["executors"]["Trainer_executor"]
    assert "tfx.components.trainer.executor.GenericExecutor" in container["container"]["args"]


BAD = [
    (ON_VERTEX[:1], "kubeflow.vertex.region"),
    (ON_VERTEX[1:], "kubeflow.vertex.project"),
    (ON_VERTEX, "kubeflow.pipeline_root"),
    ((*ON_VERTEX, ON_GCS[0]), "kubeflow.checkpoint_root"),
    ((*ON_VERTEX, *ON_GCS, "train.warm_start=auto"), "kubeflow.serving_root"),
    ((*ON_VERTEX, *ON_GCS, "kubeflow.resources.Trainer.cpu=97"), "kubeflow.vertex.machine_type"),
    ((*ON_VERTEX, *ON_GCS, GPU[0]), "gpu_type"),
]


@pytest.mark.parametrize(("assignments", "key"), BAD)
def test_what_vertex_could_not_run_is_refused_by_key(assignments, key) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(*assignments)
    assert key in str(caught.value)


@given(cpu=st.floats(0.1, 96), memory_gib=st.floats(0.1, 360))
def test_the_machine_is_large_enough_and_no_larger(cpu: float, memory_gib: float) -> None:
    cores = int(machine_type(cpu, memory_gib).rpartition("-")[2])
    assert cores >= cpu
    assert cores * 3.75 >= memory_gib
    smaller = [each for each in (4, 8, 16, 32, 64) if each < cores]
    assert all(each < cpu or each * 3.75 < memory_gib for each in smaller)
