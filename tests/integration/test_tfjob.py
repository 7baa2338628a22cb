"""The manifest of the training on several machines, and its command, run on this one."""

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
from test_distribution import tf_configs
from typer.testing import CliRunner

from pipeline.cli.train import app
from pipeline.settings.resolution import resolve

ROOT = Path(__file__).parents[2]
MANIFEST = next(yaml.safe_load_all((ROOT / "deploy" / "tfjob.yaml").read_text()))
WORKER = MANIFEST["spec"]["tfReplicaSpecs"]["Worker"]
[CONTAINER] = WORKER["template"]["spec"]["containers"]
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


def test_the_workers_share_a_batch_and_a_volume() -> None:
    [preset] = [each for each in CONTAINER["args"] if each.startswith("--preset=")]
    settings = resolve(preset.removeprefix("--preset="), environ={}).settings
    gpus = int(CONTAINER["resources"]["limits"]["nvidia.com/gpu"])
    assert settings.train.batch_size % (WORKER["replicas"] * gpus) == 0
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

    def __init__(self, volume: Path, tf_config: str, log: Path) -> None:
        command = [sys.executable, *CONTAINER["command"][1:]]
        command += [each.replace(VOLUME, str(volume)) for each in CONTAINER["args"]]
        command += [part for key, each in TINY.items() for part in ("--set", f"train.{key}={each}")]
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"TF_CONFIG": tf_config, "CUDA_VISIBLE_DEVICES": "-1"},
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
        Worker(volume, config, volume / f"{attempt}-{index}.log")
        for index, config in enumerate(tf_configs(2))
    ]


@pytest.mark.slow
def test_two_workers_are_evicted_and_go_on(tmp_path: Path, digits, write_span) -> None:
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
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
    steps = [json.loads(line)["step"] for line in progress.read_text().splitlines()]
    resumed_at = int(saved.name.rpartition("-")[2])
    assert (steps[0], steps[-1]) == (resumed_at + 4, 400)
    assert not list((tmp_path / "trained" / "checkpoints").iterdir())
    served = tf.saved_model.load(str(tmp_path / "trained" / "model"))
    drawn = served.signatures["generate_pixels"](
        seed=tf.range(3, dtype=tf.int64), digit=tf.constant([1, 2, 3], tf.int64)
    )
    assert drawn["image"].shape == (3, 28, 28, 1)


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
