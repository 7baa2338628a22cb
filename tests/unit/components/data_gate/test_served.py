"""With which version's statistics the gate compares the data of a run."""

import json
from pathlib import Path

import numpy as np
import pytest
from tensorflow_metadata.proto.v0 import statistics_pb2

import storage
from components.data_gate.served import find_served
from components.data_gate.statistics import DataStatistics
from registry.layout import DATA_STATISTICS, version_address
from registry.records import statistics_files


def serve(base: str, version: int, *fingerprints: str) -> None:
    """A version made of spans with these fingerprints; it says nothing where none is given."""
    storage.write(f"{base}/{version}/saved_model.pb", b"graph")
    spans = [{"span": number, "fingerprint": each} for number, each in enumerate(fingerprints)]
    kept = DataStatistics(
        statistics_pb2.DatasetFeatureStatisticsList(), np.zeros((10, 784), np.float32), spans
    )
    for path, content in statistics_files(kept.as_files()).items() if fingerprints else ():
        storage.write(f"{version_address(base, version)}/{path}", content)


@pytest.mark.parametrize(("fingerprints", "expected"), [(["a"], 2), (["b", "c"], 3)])
def test_the_newest_version_of_other_data(tmp_path, fingerprints, expected):
    serve(str(tmp_path), 2, "b", "c")
    serve(str(tmp_path), 3, "a")
    found = find_served(str(tmp_path), fingerprints)
    assert found.version == str(expected)
    assert found.statistics.fingerprints == (["b", "c"] if expected == 2 else ["a"])


def test_nothing_is_served(tmp_path):
    serve(str(tmp_path), 1, "a")
    for folder in (tmp_path, tmp_path / "none"):
        found = find_served(str(folder), ["a"])
        assert (found.version, found.statistics) == (None, None)
    assert find_served("", ["a"]).version is None


@pytest.mark.parametrize("content", ["", "[]", "{", json.dumps({"spans": [1]})])
def test_damaged_statistics_are_named_and_stop_nothing(tmp_path, content):
    serve(str(tmp_path), 1, "b")
    Path(tmp_path, "1", DATA_STATISTICS, "data.json").write_text(content)
    found = find_served(str(tmp_path), ["a"])
    assert (found.version, found.statistics) == (None, None)
    assert "version 1" in found.message
