"""The rehearsal enforces the backend's restrictions; each container is one line of Python."""

import json
from pathlib import Path

import pytest
import yaml
from spec_builder import PUT, SHOW, SpecBuilder

from pipeline.kubeflow.compiler.spec_checks import SpecError
from pipeline.kubeflow.compiler.spec_file import read_pipeline
from pipeline.kubeflow.container.store import local_path
from pipeline.kubeflow.emulator.rehearsal import rehearse


@pytest.fixture
def run(tmp_path):
    """A function that rehearses a spec; gives outcomes and messages by task."""

    def rehearsed(builder, parameters=None, **options):
        options.setdefault("work_dir", tmp_path / "work")
        results = rehearse(read_pipeline(builder.write(tmp_path)), parameters or {}, **options)
        return {result.name: result for result in results}

    return rehearsed


def log_of(tmp_path: Path, task: str) -> str:
    [path] = (tmp_path / "work").glob(f"*/logs/{task}.log")
    return path.read_text()


@pytest.mark.parametrize(("store", "folder"), [("minio", "minio"), ("gs", "gcs"), ("s3", "s3")])
def test_artifacts_are_passed_on_at_the_launchers_paths(run, tmp_path, store, folder):
    builder = SpecBuilder().add("Maker", PUT)
    builder.add(
        "Taker",
        "assert open(path(uri('inputs', 'maker')) + '/part/file.txt').read() == 'hello'\n"
        "assert not os.path.exists(path(uri('outputs', 'out')))\n"
        "assert os.path.isdir(os.path.dirname(path(uri('outputs', 'out'))))\n"
        "assert sys.argv[2] == uri('inputs', 'maker')\n"
        f"assert sys.argv[3] == '/{folder}/' + sys.argv[2].split('://')[1]\n",
        artifacts=["Maker"],
        arguments=["{{$.inputs.artifacts['maker'].uri}}", "{{$.inputs.artifacts['maker'].path}}"],
    )
    results = run(builder, store=store)
    assert [result.outcome for result in results.values()] == ["succeeded"] * 2, results
    assert results["Taker"].warnings == ["nothing is at the local path of output 'out'"]
    [kept] = (tmp_path / "work").glob(f"*/bucket/{folder}/mlpipeline/v2/**/out/part/file.txt")
    assert kept.read_text() == "hello"


def test_a_container_sees_the_disk_of_its_own_pod_only(run, tmp_path):
    """So an input that was not uploaded is not there, as on a cluster."""
    builder = SpecBuilder().add("Maker", "os.makedirs(path(uri('outputs', 'out')))")
    builder.add("Taker", "os.listdir(path(uri('inputs', 'maker')))", artifacts=["Maker"])
    results = run(builder)
    assert results["Maker"].outcome == "succeeded"
    assert results["Taker"].outcome == "failed"
    assert "FileNotFoundError" in results["Taker"].message


def test_the_log_is_an_output_of_the_backends_own_type(run, tmp_path):
    run(SpecBuilder().add("Maker", SHOW))
    log = json.loads(log_of(tmp_path, "Maker"))
    logs = log["outputs"]["artifacts"]["executor-logs"]["artifacts"][0]
    assert logs["type"] == {"schemaTitle": "system.Artifact"}
    assert logs["uri"].endswith("/executor-logs-0")
    [kept] = (tmp_path / "work").glob("*/bucket/**/executor-logs-0")
    assert json.loads(kept.read_text()) == log


def test_input_artifacts_lose_their_type_and_metadata_is_wrapped(run, tmp_path):
    metadata = {"n": 3, "text": "a", "yes": True, "dict": {"a": 1}, "list": [1, "b"]}
    builder = SpecBuilder().add("Maker", PUT + f"say_artifact('out', metadata={metadata})")
    builder.add("Taker", SHOW, artifacts=["Maker"])
    assert run(builder)["Taker"].outcome == "succeeded"
    artifact = json.loads(log_of(tmp_path, "Taker"))["inputs"]["artifacts"]["maker"]["artifacts"][0]
    assert artifact["type"] == {"instanceSchema": ""}
    session = json.loads(artifact["metadata"].pop("store_session_info"))
    assert session["Provider"] == "minio"
    assert artifact["metadata"] == {
        "n": 3.0,
        "text": "a",
        "yes": 1.0,
        "dict": {"struct": {"a": 1.0}},
        "list": {"list": [1.0, "b"]},
        "display_name": "out",
    }


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("say_artifact('out', metadata={'x': None})", "'x'"),
        ("say({'unknown': 1})", "ExecutorOutput"),
        ("say_artifact('out', color='red')", "ExecutorOutput"),
        ("say_artifact('out', uri='minio://elsewhere/x')", "prefix"),
        ("sys.exit('out of ideas')", "status 1: out of ideas"),
    ],
)
def test_what_fails_a_task_stops_what_depends_on_it_and_nothing_else(run, code, named):
    builder = SpecBuilder().add("Bad", PUT + code).add("Other", PUT)
    builder.add("After", PUT, after=["Bad"]).add("Last", PUT, artifacts=["After"])
    results = run(builder)
    assert {name: result.outcome for name, result in results.items()} == {
        "Bad": "failed",
        "Other": "succeeded",
        "After": "skipped",
        "Last": "skipped",
    }
    assert named in results["Bad"].message
    assert results["Last"].message == "After did not succeed"


