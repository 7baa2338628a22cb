"""Resolves the settings: where each value comes from, and whether it is one that is allowed.

Layers, later ones win: the defaults of `pipeline/settings/sections.py`,
`pipeline/presets/<name>.yaml`, the environment, `--set section.key=value`.
"""

import difflib
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import annotated_types
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from errors import UserError, is_credential
from parsing import LimitedLoader, parse_yaml
from pipeline.settings.sections import Settings

PRESETS_DIR = Path(__file__).parents[1] / "presets"
ENVIRONMENT_PREFIX = "MNIST_GAN_"
DATA_DIR_VARIABLE = "MNIST_DATA_DIR"
# A shell leaves the ~ of --output-dir=~/outputs as it is.
_NEAR = 0.93  # of MNIST_GAN_TRAIN_SEED to MNIST_GAN_TRAIN__SEED; service links are below
# What is trained and how it is decided; not where files lie.
_OF_THE_MODEL = ("gate", "classifier", "tune", "train", "evaluation")
_PATHS = ("output_dir", "data.dir", "data.cache_dir", "metrics.textfile")


class _Loader(LimitedLoader):
    """Takes true and false alone for such, as YAML 1.2 does: train.xla may be `on`."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class ConfigError(UserError):
    """Settings that cannot be used; each finding names the key, the value and what is allowed."""


@dataclass(frozen=True)
class Resolved:
    """Settings in force, and for each dotted key that is not a default, where it came from."""

    settings: Settings
    preset: str
    origins: dict[str, str]

    def rows(self) -> Iterator[tuple[str, Any, str, FieldInfo]]:
        """Yields (dotted key, value, origin, field) for every setting, in order."""
        for key, value in _leaves(self.settings, ""):
            field = find_field(key)
            assert field is not None
            yield key, value, self.origins.get(key, "default"), field

    def recipe(self) -> dict[str, Any]:
        """Returns `preset`, and `changed`: the settings of the model that differ from it."""
        plain = dict(_leaves(resolve(self.preset, environ={}).settings, ""))
        changed = {
            key: value
            for key, value in _leaves(self.settings, "")
            if key.partition(".")[0] in _OF_THE_MODEL and value != plain[key]
        }
        return {"preset": self.preset, "changed": changed}


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
    # The defaults of a row depend on its name: those of `kubeflow.resources.Trainer` are its own.
    values: dict[str, Any] = Settings().model_dump()
    origins: dict[str, str] = {}
    for key, value, origin in layers:
        _require_known(key, origin)
        is_path = key in _PATHS and isinstance(value, str)
        _set_nested(values, key, os.path.expanduser(value) if is_path else value)
        origins[key] = origin
    try:
        return Resolved(Settings.model_validate(values), preset, origins)
    except ValidationError as error:
        raise _explain(error, origins) from None


def known_keys() -> dict[str, FieldInfo]:
    """All dotted keys with their fields, in order; `<name>` stands for any row of a table."""
    return dict(_walk(Settings, ""))


def find_field(key: str) -> FieldInfo | None:
    """The field of a dotted key; None where the key is a section or unknown."""
    annotation: Any = Settings
    field = None
    for part in key.split("."):
        if _is_model(annotation):
            field = annotation.model_fields.get(part)
            if field is None:
                return None
            annotation = field.annotation
        elif _is_table(annotation):
            annotation = typing.get_args(annotation)[1]
        else:
            return None
    return None if _is_model(annotation) or _is_table(annotation) else field


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
        for kind, (sign, attribute) in _BOUNDS.items():
            if isinstance(bound, kind):
                parts.append(f"{sign} {getattr(bound, attribute)}")
        pattern = getattr(bound, "pattern", None)
        if pattern:
            parts.append(f"matching {pattern}")
    return ", ".join(parts) + (" or null" if is_union else "")


_BOUNDS: dict[type, tuple[str, str]] = {
    annotated_types.Gt: (">", "gt"),
    annotated_types.Ge: (">=", "ge"),
    annotated_types.Lt: ("<", "lt"),
    annotated_types.Le: ("<=", "le"),
    annotated_types.MinLen: ("length >=", "min_length"),
}


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_table(annotation: Any) -> bool:
    """Whether it is a mapping from names to a section, such as `kubeflow.resources`."""
    return typing.get_origin(annotation) is dict


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        annotation: Any = field.annotation
        if _is_table(annotation):
            yield from _walk(typing.get_args(annotation)[1], f"{prefix}{name}.<name>.")
        elif _is_model(annotation):
            yield from _walk(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of all settings in a section."""
    if isinstance(value, dict) or _is_model(type(value)):
        for name, inner in dict(value).items():
            yield from _leaves(inner, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, value


def _preset_layer(preset: str) -> list[tuple[str, Any, str]]:
    if preset not in preset_names():
        known = ", ".join(preset_names())
        raise ConfigError(f"there is no preset {preset!r}", "--preset", f"choose one of {known}")
    content = parse_yaml((PRESETS_DIR / f"{preset}.yaml").read_text(), _Loader) or {}
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
    # A variable is in capitals; the name of a node in `kubeflow.resources` is not in small letters.
    spelled = {key.lower(): key for key, _ in _leaves(Settings(), "")}
    for name in sorted(environ):
        key = _environment_key(name)
        if key:
            key, origin = spelled.get(key, key), f"environment {name}"
            _require_known(key, origin)
            layer.append((key, _parse_value(key, environ[name], origin), origin))
    return layer


def _environment_key(name: str) -> str:
    """The key that a variable sets: `MNIST_GAN_<SECTION>__<KEY>`; "" for any other variable."""
    if not name.startswith(ENVIRONMENT_PREFIX):
        return ""
    key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
    section, dot, _ = key.partition(".")
    return key if find_field(key) or (dot and section in Settings.model_fields) else ""


def environment_notices(environ: Mapping[str, str]) -> list[str]:
    """Names variables that set nothing and are all but settings, never with their values.

    Most that begin with `MNIST_GAN_` are no settings: Kubernetes sets `MNIST_GAN_SERVING_PORT` in
    each pod beside a Service called mnist-gan-serving.
    """
    names = {
        f"{ENVIRONMENT_PREFIX}{key.upper().replace('.', '__')}"
        for key, _ in _leaves(Settings(), "")
    }
    found = []
    for name in sorted(environ):
        if name.startswith(ENVIRONMENT_PREFIX) and not _environment_key(name):
            near = difflib.get_close_matches(name, names, n=1, cutoff=_NEAR)
            found += [f"{name} is no setting; the nearest is {each}" for each in near]
    return found


def _parse_assignment(text: str) -> tuple[str, Any, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        shown = repr(text) if text in known_keys() else "***"
        raise ConfigError(
            f"{shown} is not section.key=value",
            "--set",
            "for example --set train.max_seconds=60",
        )
    key = key.strip()
    return key, _parse_value(key, value, "--set"), "--set"


def _parse_value(key: str, text: str, origin: str) -> Any:
    """Reads a value; of an unknown key, which may be a secret's, it shows nothing."""
    _require_known(key, origin)
    try:
        return parse_yaml(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        reason = "" if is_credential(key) else f": {' '.join(str(error).split())}"
        raise ConfigError(f"{_shown(key, text)} is not YAML{reason}", key) from None


def _set_nested(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value


def _require_known(key: str, origin: str) -> None:
    if find_field(key):
        return
    known = known_keys()
    if any(name.startswith(f"{key}.") for name in known):
        first = next(name for name in known if name.startswith(f"{key}."))
        raise ConfigError(
            f"{key} is a section, not a setting", origin, f"set one of its keys, such as {first}"
        )
    nearest = [name for name in known if name.endswith(f".{key}")]
    nearest += difflib.get_close_matches(key, known, n=1)
    hint = f"the nearest is {nearest[0]}; " if nearest else ""
    raise ConfigError(
        f"there is no setting {key}", origin, f"{hint}`local_runner.py config` lists them all"
    )


def _explain(error: ValidationError, origins: Mapping[str, str]) -> ConfigError:
    errors: list[ConfigError] = []
    named: set[str] = set()
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        while key and not find_field(key) and "." in key and not _is_section(key):
            key = key.rpartition(".")[0]
        if key in named:  # a list has an error for each member, and for what is left of it
            continue
        named.add(key)
        reason = problem["msg"].removeprefix("Value error, ")
        if field := find_field(key):
            origin = origins.get(key, "default")
            what = f"{key} = {_shown(key, problem['input'])}: {reason[0].lower()}{reason[1:]}"
            errors.append(ConfigError(what, origin, f"it takes {allowed(field)}"))
        else:
            errors.append(_conflict(key, reason, origins) if key else ConfigError(reason))
    if len(errors) == 1:
        return errors[0]
    return ConfigError(f"{len(errors)} settings cannot be used", findings=list(map(str, errors)))


def _shown(key: str, value: Any) -> str:
    return "***" if is_credential(key) else repr(value)


def _conflict(section: str, reason: str, origins: Mapping[str, str]) -> ConfigError:
    """The error for settings of a section that do not go together, each by its whole key."""
    prefix = f"{section}."
    names = {key.removeprefix(prefix) for key in known_keys() if key.startswith(prefix)}
    words = re.compile(r"\b(" + "|".join(sorted(names, key=len, reverse=True)) + r")\b")
    keys = dict.fromkeys(f"{section}.{name}" for name in words.findall(reason))
    sources = ", ".join(f"{key} from {origins.get(key, 'default')}" for key in keys)
    return ConfigError(words.sub(rf"{section}.\1", reason), sources or section)


def _is_section(key: str) -> bool:
    return any(name.startswith(f"{key}.") for name in known_keys())
