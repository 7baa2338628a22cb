"""A version's origin is read back from what its push recorded, and from nothing else."""

import getpass
import json

import pytest

from registry.errors import RegistryError
from registry.layout import MODEL_CARD, PUSH_RECORD, TRAINING_STATE, version_dir
from registry.lineage import read_lineage
from registry.model_card import card_files
from registry.push import push
from registry.records import statistics_files
from registry.rollback import roll_back

FID = {"title": "FID", "direction": "lower", "unit": "", "value": 1.5, "interval": [1.0, 2.0]}
CHECK = {"kind": "threshold", "metric": "fid", "bound": "at most 2", "passed": True}
EVALUATION = {
    "about": {
        "created": "2026-11-29T05:22:45+00:00",
        "data": {"span": 3, "source": "a mirror", "fingerprint": "t"},
        "classifier": {"epochs": 2},
        "evaluation": {"fid_samples": 10},
        "provenance": {"schema_sha256": "s", "classifier_sha256": "c"},
        "versions": {"python": "3.10.13"},
        "commit": "abc",
    },
    "metrics": {"fid": FID | {"floor": None}},
    "verdict": {"blessed": True, "reasons": []},
    "checks": [CHECK | {"value": 1.5, "interval": None}],
    "samples": 10,
}
RECIPE = {"preset": "smoke", "changed": {"train.max_steps": 20, "train.augmentation": ["shift"]}}
SPAN = {"span": 3, "fingerprint": "f", "train": 90, "eval": 10, "labels": [10] * 10}


def state(sha256: str, start: str, origin: str | None) -> bytes:
    lineage = {"start": start, "origin": origin, "is_warm": origin is not None}
    return json.dumps({"sha256": sha256, "content": {"extra": {"lineage": lineage}}}).encode()


def add(base, model, training: bytes) -> int:
    statistics = {"statistics.pb": b"", "class_means.npy": b""}
    statistics["data.json"] = json.dumps({"spans": [SPAN]}).encode()
    files = card_files(EVALUATION, RECIPE) | statistics_files(statistics)
    files[f"{TRAINING_STATE}/manifest.json"] = training
    return push(model, base, extra_files=files, run="run-1")


def test_all_that_the_push_recorded(base, model):
    version = add(base, model, state("a", "cold", None))
    found = read_lineage(base)
    assert (found.version, found.state, found.run) == (version, "intact", "run-1")
    assert found.user == getpass.getuser()
    [span] = found.spans
    assert (span.span, span.fingerprint, span.train, span.eval) == (3, "f", 90, 10)
    assert (found.data.source, found.data.fingerprint) == ("a mirror", "t")
    assert found.provenance.schema_sha256 == "s"
    assert found.provenance.classifier_sha256 == "c"
    assert found.classifier == {"epochs": 2}
    assert (found.commit, found.packages) == ("abc", {"python": "3.10.13"})
    assert found.recipe.model_dump() == RECIPE
    assert (found.start.start, found.parent) == ("cold", None)
    assert found.verdict.blessed is True
    assert found.metrics["fid"].interval == (1.0, 2.0)
    assert [check.model_dump() for check in found.checks] == [CHECK]


def test_the_parent_is_the_version_with_the_state_of_the_warm_start(base, another):
    first = add(base, another("a"), state("digest", "cold", None))
    second = add(base, another("b"), state("other", "warm from version 7", "digest"))
    assert read_lineage(base, second).parent == first
    event = roll_back(base, first, "blurred sevens")
    copy = read_lineage(base)
    assert (copy.version, copy.copy_of, copy.reason) == (event.made, first, "blurred sevens")
    assert copy.run is None
    assert read_lineage(base, second).parent == first
    assert read_lineage(base, second).events == [event]


def test_a_version_of_an_earlier_release(base, model):
    version = push(model, base)
    record = version_dir(base, version) / PUSH_RECORD
    content = json.loads(record.read_text())
    del content["user"], content["run"]
    record.write_text(json.dumps(content))
    found = read_lineage(base, version)
    assert (found.state, found.user, found.run) == ("intact", None, None)
    assert (found.spans, found.recipe, found.start, found.verdict) == (None, None, None, None)
    assert (found.metrics, found.checks, found.commit) == (None, None, None)


@pytest.mark.parametrize("content", [b"", b"null", b"[" * 100_000, b'{"verdict": 5}', b"\xff"])
def test_a_card_that_somebody_changed(base, model, content):
    version = add(base, model, state("a", "cold", None))
    (version_dir(base, version) / MODEL_CARD).write_bytes(content)
    found = read_lineage(base, version)
    assert (found.state, found.verdict, found.recipe) == ("altered", None, None)
    assert found.start.start == "cold"


def test_no_such_version(base, model):
    with pytest.raises(RegistryError, match="there is no version"):
        read_lineage(base)
    push(model, base)
    with pytest.raises(RegistryError, match="no version 5"):
        read_lineage(base, 5)
