"""The manifests in deploy/: as the published schemas have it, and safe by default."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

DEPLOY = Path(__file__).parents[3] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVING = list(yaml.safe_load_all((DEPLOY / "serving.yaml").read_text()))
KSERVE = yaml.safe_load((DEPLOY / "kserve.yaml").read_text())
TFJOB = list(yaml.safe_load_all((DEPLOY / "tfjob.yaml").read_text()))
TRAIN_JOB = list(yaml.safe_load_all((DEPLOY / "trainjob.yaml").read_text()))
RETRAIN = list(yaml.safe_load_all((DEPLOY / "kubernetes/retrain-cronjob.yaml").read_text()))
VERIFY = list(yaml.safe_load_all((DEPLOY / "kubernetes/verify-cronjob.yaml").read_text()))
# What an InferenceService adds to a pod and to its container: the Python models of kserve 0.21.0,
# openapi_types of V1beta1ComponentExtensionSpec and V1beta1ModelSpec.
OF_PREDICTOR = {
    "annotations": dict,
    "canaryTrafficPercent": int,
    "containerConcurrency": int,
    "labels": dict,
    "maxReplicas": int,
    "minReplicas": int,
    "scaleMetric": str,
    "scaleTarget": int,
    "timeout": int,
}
OF_MODEL = {
    "modelFormat": dict,
    "protocolVersion": str,
    "runtime": str,
    "runtimeVersion": str,
    "storageUri": str,
}


def split(whole: dict[str, Any], own: dict[str, type]) -> tuple[dict[str, Any], dict[str, Any]]:
    """KServe's own fields, each of its type, and Kubernetes' fields."""
    taken = {key: value for key, value in whole.items() if key in own}
    for key, value in taken.items():
        assert isinstance(value, own[key]), key
    return taken, {key: value for key, value in whole.items() if key not in own}


def kserve_pod() -> dict[str, Any]:
    """The pod that KServe makes of ours, less what its runtime adds."""
    assert set(KSERVE) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(KSERVE["spec"]) == {"predictor"}
    _, pod = split(KSERVE["spec"]["predictor"], OF_PREDICTOR)
    model, container = split(pod.pop("model"), OF_MODEL)
    assert set(model["modelFormat"]) == {"name", "version"}
    assert all(isinstance(value, str) for value in model["modelFormat"].values())
    container = {"name": "kserve-container", "image": "tensorflow/serving", **container}
    spec = {**pod, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": KSERVE["metadata"], "spec": spec}


def tfjob_pod() -> dict[str, Any]:
    template = TFJOB[0]["spec"]["tfReplicaSpecs"]["Worker"]["template"]
    metadata = {"name": "worker", **template["metadata"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def train_job() -> dict[str, Any]:
    """The job of each node."""
    [node] = TRAIN_JOB[0]["spec"]["template"]["spec"]["replicatedJobs"]
    return {"apiVersion": "batch/v1", "kind": "Job", **node["template"]}


TEMPLATES = {
    "serving": SERVING[0]["spec"]["template"],
    "kserve": kserve_pod(),
    "tfjob": tfjob_pod(),
    "trainjob": train_job()["spec"]["template"],
    "retrain": RETRAIN[0]["spec"]["jobTemplate"]["spec"]["template"],
    "verify": VERIFY[0]["spec"]["jobTemplate"]["spec"]["template"],
}


@pytest.mark.parametrize("release", ["1.29", "1.33", "1.37"])
def test_what_kubernetes_takes(release):
    for manifest in [
        *SERVING,
        kserve_pod(),
        tfjob_pod(),
        *TFJOB[1:],
        train_job(),
        *RETRAIN,
        *VERIFY,
    ]:
        kubernetes_validate.validate(manifest, release, strict=True)
    spoiled = copy.deepcopy(SERVING[0])
    spoiled["spec"]["template"]["spec"]["containers"][0]["readinessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinessprobe"):
        kubernetes_validate.validate(spoiled, release, strict=True)


def test_what_compose_takes(tmp_path):
    (tmp_path / "spoiled.yaml").write_text(yaml.safe_dump({"services": {"a": {"imag": "b"}}}))
    for path, status in ((DEPLOY / "compose.yaml", 0), (tmp_path / "spoiled.yaml", 1)):
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
        done = subprocess.run(
            [*command, "vendor.compose-spec", str(path)],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stdout + done.stderr


def test_what_kserve_takes():
    """By its own models; they need other versions of protobuf and more than TFX does."""
    models = pytest.importorskip("kserve.models", reason="kserve does not fit beside TFX")
    client = pytest.importorskip("kubernetes.client.models")

    def check(value: Any, kind: str) -> None:
        model = getattr(models, kind, None) or getattr(client, kind, None)
        if model is not None:
            names = {key: name for name, key in model.attribute_map.items()}
            assert set(value) <= set(names), kind
            model(**{names[key]: each for key, each in value.items()})
            for key, each in value.items():
                check(each, model.openapi_types[names[key]])
        elif kind.startswith("list["):
            for each in value:
                check(each, kind[5:-1])

    check(KSERVE, "V1beta1InferenceService")
    types = {
        **models.V1beta1PredictorSpec.openapi_types,
        **models.V1beta1ModelSpec.openapi_types,
    }
    mapping = {
        **models.V1beta1PredictorSpec.attribute_map,
        **models.V1beta1ModelSpec.attribute_map,
    }
    assert {*OF_PREDICTOR, *OF_MODEL} <= {mapping[name] for name in types}


def violations(spec: dict[str, Any]) -> set[str]:
    """The rules of Kubernetes' Pod Security Standard "restricted" that a pod breaks."""
    pod, found = spec.get("securityContext", {}), set()
    volumes = {"name", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"}
    volumes |= {"persistentVolumeClaim", "projected", "secret"}
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        found.add("host namespaces")
    if any(not set(volume) <= volumes for volume in spec.get("volumes", [])):
        found.add("volume types")
    if pod.get("sysctls"):
        found.add("sysctls")
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = container.get("securityContext", {})
        both = {**pod, **own}
        capabilities = own.get("capabilities", {})
        rules = {
            "privileged": not own.get("privileged"),
            "privilege escalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": "ALL" in capabilities.get("drop", [])
            and set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
            "not as root": both.get("runAsNonRoot") is True and both.get("runAsUser") != 0,
            "seccomp": both.get("seccompProfile", {}).get("type")
            in ("RuntimeDefault", "Localhost"),
            "host ports": not any("hostPort" in port for port in container.get("ports", [])),
            "proc mount": both.get("procMount", "Default") == "Default",
            "SELinux": not {"user", "role"} & set(both.get("seLinuxOptions", {})),
        }
        found |= {name for name, holds in rules.items() if not holds}
    return found


def test_a_plain_pod_breaks_rules():
    spoiled = {
        "hostNetwork": True,
        "volumes": [{"name": "a", "hostPath": {"path": "/"}}],
        "containers": [{"name": "a", "securityContext": {"privileged": True}}],
    }
    assert violations(spoiled) == {
        *("host namespaces", "volume types", "privileged", "privilege escalation"),
        *("capabilities", "not as root", "seccomp"),
    }


@pytest.mark.parametrize("name", TEMPLATES)
def test_pods_are_restricted(name):
    """To the Pod Security Standard, and beyond: no token, no service links, a read-only root."""
    spec = TEMPLATES[name]["spec"]
    [container] = spec["containers"]
    assert violations(spec) == set()
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]
    [tmp] = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/tmp"]
    assert not tmp.get("readOnly")
    [volume] = [volume for volume in spec["volumes"] if volume["name"] == tmp["name"]]
    assert volume["emptyDir"]["sizeLimit"]


