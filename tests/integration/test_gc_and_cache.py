"""TFX's cache after gc: what was removed is made again, what was kept is not."""

from pathlib import Path

import numpy as np
from running_nodes import Listener, pipeline_of

from mnist.records import load_split
from pipeline.local.paths import OutputPaths
from pipeline.local.retention import plan, remove
from pipeline.local.runner import ReportingRunner
from pipeline.pipeline import create_data_nodes
from pipeline.settings.resolution import resolve


def ingest(paths: OutputPaths, data: Path) -> bool:
    """Runs MnistExampleGen; whether the cache answered."""
    nodes = create_data_nodes(resolve(environ={}).settings, data_dir=str(data), source="a test")
    listener = Listener()
    runner = ReportingRunner(
        listener,
        run_properties={},
        node_content={"MnistExampleGen": lambda _: data.name},
    )
    runner.run(pipeline_of(paths.root, [nodes.example_gen], enable_cache=True))
    return listener.ended["MnistExampleGen"]


def test_a_run_after_gc_makes_again_what_was_removed(tmp_path, digits, write_span):
    images, labels = digits
    old, new = tmp_path / "old", tmp_path / "new"
    write_span(old, images, labels, train=700)
    write_span(new, images[::-1], labels[::-1], train=700)
    paths = OutputPaths(tmp_path / "out")
    assert [ingest(paths, data) for data in (old, new, old, new)] == [False, False, True, True]
    options = {"output_dir": (str(paths.root), "test")}
    settings = resolve(assignments=["retention.runs=1"], options=options, environ={}).settings
    removals = plan(settings, paths)
    assert [each.path.name for each in removals if each.kind == "artifacts"] == ["1"]
    remove(paths, removals)
    assert ingest(paths, new)
    assert not ingest(paths, old)
    [folder] = [
        path
        for path in (paths.artifacts / "MnistExampleGen" / "examples").iterdir()
        if int(path.name) > 4
    ]
    made, _ = load_split([f"{folder}/Split-train/*"])
    np.testing.assert_array_equal(made[..., 0], images[:700])
