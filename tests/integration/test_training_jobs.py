"""The manifests of the training on several machines, and their command, run on this one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes
import pytest
import tensorflow as tf
import yaml
from kubeflow_trainer_api import models as trainer_api
from test_distribution import tf_configs
from typer.testing import CliRunner

from models.gan.cluster import PORT
from pipeline.cli.train import app
from pipeline.settings.resolution import resolve

ROOT = Path(__file__).parents[2]
MANIFEST = next(yaml.safe_load_all((ROOT / "deploy" / "tfjob.yaml").read_text()))
RUNTIME, TRAIN_JOB, _ = yaml.safe_load_all((ROOT / "deploy" / "trainjob.yaml").read_text())
[NODE] = RUNTIME["spec"]["template"]["spec"]["replicatedJobs"]
POD = NODE["template"]["spec"]["template"]
WORKER = MANIFEST["spec"]["tfReplicaSpecs"]["Worker"]
[CONTAINER] = WORKER["template"]["spec"]["containers"]
OF_BOTH = ("image", "resources", "securityContext", "volumeMounts")
VOLUME = "/mnt/mnist-gan"
SECONDS = 600
TINY = {
    "max_seconds": "null",
    "max_steps": "400",
    "steps_per_execution": "4",
    "report_seconds": "1e-9",
    "batch_size": "8",
    "latent_dim": "8",
    "generator_channels": "[8,4,4]",
    "discriminator_channels": "[4,4,8]",
}


def faults(value: Any, kind: str, models: Any, place: str) -> Iterator[str]:
    """What in a manifest is not as the classes made from the published schema have it."""
    inner = re.fullmatch(r"(list\[|dict\(str, )(.*)[\])]", kind)
    if inner:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in items:
            yield from faults(each, inner[2], models, f"{place}.{key}")
    elif hasattr(models, kind):
        model = getattr(models, kind)
        names = {key: name for name, key in model.attribute_map.items()}
        for key, each in value.items():
            if key in names:
                yield from faults(each, model.openapi_types[names[key]], models, f"{place}.{key}")
            else:
                yield f"{place} has no {key}"
        try:  # They check what is required, and enumerations.
            known = {names[key]: each for key, each in value.items() if key in names}
            model(**known, local_vars_configuration=None)
        except ValueError as error:
            yield f"{place}: {error}"
    elif kind in ("str", "int", "bool"):
        if type(value).__name__ != kind:
            yield f"{place} is {value!r} and not {kind}"
    elif kind != "object":
        yield f"{place}: unknown type {kind}"


def test_the_pods_are_kubernetes_own() -> None:
    models = kubernetes.client.models
    assert not list(faults(WORKER["template"], "V1PodTemplateSpec", models, "template"))
    spoiled = {"spec": {"containers": [{"image": "a", "port": 1}], "hostNetwork": "yes"}}
    assert list(faults(spoiled, "V1PodTemplateSpec", models, "t")) == [
        "t.spec.containers.0 has no port",
        "t.spec.containers.0: Invalid value for `name`, must not be `None`",
        "t.spec.hostNetwork is 'yes' and not bool",
    ]


def test_the_job_is_the_training_operators() -> None:
    training = pytest.importorskip("kubeflow.training", reason="needs another kubernetes client")
    models = training.models
    assert MANIFEST["apiVersion"] == "kubeflow.org/v1"
    assert not list(faults(MANIFEST, "KubeflowOrgV1TFJob", models, "job"))


def test_the_operator_finds_what_it_looks_for() -> None:
    """Names in pkg/apis/kubeflow.org/v1/tensorflow_types.go of the operator's release 1.9."""
    assert CONTAINER["name"] == "tensorflow"
    assert CONTAINER["ports"] == [{"name": "tfjob-port", "containerPort": 2222}]
    assert WORKER["replicas"] > 1, "else there is no TF_CONFIG"
    assert WORKER["restartPolicy"] in ("Always", "OnFailure", "Never", "ExitCode")


def test_the_train_job_is_trainers() -> None:
    """The models of its API lose nothing of the manifest."""
    assert is_kept(RUNTIME, trainer_api.TrainerV1alpha1TrainingRuntime)
    assert is_kept(TRAIN_JOB, trainer_api.TrainerV1alpha1TrainJob)
    spoiled = {**TRAIN_JOB, "spec": {**TRAIN_JOB["spec"], "runtimeref": {}}}
    assert not is_kept(spoiled, trainer_api.TrainerV1alpha1TrainJob)


