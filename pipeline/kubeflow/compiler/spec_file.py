"""The file of a compiled pipeline, and the parameters and pipeline root of a run of it."""

import contextlib
import difflib
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from parsing import MOST_YAML_BYTES, parse_json, parse_yaml_documents
from pipeline.kubeflow.compiler.spec_checks import SpecError, check_spec

ROOT_SCHEMES = ("gs", "minio", "s3")
_LARGEST_EXACT_INTEGER = 2**53  # numbers travel as doubles


@dataclass(frozen=True)
class PipelineFile:
    """A compiled pipeline.

    Attributes:
      spec: the pipeline spec.
      platform: the platform spec, the second document of the file; empty where there is none.
    """

    spec: dict[str, Any]
    platform: dict[str, Any]

    @property
    def name(self) -> str:
        """The pipeline's."""
        name: str = self.spec["pipelineInfo"]["name"]
        return name

    @property
    def body(self) -> dict[str, Any]:
        """What the API takes as `pipeline_spec`: the spec or, with a platform spec, both."""
        if not self.platform:
            return self.spec
        return {"pipeline_spec": self.spec, "platform_spec": self.platform}

    @contextlib.contextmanager
    def as_file(self) -> Iterator[Path]:
        """A file for `kfp`, which wants the pipeline spec first and a name that ends in .yaml."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pipeline.yaml"
            path.write_text(yaml.safe_dump_all([self.spec, self.platform]))
            yield path

    @property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """Definitions of the runtime parameters by name."""
        found: Mapping[str, Mapping[str, Any]] = (
            self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        )
        return found

    @property
    def default_root(self) -> str:
        """The pipeline root, or an empty string."""
        return str(self.spec.get("defaultPipelineRoot", ""))


def read_pipeline(path: str | Path) -> PipelineFile:
    """Reads a compiled pipeline (YAML, schema 2.1), and checks that the backend runs it.

    Raises:
      SpecError: there is no such file, it is no pipeline spec, or the backend would not run it.
    """
    documents = _read_yaml(Path(path))
    if not all(isinstance(each, dict) for each in documents):
        raise _no_spec(path, "expected YAML mappings in it")
    specs = [each for each in documents if "platforms" not in each]
    platforms = [each for each in documents if "platforms" in each]
    if len(specs) != 1 or len(platforms) > 1:
        raise _no_spec(path, "expected one pipeline spec in it, and one platform spec at most")
    [spec, platform] = [*specs, *platforms, {}][:2]
    _check_against_schema(path, spec, platform)
    if not spec.get("pipelineInfo", {}).get("name") or "dag" not in spec.get("root", {}):
        raise _no_spec(path, "it lacks pipelineInfo.name or root.dag")
    check_spec(spec, platform, str(path))
    return PipelineFile(spec, platform)


def _read_yaml(path: Path) -> list[Any]:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_YAML_BYTES + 1)
        return [each for each in parse_yaml_documents(text) if each is not None]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        what = f"the compiled pipeline cannot be read: {reason}"
        raise SpecError(what, str(path), "`kubeflow_runner.py compile` writes one") from None
    except yaml.YAMLError as error:
        raise _no_spec(path, f"it is not YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise _no_spec(path, str(error)) from None


def _check_against_schema(path: str | Path, spec: Any, platform: Any) -> None:
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    except json_format.ParseError as error:
        raise _no_spec(path, " ".join(str(error).split())) from None


def _no_spec(path: str | Path, reason: str) -> SpecError:
    return SpecError(
        f"this is no compiled pipeline: {reason}",
        str(path),
        "name the YAML file that `compile` writes",
    )


def pipeline_root(pipeline: PipelineFile, option: str | None) -> str | None:
    """Where a run keeps its artifacts: the option, else the spec's own default, else None.

    For None the backend takes the `defaultPipelineRoot` of the ConfigMap `kfp-launcher` in the
    run's namespace, else minio://mlpipeline/v2/artifacts (v2/driver/root_dag.go, v2/config/env.go).

    Raises:
      SpecError: it is on a store that the backend's launcher cannot use.
    """
    root = option or pipeline.default_root
    if not root:
        return None
    scheme, _, rest = root.partition("://")
    if scheme not in ROOT_SCHEMES or not rest.split("/")[0]:
        schemes = ", ".join(f"{known}://" for known in ROOT_SCHEMES)
        raise SpecError(
            f"{root!r} is not on a store that Kubeflow uses, expected a bucket after one of "
            f"{schemes}",
            "pipeline root",
        )
    return root


def run_parameters(pipeline: PipelineFile, assignments: Iterable[str]) -> dict[str, Any]:
    """The parameters of a run from `name=value` texts, each with the type that the spec declares.

    Lists and structs are written as JSON; a parameter that is not given takes its default on the
    cluster.

    Raises:
      SpecError: a name is unknown or given twice, a value does not fit, or a parameter without
        default is missing.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise SpecError(f"{assignment!r} has no '=', expected name=value", _OPTION)
        if name in values:
            raise SpecError(f"parameter {name} is given twice", _OPTION)
        if name not in pipeline.parameters:
            raise SpecError(f"unknown parameter {name!r}", _OPTION, _known(pipeline, name))
        values[name] = _value(name, text, pipeline.parameters[name].get("parameterType", ""))
    missing = [
        name
        for name, definition in pipeline.parameters.items()
        if name not in values
        and "defaultValue" not in definition
        and not definition.get("isOptional", False)
    ]
    if missing:
        raise SpecError(
            f"there is no value for {', '.join(missing)}, and {pipeline.name} has no default",
            _OPTION,
            f"pass --param {missing[0]}=...",
        )
    return values


def _known(pipeline: PipelineFile, name: str) -> str:
    if not pipeline.parameters:
        return f"{pipeline.name} takes none"
    near = difflib.get_close_matches(name, pipeline.parameters, 1)
    hint = f"the nearest is {near[0]}; " if near else ""
    return f"{hint}{pipeline.name} takes {', '.join(pipeline.parameters)}"


def _value(name: str, text: str, kind: str) -> Any:
    try:
        return _READERS[kind](text)
    except KeyError:
        what = f"parameter {name} is of type {kind!r}, which no run can give"
        raise SpecError(what, _OPTION) from None
    except ValueError:
        what = f"parameter {name} is {text!r}, expected {_EXPECTED[kind]}"
        raise SpecError(what, _OPTION) from None


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) > _LARGEST_EXACT_INTEGER:
        raise ValueError
    return value


def _double(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _json(text: str, kind: type) -> Any:
    value = parse_json(text)
    if not isinstance(value, kind):
        raise ValueError
    return value


_READERS: dict[str, Callable[[str], Any]] = {
    "STRING": str,
    "NUMBER_INTEGER": _integer,
    "NUMBER_DOUBLE": _double,
    "BOOLEAN": _boolean,
    "LIST": lambda text: _json(text, list),
    "STRUCT": lambda text: _json(text, dict),
}
_OPTION = "--param"
_EXPECTED = {
    "STRING": "a text",
    "NUMBER_INTEGER": "a whole number within 2**53",
    "NUMBER_DOUBLE": "a finite number",
    "BOOLEAN": "true or false",
    "LIST": "a list as JSON",
    "STRUCT": "a mapping as JSON",
}
