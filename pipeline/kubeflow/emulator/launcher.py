"""What the backend's launcher does around a container's command.

Follows `backend/src/v2/component/launcher_v2.go` of kubeflow/pipelines: inputs are downloaded,
placeholders filled, the command run, its output read strictly, and what lies at the outputs' local
paths uploaded. A pod is a folder, in which the launcher's `/gcs`, `/minio` and `/s3` are; so is the
object store.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format, struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow.container.store import ROOT_VARIABLE, local_path
from pipeline.kubeflow.container.supervisor import TERMINATION_LOG
from pipeline.kubeflow.emulator.driver import LOGS, value_text
from pipeline.kubeflow.emulator.metadata import BackendError, MetadataStore

# objectstore/config.go
_BUCKET = re.compile(r"^[a-z][a-z0-9]+:///?[^/?]+(/[^?]*)?(\?.+)?$")
# Of this machine's environment; a container has none of the rest.
_INHERITED = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "CUDA_VISIBLE_DEVICES")


@dataclass
class Launcher:
    """Runs the tasks of one run.

    Attributes:
      run_root: URI below which all artifacts of the run are.
      bucket: the folder that stands for the object store.
      pods: the folder of the pods' disks.
      logs: the folder of the tasks' logs, `<task>.log`.
      workdir: the image's WORKDIR.
      warnings: what was logged as a warning and nothing more, by task.
    """

    run_root: str
    bucket: Path
    pods: Path
    logs: Path
    workdir: Path
    warnings: dict[str, list[str]] = field(default_factory=dict)

    def launch(
        self,
        task: str,
        executor_input: Any,
        component: Any,
        container: Any,
        secrets: Mapping[str, str],
        store: MetadataStore,
    ) -> None:
        """Runs a task's container; raises BackendError when it fails or would on the backend.

        Args:
          task: its name.
          executor_input: what the driver hands to it.
          component: its ComponentSpec.
          container: its ContainerSpec.
          secrets: variables of its environment that are not in the spec.
          store: where outputs are recorded.
        """
        pod = self.pods / task
        if LOGS in executor_input.outputs.artifacts:  # of the first attempt
            executor_input.outputs.artifacts[LOGS].artifacts[0].uri += "-0"
        self._download(executor_input.inputs, pod)
        self._prepare_folders(executor_input.outputs, pod)
        try:
            _run(
                fill_placeholders(executor_input, component, container),
                {**_pod_variables(task), **_declared(container.env), **secrets},
                pod,
                self.logs / f"{task}.log",
                self.workdir,
            )
        finally:
            self._keep_log(task, executor_input.outputs, pod)
        output = read_executor_output(_inside(pod, executor_input.outputs.output_file))
        for name, value in self._parameters(task, executor_input.outputs, output, component):
            store.record_parameter(task, name, value)
        for name, artifact in self._upload(task, executor_input.outputs, output, pod):
            store.record_artifact(task, name, artifact)

    def _download(self, inputs: Any, pod: Path) -> None:
        for name, artifact in _all_artifacts(inputs.artifacts):
            if not artifact.uri.startswith(self.run_root) and not _BUCKET.match(artifact.uri):
                raise BackendError(
                    f"failed to parse bucketConfig for artifact {name!r} with uri {artifact.uri!r}"
                )
            target = local_path(artifact.uri, str(pod))
            if target:
                _copy(Path(local_path(artifact.uri, str(self.bucket)) or ""), Path(target))

    def _prepare_folders(self, outputs: Any, pod: Path) -> None:
        # Only the folders in which the artifacts are to be.
        for _, artifact in _all_artifacts(outputs.artifacts):
            Path(local_path(artifact.uri, str(pod)) or "").parent.mkdir(parents=True, exist_ok=True)
        for parameter in outputs.parameters.values():
            _inside(pod, parameter.output_file).parent.mkdir(parents=True, exist_ok=True)
        termination_log = _inside(pod, TERMINATION_LOG)
        termination_log.parent.mkdir(parents=True, exist_ok=True)
        termination_log.touch()
        self.logs.mkdir(parents=True, exist_ok=True)

    def _keep_log(self, task: str, outputs: Any, pod: Path) -> None:
        if LOGS in outputs.artifacts:
            path = local_path(outputs.artifacts[LOGS].artifacts[0].uri, str(pod)) or ""
            shutil.copyfile(self.logs / f"{task}.log", path)

    def _parameters(
        self, task: str, outputs: Any, output: Any, component: Any
    ) -> Iterator[tuple[str, struct_pb2.Value]]:
        for name in outputs.parameters:
            value = struct_pb2.Value()
            if name in output.parameter_values:
                value.CopyFrom(output.parameter_values[name])
            else:
                path = _inside(pod := self.pods / task, outputs.parameters[name].output_file)
                if not path.is_file():
                    raise BackendError(f"failed to read output parameter {name!r} below {pod}")
                kind = component.output_definitions.parameters[name].parameter_type
                value = text_value(path.read_text(), kind)
            yield name, value

    def _upload(self, task: str, outputs: Any, output: Any, pod: Path) -> Iterator[tuple[str, Any]]:
        for name, artifact in _all_artifacts(outputs.artifacts):
            if name != LOGS and output.artifacts.get(name) and output.artifacts[name].artifacts:
                _merge(output.artifacts[name].artifacts[0], artifact)
            source = local_path(artifact.uri, str(pod))
            if source is None:
                self._warn(
                    task, f"output {name!r} has the URI {artifact.uri!r}, so it is not uploaded"
                )
            elif not artifact.uri.startswith(self.run_root):
                raise BackendError(
                    f"failed to upload output {name!r}: URI {artifact.uri!r} does not have the "
                    f"prefix {self.run_root!r}"
                )
            elif not os.path.exists(source):
                self._warn(task, f"nothing is at the local path of output {name!r}")
            else:
                _copy(Path(source), Path(local_path(artifact.uri, str(self.bucket)) or ""))
            yield name, artifact

    def _warn(self, task: str, message: str) -> None:
        self.warnings.setdefault(task, []).append(message)


def fill_placeholders(executor_input: Any, component: Any, container: Any) -> list[str]:
    """The container's command and arguments with values for placeholders (compileCmdAndArgs).

    `{{$}}` is filled first, so a placeholder inside the ExecutorInput's JSON is filled too, and
    what is filled in is escaped nowhere.
    """
    whole = pipeline_spec_pb2.ExecutorInput()
    whole.CopyFrom(executor_input)
    for name, spec in component.input_definitions.parameters.items():
        if spec.HasField("default_value") and name not in whole.inputs.parameter_values:
            whole.inputs.parameter_values[name].CopyFrom(spec.default_value)
    everything = json_format.MessageToJson(whole, indent=None)
    placeholders = dict(_placeholders(whole))
    words: list[str] = [*container.command, *container.args]
    filled = [words[0].replace("{{$}}", everything)]
    for argument in words[1:]:
        text = argument.replace("{{$}}", everything)
        for placeholder, value in placeholders.items():
            text = text.replace(placeholder, value)
        filled.append(text)
    return filled


def _placeholders(executor_input: Any) -> Iterator[tuple[str, str]]:
    for side in ("inputs", "outputs"):
        for name, found in getattr(executor_input, side).artifacts.items():
            if found.artifacts:
                uri = found.artifacts[0].uri
                yield f"{{{{$.{side}.artifacts['{name}'].uri}}}}", uri
                yield f"{{{{$.{side}.artifacts['{name}'].path}}}}", local_path(uri) or ""
    for name, value in executor_input.inputs.parameter_values.items():
        yield f"{{{{$.inputs.parameters['{name}']}}}}", value_text(value)
    for name, parameter in executor_input.outputs.parameters.items():
        yield f"{{{{$.outputs.parameters['{name}'].output_file}}}}", parameter.output_file


def read_executor_output(path: Path) -> Any:
    """Reads what a container left, strictly; raises BackendError. Nothing left is no error."""
    output = pipeline_spec_pb2.ExecutorOutput()
    if path.exists():
        try:
            json_format.Parse(path.read_text(), output)
        except json_format.ParseError as error:
            raise BackendError(f"failed to unmarshal ExecutorOutput: {error}") from None
    return output


def text_value(text: str, kind: int) -> struct_pb2.Value:
    """The value of an output parameter's file (TextToPbValue in metadata/converter.go)."""
    types = pipeline_spec_pb2.ParameterType
    if kind == types.STRING:
        return struct_pb2.Value(string_value=text)
    try:
        value: struct_pb2.Value = json_format.Parse(text.strip(), struct_pb2.Value())
    except json_format.ParseError as error:
        raise BackendError(f"output parameter {text!r}: {error}") from None
    return value