@pytest.mark.parametrize("name", ["serving", "kserve"])
def test_servers_are_probed(name):
    [container] = TEMPLATES[name]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"].endswith("/metadata")
    assert container["livenessProbe"]["tcpSocket"]


@pytest.mark.parametrize(
    ("name", "manifests", "ports"),
    [
        ("serving", SERVING, {8500, 8501}),
        ("tfjob", TFJOB, {2222}),
        ("trainjob", TRAIN_JOB, {2222}),
        ("retrain", RETRAIN, set()),
        ("verify", VERIFY, set()),
    ],
)
def test_a_network_policy_opens_just_the_ports_of_its_pods(name, manifests, ports):
    [policy] = [each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"]
    labels = TEMPLATES[name]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    rules = policy.get("ingress", [])
    assert all(rule["from"] for rule in rules)
    assert {port["port"] for rule in rules for port in rule["ports"]} == ports
    chosen = policy["podSelector"]["matchLabels"].items()
    selected = [each for each in TEMPLATES.values() if chosen <= each["metadata"]["labels"].items()]
    assert all(each["metadata"]["labels"] == labels for each in selected)


def test_the_compose_service_is_as_restricted():
    service = COMPOSE["services"]["serving"]
    assert service["read_only"] is True
    assert int(service["user"].split(":")[0]) > 0
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["volumes"][0]["read_only"] is True
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_one_release_of_tensorflow_serving_that_fits_tensorflow():
    [container] = SERVING[0]["spec"]["template"]["spec"]["containers"]
    images = [COMPOSE["services"]["serving"]["image"], container["image"]]
    versions = {image.removeprefix("tensorflow/serving:") for image in images}
    assert versions == {KSERVE["spec"]["predictor"]["model"]["runtimeVersion"]}
    lock = (DEPLOY.parent / "requirements" / "py310" / "base.txt").read_text()
    [tensorflow] = [line for line in lock.splitlines() if line.startswith("tensorflow==")]
    minor = tensorflow.split("==")[1].split()[0].rsplit(".", 1)[0]
    assert versions.pop().startswith(f"{minor}.")


def test_the_service_finds_its_pods():
    deployment, config, service, _ = SERVING
    template = deployment["spec"]["template"]
    [container] = template["spec"]["containers"]
    labels = template["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= labels
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    opened = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == set(opened)
    assert {f"--rest_api_port={opened['http']}", f"--port={opened['grpc']}"} <= {*container["args"]}
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    assert volumes["monitoring"]["configMap"]["name"] == config["metadata"]["name"]
    [mount] = [m for m in container["volumeMounts"] if m["name"] == "monitoring"]
    [flag] = [arg for arg in container["args"] if arg.startswith("--monitoring_config_file=")]
    assert os.path.relpath(flag.split("=")[1], mount["mountPath"]) in config["data"]


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (404, False)])
def test_the_health_check_of_the_compose_service(httpserver, status, healthy):
    httpserver.expect_request("/v1/models/mnist_gan/metadata").respond_with_data(status=status)
    kind, *command = COMPOSE["services"]["serving"]["healthcheck"]["test"]
    assert kind == "CMD"
    # Compose takes $$ for $.
    command[-1] = command[-1].replace("$$", "$").replace("/8501", f"/{httpserver.port}")
    assert (subprocess.run(command, check=False, timeout=10).returncode == 0) is healthy
