"""What ML Metadata says of the runs, whatever the clock did and wherever they ended."""

from pathlib import Path

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from pipeline.local.history import read_runs

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

    def add(self, run_id: str, nodes: dict[str, int]) -> None:
        run = metadata_store_pb2.Context(type_id=self.types["pipeline_run"], name=run_id)
        self.store.put_contexts([run])
        for name, state in nodes.items():
            kind = self.store.put_execution_type(metadata_store_pb2.ExecutionType(name=name))
            execution = metadata_store_pb2.Execution(type_id=kind, last_known_state=state)
            known = self.store.get_context_by_type_and_name("node", f"mnist-gan.{name}")
            node = metadata_store_pb2.Context(type_id=self.types["node"], name=f"mnist-gan.{name}")
            self.store.put_execution(execution, [], [known or node, self._run(run_id)])

    def _run(self, run_id: str) -> metadata_store_pb2.Context:
        return self.store.get_context_by_type_and_name("pipeline_run", run_id)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "metadata.sqlite")


def test_runs_are_in_the_order_in_which_they_began(recorder, tmp_path):
    for run_id in ("2026-11-23T03:00:00.000001", "2026-11-21T03:00:00.000001"):
        recorder.add(run_id, {"Pusher": COMPLETE})
    runs = read_runs(tmp_path / "metadata.sqlite", 10)
    assert [run.run_id[:10] for run in runs] == ["2026-11-21", "2026-11-23"]
    assert [run.run_id[:10] for run in read_runs(tmp_path / "metadata.sqlite", 1)] == ["2026-11-21"]


@pytest.mark.parametrize(
    ("nodes", "concluded"),
    [
        ({"GeneratorEvaluator": COMPLETE}, False),
        ({"GeneratorEvaluator": COMPLETE, "Pusher": RUNNING}, False),
        ({"GeneratorEvaluator": COMPLETE, "Pusher": COMPLETE}, True),
        ({"GeneratorEvaluator": CACHED, "Pusher": CACHED}, True),
    ],
)
def test_a_run_is_concluded_by_its_push(recorder, tmp_path, nodes, concluded):
    recorder.add("2026-11-23T03:00:00.000001", nodes)
    [run] = read_runs(tmp_path / "metadata.sqlite", 1)
    assert run.concluded == concluded
