"""What the Pusher makes of the evaluation that its blessing carries."""

import json
from pathlib import Path
from typing import Any

import pytest
from tfx.types import standard_artifacts

from components.pusher.executor import Executor
from registry.layout import list_versions
from registry.push import push
from registry.records import find_push, read_record


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "trained" / "Format-Serving"
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    return folder


@pytest.fixture
def execute(model, tmp_path):
    """A function that runs the Pusher on the model; gives the artifact that it emits."""

    def run(baseline: dict[str, Any], **properties: Any) -> standard_artifacts.PushedModel:
        given, pushed = standard_artifacts.Model(), standard_artifacts.PushedModel()
        blessing = standard_artifacts.ModelBlessing()
        given.uri, pushed.uri = str(model.parent), str(tmp_path / "pushed")
        blessing.uri = str(tmp_path / "blessing")
        blessing.set_int_custom_property("blessed", 1)
        Path(blessing.uri).mkdir(exist_ok=True)
        evaluation = Path(blessing.uri, "evaluation.json")
        about = {"evaluation": {"fid_samples": 1000}}
        evaluation.write_text(json.dumps({"baseline": baseline, "samples": 1000, "about": about}))
        destination = {"filesystem": {"base_directory": str(tmp_path / "serving")}}
        Executor().Do(
            {"model": [given], "model_blessing": [blessing]},
            {"pushed_model": [pushed]},
            {"push_destination": json.dumps(destination), **properties},
        )
        return pushed

    return run


def test_a_version_names_the_run_that_pushed_it(execute, tmp_path):
    pushed = execute({"status": "none", "version": None}, run_id="run-1")
    version = int(pushed.get_string_custom_property("pushed_version"))
    assert read_record(tmp_path / "serving" / str(version)).run == "run-1"
    assert find_push(tmp_path / "serving", "run-1") == version
    assert find_push(tmp_path / "serving", "run-2") is None


def test_a_served_model_is_not_pushed_again_though_its_files_differ(execute, model, tmp_path):
    version = push(model, tmp_path / "serving")
    (model / "saved_model.pb").write_bytes(b"the same graph, in another order")
    pushed = execute({"status": "unchanged", "version": str(version)})
    assert list_versions(tmp_path / "serving") == [version]
    assert pushed.get_int_custom_property("pushed") == 0
    assert pushed.get_string_custom_property("unchanged_version") == str(version)
    assert str(version) in pushed.get_string_custom_property("not_pushed_because")


def test_a_model_whose_version_is_gone_is_pushed(execute, tmp_path):
    pushed = execute({"status": "unchanged", "version": "7"})
    [version] = list_versions(tmp_path / "serving")
    assert pushed.get_string_custom_property("pushed_version") == str(version)
