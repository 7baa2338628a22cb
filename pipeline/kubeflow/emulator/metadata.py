"""What the backend's metadata store keeps of an artifact, and what it gives back.

Follows `backend/src/v2/metadata/converter.go` and `client.go` of kubeflow/pipelines: numbers become
doubles of six decimals, booleans become numbers, dicts and lists come back wrapped, a null is
refused, and the type is lost.
"""

import json

from google.protobuf import struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

COMPLETE, FAILED = "COMPLETE", "FAILED"  # ML Metadata's

# How the backend reaches its own store, as a default installation of 2.17.0 writes it down. Of
# other stores nothing was recorded.
_SESSION = {
    "Provider": "minio",
    "Params": {
        "accessKeyKey": "accesskey",
        "disableSSL": "true",
        "endpoint": "seaweedfs.kubeflow:9000",
        "fromEnv": "false",
        "maxRetries": "5",
        "region": "minio",
        "secretKeyKey": "secretkey",
        "secretName": "mlpipeline-minio-artifact",
    },
}


class BackendError(Exception):
    """The backend would fail the task; the message says for what."""


class MetadataStore:
    """The outputs and states of the tasks of one DAG."""

    def __init__(self) -> None:
        self._artifacts: dict[tuple[str, str], pipeline_spec_pb2.RuntimeArtifact] = {}
        self._parameters: dict[tuple[str, str], struct_pb2.Value] = {}
        self._states: dict[str, str] = {}

    def record_state(self, task: str, state: str) -> None:
        """Keeps how a task ended."""
        self._states[task] = state

    def state(self, task: str) -> str | None:
        """How a task ended; None for one that did not run."""
        return self._states.get(task)

    def record_artifact(
        self, task: str, name: str, artifact: pipeline_spec_pb2.RuntimeArtifact
    ) -> None:
        """Keeps an output artifact; raises BackendError for metadata that cannot be kept."""
        kept = pipeline_spec_pb2.RuntimeArtifact(
            name=str(len(self._artifacts) + 1),
            uri=artifact.uri,
            # GetOutputArtifactsByExecutionId: Schema: "" // TODO: figure out how to get schema
            type=pipeline_spec_pb2.ArtifactTypeSchema(instance_schema=""),
        )
        for key, value in artifact.metadata.fields.items():
            kept.metadata.fields[key].CopyFrom(_kept_value(key, value))
        # RecordArtifact adds two properties of its own.
        session = _SESSION if artifact.uri.startswith("minio://") else {}
        info = json.dumps(session, separators=(",", ":"))
        for key, text in (("display_name", name), ("store_session_info", info)):
            if key not in kept.metadata.fields:
                kept.metadata.fields[key].string_value = text
        self._artifacts[task, name] = kept

    def artifact(self, task: str, name: str) -> pipeline_spec_pb2.RuntimeArtifact:
        """What a task emitted; raises BackendError where it did not."""
        if (task, name) not in self._artifacts:
            raise BackendError(f"task {task} has no output artifact {name!r}")
        return self._artifacts[task, name]

    def record_parameter(self, task: str, name: str, value: struct_pb2.Value) -> None:
        """Keeps an output parameter."""
        self._parameters[task, name] = value

    def parameter(self, task: str, name: str) -> struct_pb2.Value:
        """What a task emitted; raises BackendError where it did not."""
        if (task, name) not in self._parameters:
            raise BackendError(f"task {task} has no output parameter {name!r}")
        return self._parameters[task, name]


def _kept_value(key: str, value: struct_pb2.Value) -> struct_pb2.Value:
    kind = value.WhichOneof("kind")
    kept = struct_pb2.Value()
    if kind == "string_value":
        kept.CopyFrom(value)
    elif kind == "number_value":
        kept.number_value = round(value.number_value, 6)
    elif kind == "bool_value":
        kept.number_value = float(value.bool_value)
    elif kind == "list_value":
        kept.struct_value.fields["list"].CopyFrom(value)
    elif kind == "struct_value":
        kept.struct_value.fields["struct"].CopyFrom(value)
    else:
        raise BackendError(f"metadata {key!r} is null: unknown/unsupported value type")
    return kept
