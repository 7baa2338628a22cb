"""Claims and secrets of a run, against a server that answers as Kubernetes does."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pytest_httpserver import HTTPServer

from pipeline.kubeflow.client.prerequisites import find_missing

_KEYS = [{"secretKey": "accesskey", "envVar": "A"}, {"secretKey": "secretkey", "envVar": "B"}]
PLATFORM: dict[str, Any] = {
    "platforms": {
        "kubernetes": {
            "deploymentSpec": {
                "executors": {
                    "exec-a": {
                        "pvcMount": [{"constant": "digits", "mountPath": "/d"}],
                        "secretAsEnv": [{"secretName": "store", "keyToEnv": _KEYS}],
                    },
                    "exec-b": {
                        "pvcMount": [{"constant": "lost", "mountPath": "/d"}],
                        "secretAsEnv": [
                            {"secretName": "webhook", "keyToEnv": []},
                            {"secretName": "hidden", "keyToEnv": _KEYS},
                        ],
                    },
                }
            }
        }
    }
}


@pytest.fixture
def kubernetes(
    httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> HTTPServer:
    named = {"name": "here", "cluster": {"server": httpserver.url_for("")}}
    context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
    content = {
        "current-context": "here",
        "clusters": [named],
        "contexts": [context],
        "users": [{"name": "me", "user": {"token": "t"}}],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return httpserver


def test_what_does_not_exist_is_named_and_what_may_not_be_read_is_not(
    kubernetes: HTTPServer,
) -> None:
    namespace = "/api/v1/namespaces/alice"
    for path, status, content in (
        ("persistentvolumeclaims/digits", 200, {"kind": "PersistentVolumeClaim"}),
        ("persistentvolumeclaims/lost", 404, {}),
        ("secrets/hidden", 403, {}),
        ("secrets/store", 200, {"kind": "Secret", "data": {"accesskey": "eA=="}}),
        ("secrets/webhook", 404, {}),
    ):
        kubernetes.expect_request(f"{namespace}/{path}").respond_with_json(content, status)
    assert find_missing(PLATFORM, "alice") == [
        "claim lost",
        "key secretkey in secret store",
        "secret webhook",
    ]


def test_without_access_to_kubernetes_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/dev/null")
    assert find_missing(PLATFORM, "alice") == []
    assert find_missing({}, "alice") == []
