"""The emulator against a Kubeflow Pipelines 2.17.0: a run of each of our ten tasks, field by field.

`recorded.json` has what the backend's driver and launcher took and gave (November 2026, the spec of
an earlier revision of this project). Each container here writes the recorded output.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow.container.store import ROOT_VARIABLE
from pipeline.kubeflow.emulator.driver import Scope, build_executor_input
from pipeline.kubeflow.emulator.launcher import Launcher
from pipeline.kubeflow.emulator.metadata import COMPLETE, MetadataStore

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())
TASKS = RECORDED["tasks"]
ROOT = "minio://mlpipeline/v2/artifacts/mnist-gan/<RUN>"
# Variables of a pod that the emulator leaves out, because nothing of ours reads them.
VARIABLES = {
    r"ARGO_.*": "Argo's own",
    r"(KUBERNETES|METADATA_GRPC|MINIO|ML_PIPELINE|MYSQL|SEAWEEDFS)_.*": "addresses of services",
    r"HOSTNAME": "the pod's name once more",
    r"PYTHONPATH|PYTHONDONTWRITEBYTECODE": "of the image",
}
# Variables of this machine that the emulator leaves in, and the one that stands for the root.
HERE = {ROOT_VARIABLE, "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"}
# Writes down how it was started, then the output that was recorded.
CONTAINER = """
import json, os, sys
executor_input = json.loads(sys.argv[sys.argv.index("--json_serialized_invocation_args") + 1])
root = os.environ["KFP_LOCAL_ROOT"]
umask = os.umask(0)
with open(root + "/seen.json", "w") as file:
    json.dump({"words": sys.argv[2:], "variables": dict(os.environ), "umask": umask}, file)
with open(sys.argv[1]) as file:
    output = json.load(file)
given = executor_input["outputs"]["artifacts"]
for name, found in output["artifacts"].items():
    found["artifacts"][0]["uri"] = given[name]["artifacts"][0]["uri"]
path = root + executor_input["outputs"]["outputFile"]
os.makedirs(os.path.dirname(path), exist_ok=True)
with open(path, "w") as file:
    json.dump(output, file)
"""


@pytest.fixture(scope="module")
def replayed(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """What each task was given, how its container was started, and what was kept of it."""
    folder = tmp_path_factory.mktemp("replayed")
    launcher = Launcher(ROOT, folder / "bucket", folder / "pods", folder / "logs", workdir=folder)
    store, seen = MetadataStore(), {}
    parameters = {
        name: json_format.ParseDict(value, struct_pb2.Value())
        for name, value in RECORDED["parameters"].items()
    }
    for name, recorded in TASKS.items():
        task = json_format.ParseDict(recorded["task"], pipeline_spec_pb2.PipelineTaskSpec())
        component = json_format.ParseDict(recorded["component"], pipeline_spec_pb2.ComponentSpec())
        given = build_executor_input(
            name, task, component, Scope(parameters, store, {}), run_root=ROOT
        )
        stored = json_format.MessageToDict(given)
        output = folder / f"{name}.json"
        output.write_text(json.dumps(recorded["executor_output"]))
        words = recorded["container"]["command"]
        container = pipeline_spec_pb2.PipelineDeploymentConfig.PipelineContainerSpec(
            command=[sys.executable, "-c", CONTAINER, str(output), *words],
            args=recorded["container"]["args"],
            env=[
                {"name": each["name"], "value": each["value"]}
                for each in recorded["container"]["env"]
            ],
        )
        launcher.launch(name, given, component, container, {}, store)
        store.record_state(name, COMPLETE)
        kept = {
            key: json_format.MessageToDict(store.artifact(name, key).metadata)
            for key in recorded["metadata"]
        }
        started = json.loads((folder / "pods" / name / "seen.json").read_text())
        seen[name] = {"stored": stored, "kept": kept, "state": store.state(name), **started}
    return seen


def comparable(value: Any) -> Any:
    """With one word for what is drawn at random.

    Without the names of inputs: those are ids, which each installation counts by itself.
    """
    if isinstance(value, list):
        return [comparable(each) for each in value]
    if isinstance(value, str):
        return re.sub(r"(<RUN>/[^/]+/)[^/]+", r"\1<uuid>", value)
    if not isinstance(value, dict):
        return value
    is_input = value.get("type") == {"instanceSchema": ""}
    return {
        key: comparable(each) for key, each in value.items() if not (is_input and key == "name")
    }


@pytest.mark.parametrize("name", TASKS)
def test_the_driver_gives_a_task_what_the_backends_does(replayed, name):
    assert comparable(replayed[name]["stored"]) == comparable(TASKS[name]["executor_input"])


@pytest.mark.parametrize("name", TASKS)
def test_the_launcher_starts_the_command_that_the_backends_does(replayed, name):
    words, container = replayed[name]["words"], TASKS[name]["container"]
    place = [*container["command"], *container["args"]].index("{{$}}")
    passed = json.loads(words[place])
    logs = passed["outputs"]["artifacts"]["executor-logs"]["artifacts"][0]
    assert logs["uri"].endswith(f"/{RECORDED['log_as_passed']}")
    logs["uri"] = logs["uri"].removesuffix("-0")
    assert comparable(passed) == comparable(TASKS[name]["executor_input"])
    assert "\n" not in words[place]
    words = [*words[:place], "{{$}}", *words[place + 1 :]]
    assert words == [*container["command"], *container["args"]]


@pytest.mark.parametrize("name", TASKS)
def test_the_store_keeps_what_the_backends_does(replayed, name):
    assert replayed[name]["kept"] == TASKS[name]["metadata"]
    assert replayed[name]["state"] == TASKS[name]["state"]


def test_containers_start_with_the_umask_and_the_variables_of_a_pod(replayed):
    started = replayed["Pusher"]
    assert f"{started['umask']:04o}" == RECORDED["umask"]
    known = "|".join(VARIABLES)
    recorded = {name for name in RECORDED["environment"] if not re.fullmatch(known, name)}
    # Python sets the last one where the locale is C.
    assert set(started["variables"]) - HERE - {"LC_CTYPE"} == recorded