def test_a_local_path_as_uri_is_not_uploaded_and_fails_whoever_reads_it(run):
    builder = SpecBuilder().add(
        "Maker", PUT + "say_artifact('out', uri=path(uri('outputs','out')))"
    )
    builder.add("Taker", PUT, artifacts=["Maker"])
    results = run(builder)
    assert results["Maker"].outcome == "succeeded"
    assert "so it is not uploaded" in results["Maker"].warnings[0]
    assert "failed to parse bucketConfig" in results["Taker"].message


def test_placeholders_are_filled_as_the_launcher_does_even_inside_json(run, tmp_path):
    parameters = {
        "text": "{{$.inputs.parameters['n']}} digits",
        "n": 3,
        "share": 1e-7,
        "whole": 2.0,
    }
    arguments = ["{{$.inputs.parameters['share']}}-{{$.inputs.parameters['whole']}}"]
    code = "print(json.dumps([e['inputs']['parameterValues']['text'], *sys.argv[2:]]))"
    run(SpecBuilder().add("Maker", code, parameters=parameters, arguments=arguments))
    assert json.loads(log_of(tmp_path, "Maker")) == ["3 digits", "0.0000001-2"]


def test_the_environment_is_the_containers_not_this_machines(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_DATA_DIR", "/somewhere")
    builder = SpecBuilder().add("Maker", "print(json.dumps(dict(os.environ)))")
    container = builder.executors["Maker_executor"]["container"]
    container["env"] = [{"name": "COLOUR", "value": "red"}]
    run(builder)
    environment = json.loads(log_of(tmp_path, "Maker"))
    assert environment["COLOUR"] == "red"
    assert "MNIST_DATA_DIR" not in environment


def with_parameters() -> SpecBuilder:
    builder = SpecBuilder().add("Maker", "print(json.dumps(e['inputs']['parameterValues']))")
    builder.parameters = {
        "span": {"parameterType": "NUMBER_INTEGER", "defaultValue": -1},
        "data_dir": {"parameterType": "STRING"},
    }
    for name, definition in builder.parameters.items():
        kind = {"parameterType": definition["parameterType"]}
        builder.components["Maker"]["inputDefinitions"]["parameters"][name] = kind
        builder.tasks["Maker"]["inputs"]["parameters"][name] = {"componentInputParameter": name}
    return builder


def test_runtime_parameters_and_their_defaults(run, tmp_path):
    run(with_parameters(), {"data_dir": "/data"})
    assert json.loads(log_of(tmp_path, "Maker")) == {"span": -1.0, "data_dir": "/data"}


def write(tmp_path: Path, builder: SpecBuilder, **executor) -> Path:
    """Writes the spec with a platform spec that gives the task `Maker` more."""
    executors = {"Maker_executor": executor}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump_all([builder.document(), platform]))
    return path


def test_a_volume_is_a_folder_that_stays_from_run_to_run(tmp_path):
    code = "d = e['inputs']['parameterValues']['d']; os.makedirs(d, exist_ok=True)\n"
    code += "print(json.dumps([json.loads(e['inputs']['parameterValues']['j']), os.listdir(d)]))\n"
    code += "open(d + '/file', 'w').close()\n"
    parameters = {"d": "/mnt/v/serving", "j": '{"a": "/mnt/v", "b": "/mnt/vx", "c": "/x/mnt/v"}'}
    builder = SpecBuilder().add("Maker", code, parameters=parameters)
    path = write(tmp_path, builder, pvcMount=[{"constant": "claim", "mountPath": "/mnt/v"}])
    for _ in range(2):
        [result] = rehearse(read_pipeline(path), {}, work_dir=tmp_path / "work")
        assert result.outcome == "succeeded", result
    logs = [log.read_text() for log in sorted((tmp_path / "work").glob("*/logs/Maker.log"))]
    folder = str(tmp_path / "work" / "volumes" / "claim")
    paths = {"a": folder, "b": "/mnt/vx", "c": "/x/mnt/v"}
    assert [json.loads(log) for log in logs] == [[paths, []], [paths, ["file"]]]


