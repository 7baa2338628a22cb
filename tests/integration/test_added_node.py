"""A node added to the DAG needs no change in the local runner; the compiler: `test_compile.py`."""

from pathlib import Path

from tfx import v1 as tfx

from pipeline.local.history import open_store
from pipeline.local.runner import ReportingRunner
from pipeline.pipeline import create_data_nodes
from pipeline.settings.resolution import resolve


class Listener:
    def __init__(self) -> None:
        self.ended: list[str] = []

    def node_started(self, node_id: str, position: int, total: int) -> None:
        assert (position, total) == (len(self.ended) + 1, 6)

    def node_ended(self, node_id: str, seconds: float, *, cached: bool) -> None:
        self.ended.append(node_id)

    def node_failed(self, node_id: str, seconds: float) -> None:
        raise AssertionError(node_id)


def test_a_node_added_to_the_dag_runs_locally(tmp_path: Path, span_dir: Path) -> None:
    nodes = create_data_nodes(resolve(environ={}).settings, data_dir=str(span_dir), source="a test")
    statistics = nodes.statistics_gen.outputs["statistics"]
    more = tfx.components.SchemaGen(statistics=statistics).with_id("More")
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="added",
        pipeline_root=str(tmp_path / "artifacts"),
        components=[*nodes, more],
        enable_cache=True,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(tmp_path / "db")
        ),
    )
    listener = Listener()
    runner = ReportingRunner(listener, run_properties={}, node_content={}, uncached_nodes=set())
    runner.run(pipeline)
    assert set(listener.ended) == {node.id for node in pipeline.components}
    schemas = open_store(tmp_path / "db").get_artifacts_by_type("Schema")
    assert len(schemas) == 2
