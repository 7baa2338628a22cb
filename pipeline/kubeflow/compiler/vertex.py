"""The GAN's training as a job of Vertex AI, through TFX's own extension.

The Trainer's container then only starts a CustomJob and waits for it. The job's container runs the
training with the same image, on one machine: of several, TFX's executor fails on those that look
for the model before the chief has written it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from tfx import v1 as tfx

    from pipeline.settings.kubeflow import NodeResources

# GiB of memory per core of n1-standard, and the numbers of cores there are.
_GIB_PER_CORE = 3.75
_CORES = (4, 8, 16, 32, 64, 96)


class VertexSettings(BaseModel):
    """Where the training runs, if on Vertex AI; null project: not there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project: str | None = Field(
        None,
        min_length=1,
        description="Google Cloud project of the training; null: it runs in the Trainer's node",
    )
    region: str | None = Field(None, min_length=1, description="such as europe-west4")
    machine_type: str | None = Field(
        None,
        min_length=1,
        description="null: the smallest n1-standard with the cores and memory of "
        "kubeflow.resources.Trainer",
    )
    service_account: str | None = Field(None, min_length=1, description="null: the project's own")

    @model_validator(mode="after")
    def _refuse_what_lacks_its_other_half(self) -> "VertexSettings":
        if self.project and not self.region:
            raise ValueError("project is set, so region has to be")
        given = [
            name
            for name, field in type(self).model_fields.items()
            if name != "project" and getattr(self, name) != field.default
        ]
        if given and not self.project:
            raise ValueError(f"{' and '.join(given)} without project: nothing would run there")
        return self


def vertex_trainer(
    vertex: VertexSettings, resources: "NodeResources", image: str
) -> "Callable[..., tfx.components.Trainer]":
    """What builds the Trainer, with the arguments of TFX's own.

    Args:
      vertex: with a project.
      resources: cores, memory and accelerators of the machine.
      image: of the job's container.
    """
    from tfx.v1.extensions import google_cloud_ai_platform as cloud

    smallest = vertex.machine_type or machine_type(resources.cpu, resources.memory_gib)
    machine: dict[str, Any] = {"machine_type": smallest}
    if resources.gpu:
        machine |= {"accelerator_type": resources.gpu_type, "accelerator_count": resources.gpu}
    pool = {
        "machine_spec": machine,
        "replica_count": 1,
        "container_spec": {"image_uri": image},
    }
    job: dict[str, Any] = {"worker_pool_specs": [pool]}
    if vertex.service_account:
        job["service_account"] = vertex.service_account
    on_vertex = {
        cloud.ENABLE_VERTEX_KEY: True,
        cloud.VERTEX_REGION_KEY: vertex.region,
        cloud.TRAINING_ARGS_KEY: {"project": vertex.project, "job_spec": job},
    }

    def build(*, custom_config: dict[str, Any], **others: Any) -> "tfx.components.Trainer":
        return cloud.Trainer(custom_config=custom_config | on_vertex, **others)

    return build


def trains_elsewhere(node: Any) -> bool:
    """Whether a Trainer only waits for a job of Vertex AI."""
    from tfx.v1.extensions import google_cloud_ai_platform as cloud

    return isinstance(node, cloud.Trainer)


def machine_type(cpu: float, memory_gib: float) -> str:
    """The smallest n1-standard with so many cores and so much memory.

    Raises:
      ValueError: when there is none.
    """
    for cores in _CORES:
        if cores >= cpu and cores * _GIB_PER_CORE >= memory_gib:
            return f"n1-standard-{cores}"
    raise ValueError(
        f"no n1-standard has {cpu:g} cores and {memory_gib:g} GiB; set vertex.machine_type"
    )
