"""What ML Metadata knows of the runs; needs neither TFX nor TensorFlow."""

import datetime
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_metadata
from ml_metadata.proto import metadata_store_pb2

from pipeline.local.metadata import Database
from registry.records import read_record

_State = metadata_store_pb2.Execution.State


@dataclass
class RunRecord:
    """One run.

    Attributes:
      run_id: when it started, ISO 8601 in local time.
      preset: by name; "" when not recorded.
      data_content: fingerprint of the data's files; "" when not recorded.
      span: ingested; None when the run did not get there.
      train_fingerprint: of the train split's digits; "" where it is not known.
      nodes: state by node, in the order they ran: complete, cached, failed or running.
      metrics: of the evaluation, by name.
      blessed: by the evaluator; None when it did not get there.
      pushed_version: None when nothing was pushed.
      pushed_destination: the version's folder.
      pushed_copy: folder of the copy that was kept of it, by the run that has it on record.
      evaluation_uri: folder of the evaluation's files.
      report_uri: folder of the report.
      failed_bounds: failed checks in words; "" for none.
      checks: every bound of the evaluation, as in `evaluation.json`.
      baseline: what the generator was compared with, in words.
      model_uri: of the generator that was trained.
      not_pushed_because: why the pusher refused a model that was blessed; "" when it did not.
      unchanged_version: the served version that is the run's model; None where no version is.
    """

    run_id: str
    preset: str = ""
    data_content: str = ""
    span: int | None = None
    train_fingerprint: str = ""
    nodes: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    blessed: bool | None = None
    pushed_version: str | None = None
    pushed_destination: str | None = None
    pushed_copy: str | None = None
    evaluation_uri: str | None = None
    report_uri: str | None = None
    failed_bounds: str = ""
    checks: list[dict[str, Any]] = field(default_factory=list)
    baseline: str = ""
    model_uri: str | None = None
    not_pushed_because: str = ""
    unchanged_version: str | None = None

    @property
    def failed_metrics(self) -> list[str]:
        """Names of the metrics that kept the generator from being blessed, each once."""
        return list(dict.fromkeys(c["metric"] for c in self.checks if not c["passed"]))

    @property
    def concluded(self) -> bool:
        """Whether the run went through, so that whatever was blessed has been pushed."""
        return self.ended("Pusher")

    def ended(self, node: str) -> bool:
        """Whether a node has its results."""
        return self.nodes.get(node) in ("complete", "cached")

    @property
    def started(self) -> datetime.datetime:
        """When the run started, local time."""
        return datetime.datetime.fromisoformat(self.run_id)


def open_store(database: Database | Path) -> ml_metadata.MetadataStore:
    """Connects to a metadata store; SQLite's file must exist."""
    return (Database(database) if isinstance(database, Path) else database).open()


def read_runs(database: Database | Path, limit: int) -> list[RunRecord]:
    """The last runs, newest first: by their order, not by the clock."""
    store = open_store(database)
    contexts = sorted(store.get_contexts_by_type("pipeline_run"), key=lambda c: c.id)
    return [read_run_of(store, context) for context in reversed(contexts[-limit:])]


def last_verdict(database: Database) -> RunRecord | None:
    """The newest run that went through, of the last 1,000; None where there is none."""
    return last_run(database, "Pusher")


def last_run(database: Database, node: str) -> RunRecord | None:
    """The newest run in which a node came to its end, of the last 1,000; None for no such run."""
    if not database.exists():
        return None
    store = open_store(database)
    contexts = sorted(store.get_contexts_by_type("pipeline_run"), key=lambda c: c.id)
    # One after the other: a run takes many queries, and mostly the newest is it.
    runs = (read_run_of(store, context) for context in reversed(contexts[-1000:]))
    return next((record for record in runs if record.ended(node)), None)


def read_run(database: Database | Path, run_id: str) -> RunRecord:
    """One run, by its id.

    Raises:
      KeyError: when there is no such run.
    """
    store = open_store(database)
    for context in store.get_contexts_by_type("pipeline_run"):
        if context.name == run_id:
            return read_run_of(store, context)
    raise KeyError(run_id)


