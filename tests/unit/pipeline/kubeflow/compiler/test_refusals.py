"""Our answers to specs, held against those that a Kubeflow Pipelines 2.17.0 gave to the same."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.kubeflow.compiler.spec_checks import SpecError
from pipeline.kubeflow.compiler.spec_file import read_pipeline, run_parameters

_RECORDED = yaml.safe_load(Path(__file__).with_name("refusals.yaml").read_text())


def _patched(value: Any, change: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(change, dict):
        return change
    merged = {**value, **{key: _patched(value.get(key), each) for key, each in change.items()}}
    return {key: each for key, each in merged.items() if each is not None}


def _file(folder: Path, case: dict[str, Any]) -> Path:
    executors = {"deploymentSpec": {"executors": case.get("platform")}}
    documents = {
        "spec": _patched(_RECORDED["base"], case.get("change", {})),
        "platform": {"platforms": {"kubernetes": executors}},
    }
    order = case.get("documents", ["spec", "platform"] if "platform" in case else ["spec"])
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump_all([documents[each] for each in order]))
    return path


@pytest.mark.parametrize("name", _RECORDED["cases"])
def test_a_spec_is_taken_if_the_backend_takes_and_runs_it(tmp_path: Path, name: str) -> None:
    case = _RECORDED["cases"][name]
    path = _file(tmp_path, case)
    if case["run"] == case["upload"] == 200 and "later" not in case:
        assert run_parameters(read_pipeline(path), ()) == {}
        return
    with pytest.raises(SpecError) as caught:
        run_parameters(read_pipeline(path), ())
    assert caught.value.where
