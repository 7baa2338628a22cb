"""Which nodes the DAG has."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.nodes import node_names
from pipeline.pipeline import create_pipeline
from pipeline.settings.resolution import resolve


def compiled(tmp_path: Path, *assignments: str) -> dict[str, Any]:
    pipeline = create_pipeline(
        resolve(environ={}, assignments=assignments).settings,
        data_dir="data",
        source="a test",
        pipeline_root=str(tmp_path / "artifacts"),
        serving_root=str(tmp_path / "serving"),
        checkpoint_root=str(tmp_path / "checkpoints"),
    )
    return {node.id: node for node in pipeline.components}


def test_the_search_is_in_the_pipeline_only_where_it_is_asked_for(tmp_path: Path) -> None:
    nodes = compiled(tmp_path)
    assert "Tuner" not in nodes
    assert "hyperparameters" not in nodes["Trainer"].inputs
    nodes = compiled(tmp_path, "tune.enabled=true")
    readers = {"Trainer", "GeneratorEvaluator"}
    assert {node.id for node in nodes["Tuner"].downstream_nodes} == readers
    for name in readers:
        assert "hyperparameters" in nodes[name].inputs
    assert list(nodes).index("Tuner") < list(nodes).index("Trainer")


@pytest.mark.parametrize("search", ["tune.enabled=false", "tune.enabled=true"])
def test_the_names_of_the_nodes_are_known_without_building_them(
    tmp_path: Path, search: str
) -> None:
    assert node_names(resolve(environ={}, assignments=[search]).settings) == list(
        compiled(tmp_path, search)
    )
