"""Settings that only a run on a cluster needs."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.kubeflow.compiler.vertex import VertexSettings, machine_type

# Addresses are joined to names with a slash, and to an object store two are another key.
_Place = Annotated[str, AfterValidator(lambda place: place.rstrip("/"))]
_PLACE = r"^(/|gs://|s3://)[^/]"
_NAME = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"  # Kubernetes' own
# A reference as containers' runtimes read it (reference/regexp.go of distribution/reference): host
# and port, names, tag, digest. The pod of any other never starts: InvalidImageName.
IMAGE = re.compile(
    r"([a-zA-Z0-9.-]+(:[0-9]+)?/)?"
    r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)


def _image(name: str) -> str:
    if not IMAGE.fullmatch(name):
        raise ValueError(
            "this is no name of a container image; expected one such as registry/name:tag or "
            "registry/name@sha256: with 64 hexadecimal digits"
        )
    return name


_Label = Annotated[str, Field(pattern=r"^[^\s=]+=[^\s=]*$")]
_Taint = Annotated[
    str, Field(pattern=r"^[^\s=:]+(=[^\s=:]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$")
]


class NodeResources(BaseModel):
    """What the container of a node may use and where it may run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu: float = Field(2.0, gt=0, le=1024, description="cores")
    memory_gib: float = Field(4.0, gt=0, le=10_000, description="memory, GiB")
    gpu: int = Field(0, ge=0, le=64, description="accelerators")
    gpu_type: str = Field(
        "nvidia.com/gpu",
        pattern=r"^\S+$",
        description="resource name of the accelerators; for a training on Vertex AI its own name, "
        "such as NVIDIA_TESLA_T4",
    )
    node_selector: tuple[_Label, ...] = Field(
        (), description="labels that the cluster's node must have, each key=value"
    )
    tolerations: tuple[_Taint, ...] = Field(
        (),
        description="taints that it may have, as `kubectl taint` writes them: "
        "key=value:NoSchedule, or key:NoSchedule for any value",
    )
    timeout_seconds: int | None = Field(
        3600,
        ge=60,
        le=31_536_000,
        description="an attempt that takes longer is stopped, and counts as failed; null: none",
    )


DEFAULT = "default"
_TRAINING = {"cpu": 4, "memory_gib": 8, "timeout_seconds": 86_400}


def _default_resources() -> dict[str, NodeResources]:
    names = ("DigitClassifier", "Tuner", "Trainer")
    return {DEFAULT: NodeResources()} | {name: NodeResources(**_TRAINING) for name in names}


class KubeflowSettings(BaseModel):
    """Image, addresses and resources of a run on Kubeflow Pipelines."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: Annotated[str, AfterValidator(_image)] = Field(
        "mnist-gan-tfx:latest",
        description="container image of every node; a tag may name other code tomorrow, a digest "
        "(name@sha256:...) never does",
    )
    pipeline_root: str | None = Field(
        None,
        pattern=r"^(minio|s3|gs)://[^/?]+.*",
        description="where artifacts go, minio://, s3:// or gs://; null: the cluster's default",
    )
    serving_root: _Place = Field(
        "/mnt/mnist-gan/serving",
        pattern=_PLACE,
        description="where models are pushed: a mounted volume's path, gs:// or s3://",
    )
    checkpoint_root: _Place = Field(
        "/mnt/mnist-gan/checkpoints",
        pattern=_PLACE,
        description="where trainings that were cut off keep their state: a path, gs:// or s3://",
    )
    volume_claim: str | None = Field(
        "mnist-gan",
        pattern=_NAME,
        description="ReadWriteMany claim mounted at kubeflow.volume_path; null: none",
    )
    volume_path: _Place = Field(
        "/mnt/mnist-gan", pattern=r"^/[^/]", description="where it is mounted"
    )
    s3_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^/?#@]+(/[^?#@]*)?$",
        description="of the store that s3:// roots are on, such as MinIO; null: AWS. Not of "
        "kubeflow.pipeline_root, whose store the cluster's own configuration names",
    )
    s3_secret: str | None = Field(
        None,
        pattern=_NAME,
        description="Kubernetes secret with the keys accesskey and secretkey for s3:// roots; "
        "null: what the pods' service account may do",
    )
    webhook_secret: str | None = Field(
        None,
        pattern=_NAME,
        description="Kubernetes secret whose key url is the address of a webhook, such as Slack's, "
        "that gets a message when a run ended; null: no message",
    )
    retries: int = Field(2, ge=0, le=20, description="times that a failed node is tried again")
    resources: dict[str, NodeResources] = Field(
        default_factory=_default_resources, description="by node; default: of all others"
    )
    vertex: VertexSettings = VertexSettings()

    @field_validator("resources", mode="before")
    @classmethod
    def _fill_rows_from_the_default(cls, rows: Any) -> Any:
        default = rows.get(DEFAULT, {}) if isinstance(rows, dict) else {}
        if not isinstance(default, dict):
            return rows
        return {name: default | row if isinstance(row, dict) else row for name, row in rows.items()}

    @model_validator(mode="after")
    def _refuse_what_is_lost_with_the_container(self) -> "KubeflowSettings":
        for name in ("serving_root", "checkpoint_root"):
            place = getattr(self, name)
            mounted = self.volume_claim and f"{place}/".startswith(f"{self.volume_path}/")
            if not (place.startswith(("gs://", "s3://")) or mounted):
                raise ValueError(
                    f"{name} {place!r} is lost with its container: it has to be gs:// or s3://, or "
                    "below volume_path with volume_claim set"
                )
        return self

    @model_validator(mode="after")
    def _refuse_a_training_that_vertex_cannot_run(self) -> "KubeflowSettings":
        if not self.vertex.project:
            return self
        for name in ("pipeline_root", "checkpoint_root"):
            if not (getattr(self, name) or "").startswith("gs://"):
                raise ValueError(f"{name} has to be gs:// for a training on Vertex AI")
        training = self.resources_of("Trainer")
        if training.gpu and not re.fullmatch(r"[A-Z0-9_]+", training.gpu_type):
            raise ValueError(
                f"kubeflow.resources.Trainer.gpu_type={training.gpu_type} is no accelerator of "
                "Vertex AI, whose names are such as NVIDIA_TESLA_T4"
            )
        if not self.vertex.machine_type:
            machine_type(training.cpu, training.memory_gib)
        return self

    def resources_of(self, node: str) -> NodeResources:
        """The resources of a node's container."""
        return self.resources.get(node) or self.resources.get(DEFAULT) or NodeResources()
