import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from yaml_bomb import bomb

from pipeline.kubeflow.compiler.spec_checks import SpecError
from pipeline.kubeflow.compiler.spec_file import pipeline_root, read_pipeline, run_parameters


def _document(**parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "pipelineInfo": {"name": "digits"},
        "schemaVersion": "2.1.0",
        "sdkVersion": "tfx-1.16.0",
        "deploymentSpec": {
            "executors": {"exec-say": {"container": {"image": "busybox:1", "command": ["true"]}}}
        },
        "components": {"comp-say": {"executorLabel": "exec-say"}},
        "root": {
            "dag": {
                "tasks": {
                    "say": {"taskInfo": {"name": "say"}, "componentRef": {"name": "comp-say"}}
                }
            },
            "inputDefinitions": {"parameters": parameters},
        },
    }


def _write(folder: Path, *documents: Any) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    return path


_PARAMETERS: dict[str, dict[str, Any]] = {
    "span": {"parameterType": "NUMBER_INTEGER", "defaultValue": -1},
    "rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.1},
    "data": {"parameterType": "STRING"},
    "tune": {"parameterType": "BOOLEAN", "defaultValue": False},
    "spans": {"parameterType": "LIST", "isOptional": True},
    "limits": {"parameterType": "STRUCT", "isOptional": True},
}


def test_a_spec_is_sent_as_it_stands_in_the_file(tmp_path: Path) -> None:
    document = _document(**_PARAMETERS)
    pipeline = read_pipeline(_write(tmp_path, document))
    assert pipeline.name == "digits"
    assert pipeline.body == document
    assert list(pipeline.parameters) == list(_PARAMETERS)


@pytest.mark.parametrize("platform_first", [False, True])
def test_a_platform_spec_is_sent_beside_the_spec(tmp_path: Path, platform_first: bool) -> None:
    platform = {
        "platforms": {
            "kubernetes": {
                "deploymentSpec": {
                    "executors": {"exec-say": {"nodeSelector": {"labels": {"pool": "gpu"}}}}
                }
            }
        }
    }
    documents = [platform, _document()] if platform_first else [_document(), platform]
    pipeline = read_pipeline(_write(tmp_path, *documents))
    assert pipeline.body == {"pipeline_spec": _document(), "platform_spec": platform}
    with pipeline.as_file() as path:
        assert list(yaml.safe_load_all(path.read_text())) == [_document(), platform]


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"- 1\n- 2\n",
        b"a: [",
        b"\xff\xfe\x00",
        b"spec: {jobs: 1}\n",
        b"pipelineSpec: {}\nruntimeConfig: {}\n",
        b"schemaVersion: 2.1.0\n",
    ],
)
def test_a_file_that_is_no_spec_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "pipeline.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        read_pipeline(path)
    assert caught.value.where == str(path)


def test_parameters_get_the_types_that_the_spec_declares(tmp_path: Path) -> None:
    pipeline = read_pipeline(_write(tmp_path, _document(**_PARAMETERS)))
    given = ["span=7", "rate=1e-3", "data=gs://b/x=1", "tune=True", "spans=[1]", 'limits={"a": 2}']
    assert run_parameters(pipeline, given) == {
        "span": 7,
        "rate": 0.001,
        "data": "gs://b/x=1",
        "tune": True,
        "spans": [1],
        "limits": {"a": 2},
    }
    assert run_parameters(pipeline, ["data="]) == {"data": ""}


@pytest.mark.parametrize(
    ("assignments", "named"),
    [
        (["data=x", "spam=7"], "nearest is span; digits takes span, rate"),
        (["data=x", "zzz=7"], "'zzz'; digits takes span, rate"),
        ([], "data"),
        (["data"], "'data'"),
        (["data=x", "data=y"], "data"),
        (["data=x", "span=1.5"], "span is '1.5'"),
        (["data=x", f"span={2**53 + 1}"], f"span is '{2**53 + 1}'"),
        (["data=x", "rate=nan"], "rate is 'nan'"),
        (["data=x", "rate=fast"], "rate is 'fast'"),
        (["data=x", "tune=1"], "tune is '1'"),
        (["data=x", "spans={}"], "spans is '{}'"),
        (["data=x", "limits=[1"], "limits is '[1'"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    tmp_path: Path, assignments: list[str], named: str
) -> None:
    pipeline = read_pipeline(_write(tmp_path, _document(**_PARAMETERS)))
    with pytest.raises(SpecError) as caught:
        run_parameters(pipeline, assignments)
    assert named in str(caught.value)
    assert caught.value.where == "--param"


def test_a_pipeline_without_parameters_takes_none(tmp_path: Path) -> None:
    document = _document()
    del document["root"]["inputDefinitions"]
    pipeline = read_pipeline(_write(tmp_path, document))
    assert run_parameters(pipeline, []) == {}
    with pytest.raises(SpecError):
        run_parameters(pipeline, ["span=1"])


def test_the_root_is_the_options_else_the_specs_else_the_clusters(tmp_path: Path) -> None:
    plain = read_pipeline(_write(tmp_path, _document()))
    rooted = read_pipeline(_write(tmp_path, {**_document(), "defaultPipelineRoot": "gs://b/own"}))
    assert pipeline_root(rooted, None) == "gs://b/own"
    assert pipeline_root(rooted, "minio://mlpipeline/x") == "minio://mlpipeline/x"
    assert pipeline_root(plain, None) is None
    for bad in ("/data", "file:///data", "hdfs://a/b", "gs://", "s3:///key"):
        with pytest.raises(SpecError) as caught:
            pipeline_root(plain, bad)
        assert caught.value.where == "pipeline root"


@pytest.mark.parametrize("content", [bomb(20), "[" * 100_000, "x" * 2_000_000])
def test_a_file_that_costs_more_than_it_says_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(content)
    started = time.monotonic()
    with pytest.raises(SpecError) as caught:
        read_pipeline(path)
    assert caught.value.where == str(path)
    assert time.monotonic() - started < 5


def test_an_alias_is_read(tmp_path: Path) -> None:
    path = _write(tmp_path, _document(span=(span := {"parameterType": "LIST"}), spans=span))
    assert "*id001" in path.read_text()
    assert read_pipeline(path).parameters == {"span": span, "spans": span}


@pytest.mark.parametrize("depth", [100, 100_000])
def test_a_deep_parameter_is_refused(tmp_path: Path, depth: int) -> None:
    pipeline = read_pipeline(_write(tmp_path, _document(**_PARAMETERS)))
    with pytest.raises(SpecError):
        run_parameters(pipeline, [f"spans={'[' * depth}{']' * depth}"])
