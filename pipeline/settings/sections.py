"""The sections of the settings: what exists, its unit, range and default.

A section that a component or a server reads is defined beside that code, in its `settings.py`; what
only the runners read is defined in `pipeline/settings/`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.data_gate.settings import GateSettings
from components.serving_check.settings import ServingCheckSettings
from evaluation.metric_table import METRICS
from evaluation.settings import EvaluationSettings
from mnist.settings import DataSettings
from models.digit_classifier.settings import ClassifierSettings
from models.gan.settings import TrainSettings
from models.gan.tuning_settings import TuneSettings
from pipeline.settings.beam import BeamSettings
from pipeline.settings.kubeflow import KubeflowSettings
from registry.settings import PushSettings
from serving.settings import ServeSettings

PASSWORD_VARIABLE = "MNIST_GAN_METADATA_PASSWORD"
PASSWORD_FILE_VARIABLE = "MNIST_GAN_METADATA_PASSWORD_FILE"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LogSettings(_Section):
    """How a run, a pass and the schedule say what they do."""

    format: Literal["text", "json"] = Field(
        "text",
        description="json: an object a line, with run, span and node, on the terminal and in the "
        "run's log file",
    )


class MetricsSettings(_Section):
    """What monitoring reads."""

    textfile: str | None = Field(
        None,
        pattern=r"\.prom$",
        description="file for the textfile collector of Prometheus' node_exporter, which takes "
        "*.prom; written after each run and pass",
    )


class MetadataSettings(_Section):
    """Where ML Metadata is kept, for local runs."""

    url: str | None = Field(
        None,
        pattern=r"^(mysql|postgresql)://[^:@/?#]+@[^:@/?#]+(:[0-9]{1,5})?/[^/?#]+$",
        description="mysql:// or postgresql://user@host[:port]/database, the password being in "
        f"${PASSWORD_VARIABLE} or the file that ${PASSWORD_FILE_VARIABLE} names; null: "
        "metadata.sqlite in the output folder",
    )


class RetentionSettings(_Section):
    """What is kept of old runs. What a served version or a resumed training needs always stays."""

    automatic: bool = Field(True, description="whether to clean up after each run, as `gc` does")
    runs: int | None = Field(
        30, ge=1, le=100_000, description="last runs whose artifacts are kept; null: all"
    )
    gib: float | None = Field(
        None, gt=0, le=1e6, description="size of the artifacts that are kept, newest first, GiB"
    )
    reports: int | None = Field(
        365, ge=1, le=100_000, description="last reports and last logs that are kept; null: all"
    )


class Settings(_Section):
    """All settings of a run."""

    pipeline_name: str = Field(
        "mnist-gan", pattern=r"^[a-z0-9][a-z0-9-]*$", description="name in ML Metadata"
    )
    output_dir: str = Field("outputs", min_length=1, description="everything a run makes is here")
    data: DataSettings = DataSettings()
    gate: GateSettings = GateSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    tune: TuneSettings = TuneSettings()
    train: TrainSettings = TrainSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    serving_check: ServingCheckSettings = ServingCheckSettings()
    push: PushSettings = PushSettings()
    serve: ServeSettings = ServeSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    metadata: MetadataSettings = MetadataSettings()
    retention: RetentionSettings = RetentionSettings()
    beam: BeamSettings = BeamSettings()
    kubeflow: KubeflowSettings = KubeflowSettings()

    @model_validator(mode="after")
    def _refuse_what_could_never_be_blessed(self) -> "Settings":
        missing = {} if self.train.conditional else {"labels": "train.conditional=false"}
        missing |= {} if self.evaluation.deep else {"deep": "evaluation.deep=false"}
        for requirement, setting in missing.items():
            keys = [
                f"evaluation.thresholds.{name}"
                for name, threshold in self.evaluation.thresholds
                if threshold is not None and requirement in METRICS[name].requires
            ]
            if keys:
                raise ValueError(
                    f"with {setting}, {' and '.join(keys)} cannot be measured; set each to null"
                )
        return self

    @model_validator(mode="after")
    def _refuse_a_start_that_vertex_cannot_read(self) -> "Settings":
        elsewhere = self.train.warm_start != "none" and self.kubeflow.vertex.project
        if elsewhere and not self.kubeflow.serving_root.startswith("gs://"):
            raise ValueError(
                "train.warm_start reads what is served, so kubeflow.serving_root has to be gs:// "
                "for a training on Vertex AI"
            )
        return self