def _run(
    command: list[str], variables: Mapping[str, str], pod: Path, log: Path, workdir: Path
) -> None:
    environment: dict[str, str] = {
        name: os.environ[name] for name in _INHERITED if name in os.environ
    }
    # `python` is this one: it stands for the image's.
    environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.defpath])
    environment |= variables
    environment[ROOT_VARIABLE] = str(pod)
    with open(log, "wb") as file:
        try:
            result = subprocess.run(
                command,
                cwd=workdir,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                umask=0,  # as Argo starts it
                check=False,
            )
        except OSError as error:
            raise BackendError(f"the command cannot be run: {error}") from None
    if result.returncode:
        said = _inside(pod, TERMINATION_LOG).read_text(errors="replace") or _error(log)
        raise BackendError(f"the command ended with status {result.returncode}: {said}")


def _pod_variables(task: str) -> Mapping[str, str]:
    """Those that the backend's driver gives to the pod of a first attempt (driver/driver.go)."""
    return {"KFP_POD_NAME": task.lower(), "KFP_POD_UID": task.lower(), "KFP_RETRY_INDEX": "0"}


def _declared(variables: Any) -> Mapping[str, str]:
    return {variable.name: variable.value for variable in variables}


def _error(log: Path) -> str:
    """The last line of a log; of an error with findings, the line that they follow."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("- ")] or lines
    return lines[-1].strip() if lines else "it wrote nothing"


def _merge(source: Any, target: Any) -> None:
    """mergeRuntimeArtifacts: a URI that the container wrote is taken as it is."""
    if source.uri:
        target.uri = source.uri
    for key, value in source.metadata.fields.items():
        target.metadata.fields[key].CopyFrom(value)


def _all_artifacts(artifacts: Any) -> list[tuple[str, Any]]:
    return [(name, each) for name, found in artifacts.items() for each in found.artifacts]


def _inside(pod: Path, path: str) -> Path:
    return pod / path.lstrip("/")


def _copy(source: Path, target: Path) -> None:
    """Copies a file or the files below a folder; an object store has no empty folders."""
    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    for file in files:
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