def is_kept(manifest: dict[str, Any], model: Any) -> bool:
    def is_within(part: Any, whole: Any) -> bool:
        if isinstance(part, dict):
            return all(key in whole and is_within(part[key], whole[key]) for key in part)
        if isinstance(part, list):
            return len(part) == len(whole) and all(map(is_within, part, whole))
        return bool(part == whole)

    return is_within(manifest, json.loads(model.from_dict(manifest).to_json()))


def test_trainer_finds_what_it_looks_for() -> None:
    """Names in pkg/constants and pkg/runtime/framework/plugins/jax of Trainer 2.3."""
    labels = NODE["template"]["metadata"]["labels"]
    assert labels["trainer.kubeflow.org/trainjob-ancestor-step"] == "trainer"
    assert (NODE["name"], POD["spec"]["containers"][0]["name"]) == ("node", "node")
    assert RUNTIME["spec"]["mlPolicy"]["jax"] == {}
    assert RUNTIME["spec"]["mlPolicy"]["numNodes"] > 1
    assert TRAIN_JOB["spec"]["trainer"]
    assert TRAIN_JOB["spec"]["runtimeRef"]["name"] == RUNTIME["metadata"]["name"]
    [port] = POD["spec"]["containers"][0]["ports"]
    assert port["containerPort"] == PORT


def test_both_manifests_train_in_one_way() -> None:
    """The same pods with the same command, under the names that each operator looks for."""
    ours = {key: value for key, value in POD["spec"].items() if key != "restartPolicy"}
    theirs = dict(WORKER["template"]["spec"])
    left, right = (
        {key: value for key, value in pod.pop("containers")[0].items() if key in kept}
        for pod, kept in ((ours, OF_BOTH), (theirs, OF_BOTH))
    )
    assert (ours, left) == (theirs, right)
    trainer = TRAIN_JOB["spec"]["trainer"]
    assert (trainer["command"], trainer["args"]) == (CONTAINER["command"], CONTAINER["args"])


def test_the_workers_share_a_batch_and_a_volume() -> None:
    [preset] = [each for each in CONTAINER["args"] if each.startswith("--preset=")]
    settings = resolve(preset.removeprefix("--preset="), environ={}).settings
    gpus = int(CONTAINER["resources"]["limits"]["nvidia.com/gpu"])
    for workers in (WORKER["replicas"], RUNTIME["spec"]["mlPolicy"]["numNodes"]):
        assert settings.train.batch_size % (workers * gpus) == 0
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    volumes = WORKER["template"]["spec"]["volumes"]
    [volume] = [each for each in volumes if "persistentVolumeClaim" in each]
    assert mounts[volume["name"]] == VOLUME
    places = [each.partition("=")[2] for each in CONTAINER["args"] if "-dir=" in each]
    assert len(places) == 2
    assert all(place.startswith(f"{VOLUME}/") for place in places)
    assert volume["persistentVolumeClaim"]["claimName"] == settings.kubeflow.volume_claim


class Worker:
    """The container of one worker, here."""

    def __init__(self, volume: Path, environment: dict[str, str], log: Path, *more: str) -> None:
        command = [sys.executable, *CONTAINER["command"][1:]]
        command += [each.replace(VOLUME, str(volume)) for each in CONTAINER["args"]]
        command += [part for key, each in TINY.items() for part in ("--set", f"train.{key}={each}")]
        command += more
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | environment | {"CUDA_VISIBLE_DEVICES": "-1"},
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def ended(self) -> int:
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {SECONDS} s:\n{self.log.read_text()[-4000:]}")


def start(volume: Path, attempt: str) -> list[Worker]:
    return [
        Worker(volume, {"TF_CONFIG": config}, volume / f"{attempt}-{index}.log")
        for index, config in enumerate(tf_configs(2))
    ]


