"""Which version a new model, or new data, are compared with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import storage
from registry.baselines import data_baseline, model_baseline
from registry.layout import STATISTICS_FILES, version_address, version_dir
from registry.push import push
from registry.records import statistics_files


@pytest.fixture
def place(model: Path, base: Path) -> Callable[[int, bytes], None]:
    """A function that puts the model with another graph where versions are, without a push."""

    def put(version: int, graph: bytes) -> None:
        shutil.copytree(model, version_dir(base, version))
        (version_dir(base, version) / "saved_model.pb").write_bytes(graph)

    return put


def test_nothing_is_served(base, model):
    assert model_baseline(base, model) is None
    (base / ".incoming-7").mkdir(parents=True)
    assert model_baseline(base, model) is None


def test_a_model_is_compared_with_the_newest_by_number(base, model, place):
    for version in (9, 10):
        place(version, str(version).encode())
    assert model_baseline(base, model) == 10


def test_a_model_is_not_compared_with_itself(base, model, place):
    place(1, b"another")
    place(2, b"graph")
    storage.write(f"{version_address(base, 2)}/assets.extra/push.json", b"{}")
    assert model_baseline(base, model) == 1
    third = push(model, base, extra_files={"assets.extra/card": b""})
    assert model_baseline(base, model) == 1
    (version_dir(base, third) / "NOTES.txt").touch()
    assert model_baseline(base, model) == 1
    for version in (1, 2):
        shutil.rmtree(version_dir(base, version))
    assert model_baseline(base, model) is None


def test_other_weights_are_another_model(base, model, place):
    place(1, b"graph")
    (version_dir(base, 1) / "variables" / "variables.data").write_bytes(b"other")
    assert model_baseline(base, model) == 1


def test_a_model_is_not_compared_with_an_altered_version(base, model, another):
    first, second = (push(another(graph), base) for graph in "ab")
    another("c")
    assert model_baseline(base, model) == second
    (version_dir(base, second) / "saved_model.pb").write_text("other")
    assert model_baseline(base, model) == first


def serve(base: str, version: int, *fingerprints: str) -> None:
    """A version made of spans with these fingerprints; it says nothing where none is given."""
    storage.write(f"{base}/{version}/saved_model.pb", b"graph")
    spans = json.dumps({"spans": [{"fingerprint": each} for each in fingerprints]}).encode()
    contents = dict(zip(STATISTICS_FILES, (b"", b"", spans), strict=True))
    for path, content in statistics_files(contents).items() if fingerprints else ():
        storage.write(f"{version_address(base, version)}/{path}", content)


@pytest.mark.parametrize("kind", ["disk", "store"])
@pytest.mark.parametrize(
    ("fingerprints", "expected"),
    [(["a"], 2), (["b", "c"], 3), (["c", "b"], 3), (["d"], 3), ([], 3)],
)
def test_data_are_compared_with_the_newest_other_data(base, request, kind, fingerprints, expected):
    place = str(base) if kind == "disk" else request.getfixturevalue("s3_bucket") + "/served"
    serve(place, 2, "b", "c")
    serve(place, 3, "a")
    storage.write(f"{place}/notes.txt", b"no version")
    if kind == "store":
        serve(place, 4, "e")
        storage.remove(f"{version_address(place, 4)}/saved_model.pb")
    assert data_baseline(place, fingerprints) == expected


def test_a_version_that_does_not_say_what_it_was_made_of_is_not_looked_past(base):
    assert data_baseline(base, ["a"]) is None
    serve(str(base), 1, "a")
    assert data_baseline(base, ["a"]) is None
    serve(str(base), 2)
    assert data_baseline(base, ["a"]) == 2
