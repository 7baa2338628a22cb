"""The platform spec, the second document: what Kubernetes gives to each pod besides its image.

As `kfp-kubernetes` writes it (kubernetes_platform/proto/kubernetes_executor_config.proto) and
`extendPodSpecPatch` in backend/src/v2/driver/k8s.go reads it. Names of secrets and claims stand in
the older of their two fields, which all backends read.

What a backend does not know it refuses with status 500. So nothing is written here that release
2.16, the oldest that is supported, does not know, unless a setting asks for it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import storage
from pipeline.kubeflow.compiler import exit_handler
from pipeline.kubeflow.container.supervisor import pod_seconds
from pipeline.retraining.webhook import ADDRESS_VARIABLE
from pipeline.settings.kubeflow import KubeflowSettings, NodeResources

# Of an executor in release 2.17; `securityContext` came with 2.16.
_KNOWN_FIELDS = frozenset(
    {
        *("secretAsVolume", "secretAsEnv", "configMapAsVolume", "configMapAsEnv", "fieldPathAsEnv"),
        *("pvcMount", "genericEphemeralVolume", "emptyDirMounts", "enabledSharedMemory"),
        *("nodeSelector", "tolerations", "nodeAffinity", "podAffinity", "podMetadata"),
        *("imagePullSecret", "imagePullPolicy", "activeDeadlineSeconds", "securityContext"),
    }
)
# Pod Security "restricted" wants it. The user is the image's, or the one that the cluster sets.
_SECURITY_CONTEXT = {"runAsNonRoot": True}


def platform_spec(
    wanted: Mapping[str, NodeResources], kubeflow: KubeflowSettings
) -> dict[str, Any]:
    """The spec for executors that want this."""
    executors = {name: _executor(name, each, kubeflow) for name, each in wanted.items()}
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}


def unknown_fields(platform: Mapping[str, Any]) -> Iterator[str]:
    """Yields what release 2.17 does not know in a platform spec."""
    kubernetes = platform.get("platforms", {}).get("kubernetes", {})
    for executor, config in kubernetes.get("deploymentSpec", {}).get("executors", {}).items():
        for field in config:
            first, *others = field.split("_")
            if first + "".join(map(str.capitalize, others)) not in _KNOWN_FIELDS:
                yield f"{executor}: the platform spec has an unknown field {field!r}"


def _executor(name: str, wanted: NodeResources, kubeflow: KubeflowSettings) -> dict[str, Any]:
    config: dict[str, Any] = {"securityContext": dict(_SECURITY_CONTEXT)}
    if kubeflow.volume_claim:
        config["pvcMount"] = [
            {"constant": kubeflow.volume_claim, "mountPath": kubeflow.volume_path}
        ]
    if secrets := [*_secrets(name, kubeflow)]:
        config["secretAsEnv"] = secrets
    if wanted.node_selector:
        config["nodeSelector"] = {
            "labels": dict(label.split("=") for label in wanted.node_selector)
        }
    if wanted.tolerations:
        config["tolerations"] = [_toleration(taint) for taint in wanted.tolerations]
    if wanted.timeout_seconds:
        retries = 0 if name == exit_handler.EXECUTOR else kubeflow.retries
        config["activeDeadlineSeconds"] = pod_seconds(retries, wanted.timeout_seconds)
    return config


def _toleration(taint: str) -> dict[str, str]:
    """Of a taint as `kubectl taint` writes it, key=value:Effect or key:Effect."""
    label, _, effect = taint.rpartition(":")
    key, equals, value = label.partition("=")
    if equals:
        return {"key": key, "operator": "Equal", "value": value, "effect": effect}
    return {"key": key, "operator": "Exists", "effect": effect}


def _secrets(name: str, kubeflow: KubeflowSettings) -> Iterator[dict[str, Any]]:
    if kubeflow.s3_secret:
        # The keys of `mlpipeline-minio-artifact`, which Kubeflow makes for its own MinIO.
        variables = {"accesskey": storage.KEY_VARIABLE, "secretkey": storage.SECRET_VARIABLE}
        yield _secret(kubeflow.s3_secret, variables)
    if kubeflow.webhook_secret and name == exit_handler.EXECUTOR:
        yield _secret(kubeflow.webhook_secret, {"url": ADDRESS_VARIABLE})


def _secret(name: str, variables: dict[str, str]) -> dict[str, Any]:
    """A secret's keys as environment variables."""
    return {
        "secretName": name,
        "keyToEnv": [{"secretKey": key, "envVar": value} for key, value in variables.items()],
    }