@pytest.mark.slow
def test_two_evicted_workers_resume_and_complete_one_training(
    tmp_path: Path, digits, write_span
) -> None:
    write_span(tmp_path / "data", *(part[:200] for part in digits), train=100)
    progress = tmp_path / "trained" / "run" / "progress.jsonl"
    workers = start(tmp_path, "first")
    try:
        until = time.monotonic() + SECONDS
        while not progress.exists() or not progress.read_text():
            assert time.monotonic() < until, workers[0].log.read_text()[-4000:]
            assert workers[0].process.poll() is None, workers[0].log.read_text()[-4000:]
            time.sleep(0.05)
        workers[1].process.send_signal(signal.SIGTERM)
        for worker in workers:
            assert worker.ended() == 128 + signal.SIGTERM, worker.log.read_text()[-4000:]
        [saved] = (tmp_path / "trained" / "checkpoints").glob("*/*")
        assert not (tmp_path / "trained" / "model").exists()
        workers = start(tmp_path, "second")
        for worker in workers:
            assert worker.ended() == 0, worker.log.read_text()[-4000:]
        assert "steps/s" not in workers[1].log.read_text(), "of progress, only the first logs"
        # The kubelet starts a worker again that it lost after the end: nobody else is there.
        state = (tmp_path / "trained").stat().st_mtime_ns, progress.read_bytes()
        workers = [Worker(tmp_path, {"TF_CONFIG": tf_configs(2)[1]}, tmp_path / "third.log")]
        assert workers[0].ended() == 0, workers[0].log.read_text()[-4000:]
        assert state == ((tmp_path / "trained").stat().st_mtime_ns, progress.read_bytes())
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
    steps = [json.loads(line)["step"] for line in progress.read_text().splitlines()]
    resumed_at = int(saved.name.rpartition("-")[2])
    assert steps == [step for step in range(4, 401, 4) if step != resumed_at]
    assert not list((tmp_path / "trained" / "checkpoints").iterdir())
    served = tf.saved_model.load(str(tmp_path / "trained" / "model"))
    drawn = served.signatures["generate_pixels"](
        seed=tf.range(3, dtype=tf.int64), digit=tf.constant([1, 2, 3], tf.int64)
    )
    assert drawn["image"].shape == (3, 28, 28, 1)


@pytest.mark.slow
def test_a_worker_that_waits(tmp_path: Path, digits, write_span) -> None:
    """It stops at once on SIGTERM, and says after a time who did not come."""
    write_span(tmp_path / "data", *(part[:200] for part in digits), train=100)
    environment = {
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": "0",
        "JAX_COORDINATOR_ADDRESS": "mnist-gan-node-0-0.mnist-gan:29500",
    }
    stopped = Worker(tmp_path, environment, tmp_path / "stopped.log")
    try:
        until = time.monotonic() + SECONDS
        while "waiting for 1 of 2 workers: mnist-gan-node-0-1" not in stopped.log.read_text():
            assert time.monotonic() < until, stopped.log.read_text()
            assert stopped.process.poll() is None, stopped.log.read_text()
            time.sleep(0.05)
        stopped.process.send_signal(signal.SIGTERM)
        assert stopped.process.wait(5) == 128 + signal.SIGTERM
    finally:
        stopped.process.kill()
        stopped.process.wait()
    tired = Worker(tmp_path, environment, tmp_path / "tired.log", "--worker-timeout=3")
    assert tired.ended() == 1
    assert tired.log.read_text().splitlines()[-2].startswith("error: 1 of 2 workers did not answer")
    assert not (tmp_path / "trained").exists()


@pytest.mark.slow
def test_a_batch_that_workers_cannot_share_is_bad_usage(tmp_path: Path, digits, write_span) -> None:
    write_span(tmp_path / "data", *(part[:200] for part in digits), train=100)
    workers = [
        Worker(
            tmp_path, {"TF_CONFIG": config}, tmp_path / f"{index}.log", "--set=train.batch_size=9"
        )
        for index, config in enumerate(tf_configs(2))
    ]
    for worker in workers:
        assert worker.ended() == 2, worker.log.read_text()[-4000:]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--data-dir={folder}"], "where: {folder}"),
        (["--data-dir=a", "--set", "train.seed=x"], "train.seed = 'x'"),
        (["--data-dir=a", "--preset=huge"], "'huge'"),
        (["--data-dir=a", "--set", "train.warm_start=served"], "where: train.warm_start"),
    ],
)
def test_a_mistake_is_status_2(tmp_path: Path, arguments: list[str], named: str) -> None:
    given = [each.format(folder=tmp_path) for each in arguments]
    result = CliRunner().invoke(app, [f"--output-dir={tmp_path}", *given])
    assert result.exit_code == 2
    assert named.format(folder=tmp_path) in result.stderr
