"""The entry point's two translations, held against the rehearsal's backend and TFX's own code."""

import copy
import json

import hypothesis.strategies as st
import pytest
from google.protobuf import json_format
from hypothesis import example, given
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as tfx_utils
from tfx.types import standard_artifacts

from pipeline.kubeflow.container import entrypoint
from pipeline.kubeflow.container.store import ROOT_VARIABLE
from pipeline.kubeflow.container.ui_outputs import fill_page_outputs
from pipeline.kubeflow.emulator.driver import Scope, build_executor_input
from pipeline.kubeflow.emulator.metadata import BackendError, MetadataStore

ANOMALIES = "title: tfx.ExampleAnomalies\ntype: object\n"
COMPONENT = {
    "inputDefinitions": {
        "artifacts": {"anomalies": {"artifactType": {"instanceSchema": ANOMALIES}}},
        "parameters": {"settings": {"parameterType": "STRING"}},
    },
    "outputDefinitions": {
        "artifacts": {
            "model": {"artifactType": {"instanceSchema": "title: tfx.Model\ntype: object\n"}},
            "blessing": {"artifactType": {"instanceSchema": "title: components.DataBlessing\n"}},
            "text": {"artifactType": {"instanceSchema": "title: tfx.String\ntype: object\n"}},
        }
    },
}
TASK = {
    "inputs": {
        "artifacts": {
            "anomalies": {
                "taskOutputArtifact": {"producerTask": "A", "outputArtifactKey": "anomalies"}
            }
        },
        "parameters": {"settings": {"runtimeValue": {"constant": '{"a": 1}'}}},
    }
}


def backend_input(metadata: dict, store_scheme: str = "minio", component: dict = COMPONENT) -> dict:
    """What the backend hands to a task after one that emitted anomalies with that metadata."""
    kept = MetadataStore()
    emitted = pipeline_spec_pb2.RuntimeArtifact(uri=f"{store_scheme}://b/anomalies")
    json_format.ParseDict(metadata, emitted.metadata)
    kept.record_artifact("A", "anomalies", emitted)
    message = build_executor_input(
        "B",
        json_format.ParseDict(TASK, pipeline_spec_pb2.PipelineTaskSpec()),
        json_format.ParseDict(component, pipeline_spec_pb2.ComponentSpec()),
        Scope({}, kept, {}),
        run_root=f"{store_scheme}://b/run",
    )
    return json_format.MessageToDict(message)


def parsed(executor_input: dict, side: str) -> dict:
    message = json_format.ParseDict(executor_input, pipeline_spec_pb2.ExecutorInput())
    return tfx_utils.parse_raw_artifact_dict(getattr(message, side).artifacts)


def test_row_1_tfx_cannot_import_the_type_of_the_log():
    executor_input = backend_input({})
    with pytest.raises(ImportError):
        parsed(executor_input, "outputs")
    entrypoint.prepare(executor_input, COMPONENT["inputDefinitions"])
    assert set(parsed(executor_input, "outputs")) == {"model", "blessing", "text"}


def test_row_2_tfx_cannot_do_without_the_type_of_an_input():
    executor_input = backend_input({})
    with pytest.raises(AttributeError):
        parsed(executor_input, "inputs")
    entrypoint.prepare(executor_input, COMPONENT["inputDefinitions"])
    [anomalies] = parsed(executor_input, "inputs")["anomalies"]
    assert isinstance(anomalies, standard_artifacts.ExampleAnomalies)


@pytest.mark.parametrize(("scheme", "folder"), [("minio", "minio"), ("gs", "gcs"), ("s3", "s3")])
@pytest.mark.parametrize("root", ["", "/pod"])
def test_row_3_uris_become_local_paths_and_come_back(monkeypatch, scheme, folder, root):
    monkeypatch.setenv(ROOT_VARIABLE, root)
    executor_input = backend_input({}, scheme)
    remote = executor_input["outputs"]["artifacts"]["model"]["artifacts"][0]["uri"]
    uris = entrypoint.prepare(executor_input, COMPONENT["inputDefinitions"])
    local = executor_input["outputs"]["artifacts"]["model"]["artifacts"][0]["uri"]
    assert local == f"{root}/{folder}/" + remote.split("://")[1]
    read = executor_input["inputs"]["artifacts"]["anomalies"]["artifacts"][0]["uri"]
    assert read == f"{root}/{folder}/b/anomalies"
    assert executor_input["outputs"]["outputFile"].startswith(f"{root}/{folder}/b/run/B/")
    output = {"artifacts": {"model": {"artifacts": [{"uri": local}]}}}
    finished = entrypoint.finish(output, uris)
    assert finished["artifacts"]["model"]["artifacts"][0]["uri"] == remote


def test_an_output_moved_elsewhere_is_an_error_and_not_lost():
    uris = {"model": "minio://b/run/model"}
    output = {"artifacts": {"model": {"artifacts": [{"uri": "/tmp/model"}]}}}
    with pytest.raises(ValueError, match="/tmp/model"):
        entrypoint.finish(output, uris)


def test_row_4_a_dict_in_metadata_is_what_the_producer_wrote():
    executor_input = backend_input({"blessed": {"train": 0, "eval": 1}, "span": 3})
    entrypoint.fill_input_types(executor_input["inputs"], COMPONENT["inputDefinitions"])
    [wrapped] = parsed(executor_input, "inputs")["anomalies"]
    expected = {"train": 0.0, "eval": 1.0}
    assert wrapped.get_json_value_custom_property("blessed") == {"struct": expected}
    entrypoint.prepare(executor_input, COMPONENT["inputDefinitions"])
    [anomalies] = parsed(executor_input, "inputs")["anomalies"]
    assert anomalies.get_json_value_custom_property("blessed") == expected
    assert anomalies.span == 3


