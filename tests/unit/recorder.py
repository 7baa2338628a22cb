"""Writes runs into a database, for tests of what is read from it."""

from pathlib import Path

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

COMPLETE = metadata_store_pb2.Execution.COMPLETE
CACHED = metadata_store_pb2.Execution.CACHED
RUNNING = metadata_store_pb2.Execution.RUNNING


class Recorder:
    """Writes runs into a database as TFX's launcher does."""

    def __init__(self, database: Path) -> None:
        config = metadata_store_pb2.ConnectionConfig()
        config.sqlite.filename_uri = str(database)
        self.store = MetadataStore(config)
        self.types = {
            name: self.store.put_context_type(metadata_store_pb2.ContextType(name=name))
            for name in ("pipeline_run", "node")
        }

    def add(
        self, run_id: str, nodes: dict[str, int], push: tuple[Path, Path] | None = None
    ) -> None:
        """Adds a run, whose last node pushed: (the version's folder, the copy that was kept)."""
        run = metadata_store_pb2.Context(type_id=self.types["pipeline_run"], name=run_id)
        self.store.put_contexts([run])
        for name, state in nodes.items():
            kind = self.store.put_execution_type(metadata_store_pb2.ExecutionType(name=name))
            execution = metadata_store_pb2.Execution(type_id=kind, last_known_state=state)
            known = self.store.get_context_by_type_and_name("node", f"mnist-gan.{name}")
            node = metadata_store_pb2.Context(type_id=self.types["node"], name=f"mnist-gan.{name}")
            is_last = name == list(nodes)[-1]
            pushed = [self._pushed(*push)] if push and is_last else []
            self.store.put_execution(execution, pushed, [known or node, self._run(run_id)])

    def _pushed(
        self, destination: Path, copy: Path
    ) -> tuple[metadata_store_pb2.Artifact, metadata_store_pb2.Event]:
        kind = metadata_store_pb2.ArtifactType(name="PushedModel")
        type_id = self.store.put_artifact_type(kind)
        artifact = metadata_store_pb2.Artifact(type_id=type_id, uri=str(copy))
        artifact.custom_properties["pushed_destination"].string_value = str(destination)
        artifact.custom_properties["pushed_version"].string_value = destination.name
        for known in self.store.get_artifacts_by_uri(str(copy)):
            artifact.id = known.id
        return artifact, metadata_store_pb2.Event(type=metadata_store_pb2.Event.OUTPUT)

    def _run(self, run_id: str) -> metadata_store_pb2.Context:
        return self.store.get_context_by_type_and_name("pipeline_run", run_id)
