"""TFX's stock entry point fails under the backend's rules, ours passes: real nodes, rehearsed."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from pipeline.kubeflow.compiler.compile import compile_settings
from pipeline.kubeflow.compiler.spec_file import read_pipeline
from pipeline.kubeflow.emulator.rehearsal import TaskResult, rehearse
from pipeline.settings.resolution import resolve

STOCK = ["python", "-m", "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"]


@pytest.fixture(scope="module")
def document() -> dict:
    """The spec of the whole pipeline."""
    return compile_settings(resolve("smoke", environ={}).settings)[0]


def only(document: dict, *names: str, stock: Sequence[str] = ()) -> dict:
    """The spec with some of its tasks, and of those some with TFX's stock entry point."""
    spec = copy.deepcopy(document)
    tasks = spec["root"]["dag"]["tasks"]
    spec["root"]["dag"]["tasks"] = {name: tasks[name] for name in names}
    for name in stock:
        container = spec["deploymentSpec"]["executors"][f"{name}_executor"]["container"]
        container["command"] = STOCK
    return spec


def run(spec: dict, span_dir: Path, tmp_path: Path, **options) -> dict[str, TaskResult]:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec))
    parameters = {"data_dir": str(span_dir)}
    results = rehearse(read_pipeline(path), parameters, work_dir=tmp_path / "work", **options)
    return {result.name: result for result in results}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nodes", "options", "reason"),
    [
        (["MnistExampleGen"], {}, "system.Artifact"),  # the output that the driver adds
        (["MnistExampleGen", "StatisticsGen"], {"publish_logs": False}, "NoneType"),
        (["MnistExampleGen"], {"publish_logs": False}, "minio://"),
        # The node goes to the store itself, whose keys only the launcher has.
        (["MnistExampleGen"], {"publish_logs": False, "store": "s3"}, "locate credentials"),
    ],
)
def test_tfx_entry_point_fails(document, span_dir, tmp_path, nodes, options, reason):
    """The last node has it. `tests/unit/pipeline/kubeflow/container/` shows what ours does."""
    results = run(only(document, *nodes, stock=nodes[-1:]), span_dir, tmp_path, **options)
    assert [result.outcome for result in results.values()] == [
        *["succeeded"] * (len(nodes) - 1),
        "failed",
    ]
    assert reason in results[nodes[-1]].message


@pytest.mark.slow
def test_a_poisoned_span_stops_one_run_and_the_next_goes_on(digits, write_span, tmp_path):
    """The gate as a pod: what it writes beside the served models is what ingestion reads."""
    images, labels = digits
    for span in (1, 2):
        write_span(
            tmp_path / "data" / f"span-{span}", images, labels[:: 1 if span == 1 else -1], train=700
        )
        (tmp_path / "data" / f"span-{span}" / "_SUCCESS").touch()
    places = [f"kubeflow.volume_path={tmp_path}"]
    places += [f"kubeflow.{name}_root={tmp_path}/{name}" for name in ("serving", "checkpoint")]
    whole = compile_settings(resolve("smoke", environ={}, assignments=places).settings)[0]
    nodes = ("MnistExampleGen", "StatisticsGen", "ImportSchemaGen", "ExampleValidator", "DataGate")
    spec = only(whole, *nodes)
    first = run(spec, tmp_path / "data", tmp_path)
    assert first["DataGate"].outcome == "failed"
    assert "span 2 is quarantined" in first["DataGate"].message
    entries = json.loads((tmp_path / "serving" / "quarantine.json").read_text())
    assert list(entries) == ["2"]
    second = run(spec, tmp_path / "data", tmp_path)
    assert {result.outcome for result in second.values()} == {"succeeded"}, second
    bucket = "bucket/minio/mlpipeline/v2/artifacts/mnist-gan"
    found = (tmp_path / "work").glob(f"*/{bucket}/*/DataGate/*/blessing/data_blessing.json")
    assert [json.loads(path.read_text())["span"] for path in found] == [1]