def test_row_4_a_property_without_a_value_does_not_fail_the_task():
    model = standard_artifacts.Model()
    model.uri = "/minio/b/run/model"
    _ = model.mlmd_artifact.custom_properties["note"]  # In protobuf, a look at it makes it.
    model.set_int_custom_property("steps", 7)
    produced = tfx_utils.translate_executor_output({"model": [model]}, {})
    output = {"artifacts": {"model": json_format.MessageToDict(produced["model"])}}
    with pytest.raises(BackendError):
        record(output)
    record(entrypoint.finish(output, {"model": "minio://b/run/model"}))
    assert output["artifacts"]["model"]["artifacts"][0]["metadata"] == {"steps": 7.0}


def record(output: dict) -> None:
    text = json.dumps(output)
    message = json_format.Parse(text, pipeline_spec_pb2.ExecutorOutput())
    MetadataStore().record_artifact("A", "model", message.artifacts["model"].artifacts[0])


# The backend keeps six decimals.
_numbers = st.floats(allow_nan=False, allow_infinity=False).map(lambda value: round(value, 6))
_scalars = st.text(max_size=5) | _numbers
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
_values |= st.dictionaries(st.sampled_from(["struct", "list"]), _values)


@example({"share": 0.0078125})
@given(st.dictionaries(st.text(min_size=1, max_size=6), _values, max_size=3))
def test_metadata_survives_the_way_there_and_back(metadata):
    executor_input = backend_input(metadata)
    entrypoint.prepare(executor_input, COMPONENT["inputDefinitions"])
    read = executor_input["inputs"]["artifacts"]["anomalies"]["artifacts"][0]["metadata"]
    # The backend's store keeps six decimals of a number (`emulator/recorded.json`).
    kept = {
        key: round(value, 6) if isinstance(value, float) else value
        for key, value in metadata.items()
    }
    assert {key: read[key] for key in metadata} == kept


def test_metrics_and_the_report_are_put_where_kubeflows_page_finds_them(tmp_path):
    names = ("evaluation", "report", "evaluation-metrics", "report-page", "executor-logs-0")
    paths = {name: str(tmp_path / name) for name in names}
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("<html>")
    metadata = {"fid": 1.5, "fid_low": 1.0, "fid_floor": 0.5, "recall": 0.75, "note": "text"}
    given = {"evaluation": {"artifacts": [{"uri": "minio://b/e", "metadata": metadata}]}}
    output = {"artifacts": dict(given)}
    shown = {name: f"minio://b/{name}" for name in names[2:]}
    fill_page_outputs(output, paths, shown)
    metrics = {"fid": 1.5, "recall": 0.75}
    page = {"name": "evaluation-metrics", "uri": "minio://b/evaluation-metrics"}
    assert output["artifacts"] == {
        **given,
        "evaluation-metrics": {"artifacts": [{**page, "metadata": metrics}]},
    }
    assert json.loads((tmp_path / "evaluation-metrics").read_text()) == metrics
    assert (tmp_path / "report-page").read_text() == "<html>"
    assert not (tmp_path / "executor-logs-0").exists()


def test_settings_inside_json_get_the_values_of_the_run():
    parameters = {
        "custom_config": '{"train": {"max_seconds": 240.0, "seed": 0}, "checkpoints": "/c"}',
        "custom_config.train.max_seconds": 60.0,
        "settings": '{"thresholds": {"fid_ratio": 4.0, "kid": null}}',
        "settings.thresholds.fid_ratio": -1.0,
        "plain": 3,
    }
    entrypoint.apply_overrides(parameters)
    assert json.loads(parameters.pop("custom_config")) == {
        "train": {"max_seconds": 60.0, "seed": 0},
        "checkpoints": "/c",
    }
    assert json.loads(parameters.pop("settings")) == {
        "thresholds": {"fid_ratio": None, "kid": None}
    }
    assert parameters == {"plain": 3}


def test_package_paths_are_files_of_the_installed_package():
    from pipeline.pipeline import SCHEMA_FILE

    assert entrypoint.package_file("package://pipeline/schema/schema.pbtxt") == SCHEMA_FILE


def test_folders_are_made_for_artifacts_and_files_for_values(monkeypatch, tmp_path):
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    executor_input = backend_input({})
    entrypoint.prepare(executor_input, COMPONENT["inputDefinitions"])
    entrypoint.make_output_folders(executor_input)
    made = {
        name: found["artifacts"][0]["uri"]
        for name, found in executor_input["outputs"]["artifacts"].items()
    }
    [task_root] = (tmp_path / "minio" / "b" / "run" / "B").iterdir()
    assert {path.name for path in task_root.iterdir()} == {"model", "blessing"}
    assert made["text"] == str(task_root / "text")


def test_what_a_failed_attempt_left_is_removed(monkeypatch, tmp_path):
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    component = copy.deepcopy(COMPONENT)
    run = {"artifactType": {"instanceSchema": "title: tfx.ModelRun\ntype: object\n"}}
    component["outputDefinitions"]["artifacts"]["model_run"] = run
    executor_input = backend_input({}, component=component)
    entrypoint.prepare(executor_input, component["inputDefinitions"])
    entrypoint.make_output_folders(executor_input)
    [task_root] = (tmp_path / "minio" / "b" / "run" / "B").iterdir()
    for name in ("model/part", "text", "output_metadata.json", "model_run/progress.jsonl"):
        (task_root / name).write_text("{}")
    entrypoint.make_output_folders(executor_input)
    left = {str(path.relative_to(task_root)) for path in task_root.rglob("*") if path.is_file()}
    assert left == {"model_run/progress.jsonl"}
    assert (task_root / "model").is_dir()
