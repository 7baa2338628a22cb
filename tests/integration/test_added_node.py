"""A node added to the DAG needs no change in the local runner; the compiler: `test_compile.py`."""

from pathlib import Path

from running_nodes import Listener, pipeline_of
from tfx import v1 as tfx

from pipeline.local.history import open_store
from pipeline.local.runner import ReportingRunner
from pipeline.pipeline import create_data_nodes
from pipeline.settings.resolution import resolve


def test_a_node_added_to_the_dag_runs_locally(tmp_path: Path, span_dir: Path) -> None:
    nodes = create_data_nodes(resolve(environ={}).settings, data_dir=str(span_dir), source="a test")
    statistics = nodes.statistics_gen.outputs["statistics"]
    more = tfx.components.SchemaGen(statistics=statistics).with_id("More")
    pipeline = pipeline_of(tmp_path, [*nodes, more], enable_cache=True)
    listener = Listener()
    runner = ReportingRunner(listener, run_properties={}, node_content={}, uncached_nodes=set())
    runner.run(pipeline)
    assert set(listener.ended) == {node.id for node in pipeline.components}
    schemas = open_store(tmp_path / "metadata.sqlite").get_artifacts_by_type("Schema")
    assert len(schemas) == 2
