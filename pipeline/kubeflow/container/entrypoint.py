"""What a container of the pipeline runs: TFX's own entry point, between two translations.

TFX's was written for Vertex AI. What the open-source backend hands it differs, and so does what the
backend takes back: `docs/kubeflow-backend.md`. Before the node runs:

* outputs of the backend's own types, such as `executor-logs`, are left out;
* input artifacts, which come without a type, get the one that the component declares;
* URIs become the paths to which the launcher downloads, and from which it uploads;
* metadata that the backend wrapped is unwrapped;
* `package://` paths become files of the installed package, and settings inside JSON get the values
  of the run (`compiler/parameters.py`).

Afterwards, in what the node hands back, paths become the URIs again and nulls are left out, and
what Kubeflow's page shows is filled in (`ui_outputs.py`). `supervisor.py` runs this, and reads from
the exit status whether to run it again.
"""

import argparse
import importlib.resources
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import storage
from errors import FileError
from pipeline.cli.errors import exit_status
from pipeline.kubeflow import NULL_NUMBER
from pipeline.kubeflow.container.failures import Notes
from pipeline.kubeflow.container.store import container_root, local_path
from pipeline.kubeflow.container.ui_outputs import fill_page_outputs
from surroundings import prepare as prepare_process
from surroundings import use_each_core

_PACKAGE = "package://"


class _AccessError(FileError):
    """A disk or a store refused or did not answer, which may pass."""

    exit_status = 1


def main(arguments: list[str]) -> None:
    """Runs the executor that the arguments name.

    Args:
      arguments: of TFX's entry point, with `--node`, the name of the task, and `--leave_gs_uris`.

    Raises:
      UserError: what the node raises; its exit status is 2 if another attempt would fail as well.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--node", required=True)
    parser.add_argument("--executor_class_path", required=True)
    parser.add_argument("--json_serialized_invocation_args", required=True)
    parser.add_argument("--json_serialized_inputs_spec_args", default="{}")
    # Where Beam's workers see the store, and not this container's disk.
    parser.add_argument("--leave_gs_uris", action="store_true")
    known, others = parser.parse_known_args(arguments)
    executor_input = json.loads(known.json_serialized_invocation_args)
    notes = Notes.of(executor_input)
    notes.began(known.node)
    try:
        _run(known, others, executor_input)
    except OSError as error:
        raise _AccessError.of(error) from error
    notes.succeeded(known.node)


def _run(known: argparse.Namespace, others: list[str], executor_input: dict[str, Any]) -> None:
    leave_gs = known.leave_gs_uris
    backend_uris = {
        name: artifact["uri"]
        for name, artifact in _artifacts(executor_input.get("outputs", {}))
        if _is_backend_type(artifact)
    }
    uris = prepare(executor_input, json.loads(known.json_serialized_inputs_spec_args), leave_gs)
    logging.basicConfig()
    logging.getLogger("mnist_gan.progress").setLevel(logging.INFO)
    # Only here, since it takes seconds.
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    from pipeline.beam_jobs import prepare_jobs
    from pipeline.beam_workers import prepare_workers

    prepare_workers()
    prepare_jobs()
    make_output_folders(executor_input)
    known.json_serialized_invocation_args = json.dumps(executor_input)
    kubeflow_v2_run_executor.main((known, others))
    output_file = Path(executor_input["outputs"]["outputFile"])
    output = finish(json.loads(output_file.read_text()), uris, leave_gs)
    root = container_root()
    paths = {name: local_path(uri, root) or uri for name, uri in {**uris, **backend_uris}.items()}
    fill_page_outputs(output, paths, backend_uris)
    output_file.write_text(json.dumps(output))


def prepare(
    executor_input: dict[str, Any], inputs_spec: dict[str, Any], leave_gs: bool = False
) -> dict[str, str]:
    """Turns the backend's ExecutorInput, as JSON, into one that TFX's entry point runs.

    Args:
      executor_input: changed in place.
      inputs_spec: the component's input definitions, as JSON.
      leave_gs: whether `gs://` stays as it is.

    Returns:
      The URI of each output artifact.
    """
    inputs = executor_input.setdefault("inputs", {})
    outputs = executor_input.setdefault("outputs", {})
    drop_backend_outputs(outputs)
    fill_input_types(inputs, inputs_spec)
    unwrap_metadata(inputs)
    uris = {name: artifact["uri"] for name, artifact in _artifacts(outputs)}
    localize(inputs, outputs, leave_gs)
    parameters = inputs.get("parameterValues", {})
    parameters.pop("failure_dir", None)
    apply_overrides(parameters)
    for name, value in parameters.items():
        if isinstance(value, str) and value.startswith(_PACKAGE):
            parameters[name] = package_file(value)
    return uris


def drop_backend_outputs(outputs: dict[str, Any]) -> None:
    """Leaves out what the launcher fills by itself, whose types are no classes of TFX's."""
    artifacts = outputs.get("artifacts", {})
    for name in [name for name, artifact in _artifacts(outputs) if _is_backend_type(artifact)]:
        del artifacts[name]


