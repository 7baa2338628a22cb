"""A version's origin as OpenLineage's own client writes and sends it."""

import json
import sys
import uuid

import pytest
from openlineage.client.event_v2 import RunEvent
from pytest_httpserver import HTTPServer

from registry.lineage import Lineage, read_lineage
from registry.openlineage import OpenLineageError, send
from registry.push import push

FOUND = {
    "version": 12,
    "pushed_at": "2026-11-29T05:22:45+00:00",
    "run": "run-1",
    "model_fingerprint": "m",
    "spans": [{"span": 3, "fingerprint": "f", "train": 90, "eval": 10}],
    "data": {"source": "a mirror"},
    "provenance": {"schema_sha256": "s"},
    "commit": "ab" * 20,
    "packages": {"tfx": "1.21.0"},
    "recipe": {"preset": "smoke", "changed": {"train.max_steps": 20}},
    "parent": 11,
    "metrics": {"fid": {"title": "FID", "value": 1.5}},
    "checks": [{"kind": "threshold", "metric": "fid", "bound": "at most 2", "passed": True}],
}


@pytest.fixture
def found() -> Lineage:
    return Lineage.model_validate_json(json.dumps(FOUND))


def facet(holder: dict, name: str, kind: str = "facets") -> dict:
    """A facet without the two fields that each has, which name its official schema."""
    given = dict(holder[kind][name])
    assert given.pop("_producer") == "urn:mnist-gan-tfx:lineage"
    assert given.pop("_schemaURL").startswith("https://openlineage.io/spec/")
    return given


def test_a_line_per_event(found, tmp_path):
    target = tmp_path / "events.jsonl"
    send(found, "/models/mnist_gan", str(target))
    send(found, "/models/mnist_gan", str(target))
    first, second = target.read_text().splitlines()
    assert first == second, "the same run has the same ID"
    event = json.loads(first)
    assert set(event) <= {field.name for field in RunEvent.__attrs_attrs__}
    assert (event["eventType"], event["eventTime"]) == ("COMPLETE", FOUND["pushed_at"])
    assert event["schemaURL"].startswith("https://openlineage.io/spec/2-")
    run, job, [output] = event["run"], event["job"], event["outputs"]
    assert uuid.UUID(run["runId"]).version == 5
    settings = facet(run, "executionParameters")["parameters"]
    assert settings == [
        {"key": "preset", "value": "smoke"},
        {"key": "train.max_steps", "value": "20"},
    ]
    assert facet(run, "processing_engine") == {"name": "TFX", "version": "1.21.0"}
    [check] = facet(run, "test")["tests"]
    assert (check["name"], check["status"], check["expected"]) == ("fid", "pass", "at most 2")
    assert check["actual"] == "1.5"
    assert (job["namespace"], job["name"]) == ("mnist-gan-tfx", "mnist_gan")
    assert facet(job, "sourceCodeLocation")["url"] == f"swh:1:rev:{FOUND['commit']}"
    assert (output["namespace"], output["name"]) == ("file", "/models/mnist_gan")
    assert facet(output, "version") == {"datasetVersion": "12"}
    tags = {tag["key"]: tag["value"] for tag in facet(output, "tags")["tags"]}
    assert tags == {"fid": "1.5", "model_fingerprint": "m"}
    inputs = {each["name"]: each for each in event["inputs"]}
    versions = {name: facet(each, "version")["datasetVersion"] for name, each in inputs.items()}
    assert versions == {"span-3": "f", "schema": "s", "/models/mnist_gan": "11"}
    assert facet(inputs["span-3"], "documentation") == {"description": "a mirror"}
    assert facet(inputs["span-3"], "inputStatistics", "inputFacets") == {"rowCount": 100}


def test_a_server_receives_it(found, httpserver: HTTPServer, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "a-key")
    httpserver.expect_oneshot_request("/api/v1/lineage", method="POST").respond_with_data(
        status=201
    )
    send(found, "s3://bucket/models/mnist_gan", httpserver.url_for("/"))
    [(request, _)] = httpserver.log
    assert request.headers["Authorization"] == "Bearer a-key"
    assert request.get_json()["outputs"][0]["namespace"] == "s3://bucket"
    httpserver.expect_request("/api/v1/lineage").respond_with_data(status=403)
    with pytest.raises(OpenLineageError, match="403 Client Error"):
        send(found, "/models", httpserver.url_for("/"))


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        ("http://", "valid url"),
        ("/proc/no", "No such"),
    ],
)
def test_a_target_that_does_not_take_it(found, target, reason):
    with pytest.raises(OpenLineageError, match=reason) as raised:
        send(found, "/models", target)
    assert (raised.value.where, raised.value.exit_status) == (target, 1)


def test_a_set_up_without_the_client(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "openlineage.client.transport.file", None)
    with pytest.raises(OpenLineageError, match="`make setup`, or `pip install"):
        send(found, "/models", "/tmp/no")


def test_a_version_of_an_earlier_release(base, model, tmp_path):
    found = read_lineage(base, push(model, base))
    send(found, base, str(tmp_path / "events"))
    event = json.loads((tmp_path / "events").read_text())
    assert (event["inputs"], event["run"]["facets"]) == ([], {})
    with pytest.raises(OpenLineageError, match="no push record"):
        send(found.model_copy(update={"pushed_at": None}), base, str(tmp_path / "events"))
