"""The claims and secrets of a run, looked up in Kubernetes where this user may."""

import os
from collections.abc import Mapping
from typing import Any

_SECONDS = 5.0  # for an answer of Kubernetes


def find_missing(platform: Mapping[str, Any], namespace: str) -> list[str]:
    """Names each claim, secret and key of a secret that does not exist, for which pods would wait.

    What this user may not read is not named, and nothing is without a kubeconfig ($KUBECONFIG, else
    kubectl's) or, in a pod, a service account.

    Args:
      platform: the platform spec of the pipeline.
      namespace: of the run's pods.
    """
    from kubernetes import client, config

    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config()
        else:
            config.load_kube_config(os.environ.get("KUBECONFIG"))
    except config.ConfigException:
        return []
    core = client.CoreV1Api()
    claims, secrets = _needs(platform)
    readers = {
        "claim": (core.read_namespaced_persistent_volume_claim, claims),
        "secret": (core.read_namespaced_secret, secrets),
    }
    missing = []
    for kind, (read, needs) in readers.items():
        for name, keys in sorted(needs.items()):
            try:
                found = read(name, namespace, _request_timeout=_SECONDS)
            except client.ApiException as error:
                missing += [f"{kind} {name}"] if error.status == 404 else []
                continue
            absent = keys.difference(getattr(found, "data", None) or ())
            missing += [f"key {key} in {kind} {name}" for key in sorted(absent)]
    return missing


def _needs(platform: Mapping[str, Any]) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Claims and secrets, each with the keys that are read of it."""
    claims: dict[str, set[str]] = {}
    secrets: dict[str, set[str]] = {}
    kubernetes = platform.get("platforms", {}).get("kubernetes", {})
    for executor in kubernetes.get("deploymentSpec", {}).get("executors", {}).values():
        for mount in executor.get("pvcMount", ()):
            if name := mount.get("constant"):
                claims[name] = set()
        for secret in executor.get("secretAsEnv", ()):
            if name := secret.get("secretName"):
                keys = {each["secretKey"] for each in secret.get("keyToEnv", ())}
                secrets.setdefault(name, set()).update(keys)
    return claims, secrets
