"""Which version's data those of a run are compared with, and what the cache is told of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from tensorflow_metadata.proto.v0 import statistics_pb2

import storage
from components.data_gate.served import find_served
from components.data_gate.statistics import DataStatistics
from pipeline.local.served import data_baseline_version


def serve(base: str, version: int, *fingerprints: str) -> None:
    """A version made of spans with these fingerprints; it says nothing where none is given."""
    storage.write(f"{base}/{version}/saved_model.pb", b"graph")
    spans = [{"span": number, "fingerprint": each} for number, each in enumerate(fingerprints)]
    kept = DataStatistics(
        statistics_pb2.DatasetFeatureStatisticsList(), np.zeros((10, 784), np.float32), spans
    )
    for name, content in kept.as_files().items() if fingerprints else ():
        storage.write(f"{base}/{version}/assets.extra/data_statistics/{name}", content)


@pytest.mark.parametrize("place", ["disk", "store"])
@pytest.mark.parametrize(
    ("fingerprints", "expected"),
    [(["a"], "2"), (["b", "c"], "3"), (["c", "b"], "3"), (["d"], "3"), ([], "3")],
)
def test_the_newest_version_of_other_data(tmp_path, request, place, fingerprints, expected):
    base = str(tmp_path) if place == "disk" else request.getfixturevalue("s3_bucket") + "/served"
    serve(base, 2, "b", "c")
    serve(base, 3, "a")
    storage.write(f"{base}/notes.txt", b"no version")
    found = find_served(base, fingerprints)
    assert found.version == expected
    assert found.statistics.fingerprints == (["b", "c"] if expected == "2" else ["a"])
    assert f"version {expected}" in found.message
    if place == "disk":
        assert data_baseline_version(tmp_path, fingerprints) == expected


def test_a_version_that_does_not_say_is_not_looked_past(tmp_path):
    serve(str(tmp_path), 1, "b")
    serve(str(tmp_path), 2)
    assert find_served(str(tmp_path), ["a"]).version is None
    assert data_baseline_version(tmp_path, ["a"]) == "2"


def test_nothing_is_served(tmp_path):
    serve(str(tmp_path), 1, "a")
    for folder in (tmp_path, tmp_path / "none"):
        assert data_baseline_version(folder, ["a"]) == ""
        found = find_served(str(folder), ["a"])
        assert (found.version, found.statistics) == (None, None)
    assert find_served("", ["a"]).version is None


@pytest.mark.parametrize("content", ["", "[]", "{", json.dumps({"spans": [1]})])
def test_damaged_statistics_are_named_and_stop_nothing(tmp_path, content):
    serve(str(tmp_path), 1, "b")
    Path(tmp_path, "1/assets.extra/data_statistics/data.json").write_text(content)
    found = find_served(str(tmp_path), ["a"])
    assert found.version is None
    assert "version 1: the statistics cannot be read" in found.message
    assert data_baseline_version(tmp_path, ["a"]) == "1"


def test_a_push_to_a_store_that_was_cut_off_is_looked_past(s3_bucket):
    serve(f"{s3_bucket}/served", 1, "b")
    serve(f"{s3_bucket}/served", 2, "c")
    storage.remove(f"{s3_bucket}/served/2/saved_model.pb")
    assert find_served(f"{s3_bucket}/served", ["a"]).version == "1"