def test_a_secret_is_a_variable_of_this_machine(tmp_path, monkeypatch):
    builder = SpecBuilder().add("Maker", "print(os.environ.get('DOOR'))").add("Other", PUT)
    pairs = [{"secretKey": "key", "envVar": "DOOR"}]
    path = write(tmp_path, builder, secretAsEnv=[{"secretName": "house", "keyToEnv": pairs}])
    monkeypatch.delenv("DOOR", raising=False)
    maker, other = rehearse(read_pipeline(path), {}, work_dir=tmp_path / "none")
    assert (maker.outcome, other.outcome) == ("failed", "succeeded")
    assert "DOOR" in maker.message
    monkeypatch.setenv("DOOR", "1234")
    rehearse(read_pipeline(path), {}, work_dir=tmp_path / "work")
    assert log_of(tmp_path, "Maker") == "1234\n"


def _task(document):
    return document["root"]["dag"]["tasks"]["A"]


def _container(document):
    return document["deploymentSpec"]["executors"]["A_executor"]["container"]


def _output(document, **definition):
    document["components"]["A"]["outputDefinitions"]["artifacts"]["out"] = definition


def _parameter(document, **value):
    _task(document)["inputs"]["parameters"]["n"] = value


ACCELERATOR = {"accelerator": {"type": "nvidia.com/gpu", "count": "0"}}
REFUSED_TASKS = [
    lambda d: _task(d).update(dependentTasks=["B_task"]),
    lambda d: _task(d).update(triggerPolicy={"condition": "1 == 1"}),
    lambda d: _task(d)["inputs"]["artifacts"].update(x={"componentInputArtifact": "x"}),
    lambda d: _parameter(d, runtimeValue={"constant": "run {{$.pipeline_job_name}}"}),
    lambda d: _parameter(d, runtimeValue={"runtimeParameter": "n"}),
    lambda d: _parameter(d, componentInputParameter="spam"),
    lambda d: _output(d, artifactType={"instanceSchema": "type: object"}),
    lambda d: _output(d, artifactType={"instanceSchema": "a: b: c"}),
    lambda d: d["components"].clear(),
    lambda d: d["components"].update(A={"dag": {"tasks": {"A": dict(_task(d))}}}),
    lambda d: d["deploymentSpec"]["executors"].update(A_executor={"resolver": {}}),
    lambda d: _container(d).update(lifecycle={"preCacheCheck": {"command": ["x"]}}),
    lambda d: _container(d)["args"].append("{{$.inputs.artifacts['x'].uri}}"),
    lambda d: _container(d)["args"].append("{{$.outputs.artifacts['out'].metadata}}"),
    lambda d: _container(d).update(resources=ACCELERATOR),
    lambda d: _container(d).update(command=[], args=[]),
]
REFUSED_SPECS = [
    (lambda d: d.update(schemaVersion="2.0.0"), "schema version '2.0.0'"),
    (lambda d: d["pipelineInfo"].update(name="Digits_"), "'Digits_'"),
    (lambda d: d.update(colour="red"), "colour"),
    (lambda d: d["root"]["dag"]["tasks"].clear(), "no tasks"),
    (lambda d: d["root"]["dag"]["tasks"].update({"a.b": _task(d)}), "- a.b: "),
    (lambda d: d["components"].update(A={"dag": {"tasks": {}}}), "without a task"),
    (lambda d: d.clear(), "spec.yaml"),
]


@pytest.mark.parametrize(
    ("change", "named"), [*((change, "- A: ") for change in REFUSED_TASKS), *REFUSED_SPECS]
)
def test_specs_that_the_backend_would_not_take(tmp_path, change, named):
    document = SpecBuilder().add("A", PUT).document()
    change(document)
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(SpecError) as caught:
        rehearse(read_pipeline(path), {}, work_dir=tmp_path / "work")
    assert named in str(caught.value)
    assert not (tmp_path / "work").exists()


def test_a_circle_is_refused(run):
    builder = SpecBuilder().add("A", PUT, after=["B"]).add("B", PUT, after=["A"])
    with pytest.raises(SpecError):
        run(builder)


def test_the_root_of_the_spec_is_kept_where_the_store_is_the_same(tmp_path):
    document = SpecBuilder().add("Maker", SHOW).document() | {"defaultPipelineRoot": "gs://b/r/"}
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(document))
    for store, start in ((None, "gs://b/r/digits/"), ("s3", "s3://mlpipeline/v2/artifacts/")):
        work = tmp_path / str(store)
        rehearse(read_pipeline(path), {}, work_dir=work, store=store)
        [log] = work.glob("*/logs/Maker.log")
        output = json.loads(log.read_text())["outputs"]["artifacts"]["out"]["artifacts"][0]
        assert output["uri"].startswith(start)


def test_local_paths_are_those_of_the_launcher():
    assert local_path("gs://b/k") == "/gcs/b/k"
    assert local_path("minio://b/k", "/pod") == "/pod/minio/b/k"
    assert local_path("s3://b/k") == "/s3/b/k"
    assert local_path("https://b/k") is None
    assert local_path("/minio/b/k") is None