def pushed_models(database: Database | Path) -> list[tuple[Path, Path]]:
    """Of all versions that a run has pushed, the folder and its copy here, oldest first."""
    artifacts = open_store(database).get_artifacts_by_type("PushedModel")
    # PostgreSQL gives them in another order than SQLite.
    in_order = sorted(artifacts, key=lambda artifact: artifact.id)
    found = ((_property(artifact, "pushed_destination"), artifact.uri) for artifact in in_order)
    return [(Path(destination), Path(uri)) for destination, uri in found if destination]


def new_pushes(database: Database, records: Iterable[RunRecord]) -> set[str]:
    """The ids of those runs that made a version; others with one found their model served already.

    The first run that has a version on record made it: a run that was killed before it recorded its
    push leaves that to the next. A version that a rollback or a repair made is no run's.
    """
    first: dict[Path, Path] = {}
    for destination, copy in pushed_models(database):
        first.setdefault(destination, copy)
    records_of = {str(copy): read_record(copy) for copy in first.values()}
    made = {copy for copy, found in records_of.items() if not found or found.copy_of is None}
    ran = (record for record in records if record.nodes.get("Pusher") == "complete")
    return {record.run_id for record in ran if record.pushed_copy in made}


def read_run_of(store: ml_metadata.MetadataStore, context: Any) -> RunRecord:
    """One run, by its context."""
    noted = context.custom_properties
    record = RunRecord(
        context.name,
        preset=noted["preset"].string_value,
        data_content=noted["data_content"].string_value,
    )
    executions = sorted(store.get_executions_by_context(context.id), key=lambda e: e.id)
    nodes = {execution.id: _node_id(store, execution) for execution in executions}
    for execution in executions:
        record.nodes[nodes[execution.id]] = _State.Name(execution.last_known_state).lower()
    for execution_id, type_name, artifact in _outputs(store, list(nodes)):
        _note(record, nodes[execution_id], type_name, artifact)
    return record


def _node_id(store: ml_metadata.MetadataStore, execution: Any) -> str:
    contexts = store.get_contexts_by_execution(execution.id)
    [name] = [context.name for context in contexts if context.type == "node"]
    return name.rpartition(".")[2]


def _outputs(
    store: ml_metadata.MetadataStore, execution_ids: list[int]
) -> Iterator[tuple[int, str, Any]]:
    """Yields (execution, type, artifact) for each artifact that one of the executions made."""
    if not execution_ids:
        return
    events = store.get_events_by_execution_ids(execution_ids)
    makers = {
        event.artifact_id: event.execution_id
        for event in events
        if event.type == metadata_store_pb2.Event.OUTPUT
    }
    types = {kind.id: kind.name for kind in store.get_artifact_types()}
    for artifact in store.get_artifacts_by_id(sorted(makers)):
        yield makers[artifact.id], types[artifact.type_id], artifact


def _note(record: RunRecord, node: str, type_name: str, artifact: Any) -> None:
    if type_name == "Examples":
        record.span = int(_property(artifact, "span") or 0)
        record.train_fingerprint = _property(artifact, "train_fingerprint") or ""
    elif type_name == "Model" and node == "Trainer":
        record.model_uri = artifact.uri
    elif type_name == "ModelBlessing":
        record.blessed = _property(artifact, "blessed") == 1
        record.failed_bounds = _property(artifact, "failed_bounds") or ""
        record.checks = json.loads(_property(artifact, "checks") or "[]")
        record.baseline = _property(artifact, "baseline") or ""
    elif type_name == "ModelEvaluation":
        record.evaluation_uri = artifact.uri
        record.metrics = {
            key: value.double_value
            for key, value in artifact.custom_properties.items()
            if value.WhichOneof("value") == "double_value"
        }
    elif type_name == "components.EvaluationReport":
        record.report_uri = artifact.uri
    elif type_name == "PushedModel":
        record.pushed_version = _property(artifact, "pushed_version")
        record.pushed_destination = _property(artifact, "pushed_destination")
        record.pushed_copy = artifact.uri
        record.not_pushed_because = _property(artifact, "not_pushed_because") or ""
        record.unchanged_version = _property(artifact, "unchanged_version")


def _property(artifact: Any, name: str) -> Any:
    for properties in (artifact.properties, artifact.custom_properties):
        if name in properties:
            value = properties[name]
            return getattr(value, value.WhichOneof("value"))
    return None