def _is_backend_type(artifact: dict[str, Any]) -> bool:
    return artifact.get("type", {}).get("schemaTitle", "").startswith("system.")


def fill_input_types(inputs: dict[str, Any], inputs_spec: dict[str, Any]) -> None:
    """Gives each input artifact the type that the component declares for it."""
    declared = inputs_spec.get("artifacts", {})
    for name, artifact in _artifacts(inputs):
        if name in declared:
            artifact["type"] = declared[name]["artifactType"]


def unwrap_metadata(inputs: dict[str, Any]) -> None:
    """Undoes what the backend's store does to dicts and lists in metadata."""
    for _, artifact in _artifacts(inputs):
        metadata = artifact.get("metadata", {})
        for key, value in metadata.items():
            if isinstance(value, dict) and len(value) == 1:
                [(kind, inner)] = value.items()
                if (kind == "struct" and isinstance(inner, dict)) or (
                    kind == "list" and isinstance(inner, list)
                ):
                    metadata[key] = inner


def localize(inputs: dict[str, Any], outputs: dict[str, Any], leave_gs: bool = False) -> None:
    """Turns URIs into the launcher's local paths."""
    for _, artifact in (*_artifacts(inputs), *_artifacts(outputs)):
        artifact["uri"] = _place(artifact["uri"], leave_gs)
    outputs["outputFile"] = container_root() + outputs["outputFile"]


def _place(uri: str, leave_gs: bool) -> str:
    """Where a node finds the artifact."""
    if leave_gs and uri.startswith("gs://"):
        return uri
    return local_path(uri, container_root()) or uri


def apply_overrides(parameters: dict[str, Any]) -> None:
    """Puts `property.path.in.it` into the JSON of `property`; `NULL_NUMBER` as null."""
    for name in [name for name in parameters if "." in name]:
        value = parameters.pop(name)
        key, *path, last = name.split(".")
        content = json.loads(parameters[key])
        place = content
        for part in path:
            place = place[part]
        place[last] = None if value == NULL_NUMBER else value
        parameters[key] = json.dumps(content)


def package_file(address: str) -> str:
    """The path of `package://<package>/<path in it>`, wherever the package is installed."""
    package, _, path = address.removeprefix(_PACKAGE).partition("/")
    return str(importlib.resources.files(package).joinpath(path))


def make_output_folders(executor_input: dict[str, Any]) -> None:
    """Makes the folders of output artifacts, without what an attempt that failed left there.

    The log of a training stays, since a training that resumes continues it.
    """
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils
    from tfx.types.standard_artifacts import ModelRun
    from tfx.types.value_artifact import ValueArtifact

    message = json_format.ParseDict(executor_input, pipeline_spec_pb2.ExecutorInput())
    outputs = kubeflow_v2_entrypoint_utils.parse_raw_artifact_dict(message.outputs.artifacts)
    # TFX would take it for a driver's.
    Path(executor_input["outputs"]["outputFile"]).unlink(missing_ok=True)
    for artifact in (each for found in outputs.values() for each in found):
        # The value of a ValueArtifact is a file.
        is_file = isinstance(artifact, ValueArtifact)
        if "://" not in artifact.uri:
            if not isinstance(artifact, ModelRun):
                storage.remove(artifact.uri)
            os.makedirs(os.path.dirname(artifact.uri) if is_file else artifact.uri, exist_ok=True)


def finish(output: dict[str, Any], uris: dict[str, str], leave_gs: bool = False) -> dict[str, Any]:
    """Turns TFX's ExecutorOutput, as JSON, into one that the backend takes.

    Args:
      output: changed in place.
      uris: of each output artifact.
      leave_gs: whether `gs://` stayed as it was.

    Returns:
      The output.

    Raises:
      ValueError: when the node moved an output elsewhere, where the launcher would lose it.
    """
    for name, artifact in _artifacts(output):
        place = _place(uris[name], leave_gs)
        if artifact.get("uri") != place:
            raise ValueError(
                f"the node moved its output {name!r} to {artifact.get('uri')!r}; the launcher "
                f"uploads what is at {place!r}"
            )
        artifact["uri"] = uris[name]
        metadata = artifact.get("metadata", {})
        artifact["metadata"] = {key: each for key, each in metadata.items() if each is not None}
    return output


def _artifacts(place: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """All artifacts of an ExecutorInput's inputs or outputs, or of an ExecutorOutput."""
    return [
        (name, artifact)
        for name, found in place.get("artifacts", {}).items()
        for artifact in found.get("artifacts", [])
    ]


if __name__ == "__main__":
    given = prepare_process()
    use_each_core()
    sys.exit(exit_status(lambda: main(given)))
