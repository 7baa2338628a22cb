"""The notebook: it runs from top to bottom, and git has it without outputs."""

import base64
import io
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList

ROOT = Path(__file__).parents[2]
PATH = ROOT / "docs/quick_start.ipynb"


def read() -> nbformat.NotebookNode:
    return nbformat.read(PATH, as_version=4)


def test_git_has_it_without_outputs() -> None:
    notebook = read()
    nbformat.validate(notebook)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        assert cell.metadata == {}
        if cell.cell_type == "code":
            assert (cell.execution_count, cell.outputs) == (None, [])


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sixth of its updates: the digits are bad then, and all else is the same."""
    for name in [name for name in os.environ if name.startswith("MNIST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MNIST_GAN_TRAIN__MAX_STEPS", "240")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = read()
    resources = {"metadata": {"path": PATH.parent}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()

    shown = [
        output.data
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    pages = [data["text/html"] for data in shown if "text/html" in data]
    statistics, validated, planted, metrics, report = pages
    [proto] = re.findall(r'proto-input="(.*?)"', statistics)
    splits = DatasetFeatureStatisticsList.FromString(base64.b64decode(proto)).datasets
    assert [(split.name, split.num_examples) for split in splits] == [
        ("train", 4528),
        ("eval", 472),
    ]
    assert "No anomalies found." in validated
    features = {"box_height", "box_width", "ink_fraction", "label", "pixel_mean"}
    assert set(re.findall(r"<th>'(.*?)'", planted)) == features
    assert "Conditional accuracy" in metrics
    assert "Blessed" in report
    training, served = [
        base64.b64decode(data["image/png"]) for data in shown if "image/png" in data
    ]
    assert Image.open(io.BytesIO(training)).size > (900, 500)
    digit = Image.open(io.BytesIO(served))
    assert digit.size == (28, 28)
    assert [int(digit.info[name]) for name in ("digit", "seed")] == [7, 3]
    assert np.asarray(digit).max() > 200
