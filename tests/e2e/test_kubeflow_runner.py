"""The command line for Kubeflow as a user meets it: compiled, then rehearsed on real digits."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from typer.testing import CliRunner

import storage
from kubeflow_runner import app
from registry.layout import list_versions

ROOT = Path(__file__).parents[2]
NODES = {
    "MnistExampleGen",
    "StatisticsGen",
    "ImportSchemaGen",
    "ExampleValidator",
    "DataGate",
    "DigitClassifier",
    "Trainer",
    "GeneratorEvaluator",
    "ServingCheck",
    "Pusher",
}
# Every link of the chain as quickly as it can be real, and the same from every run.
SETTINGS = [
    "classifier.min_accuracy=0",
    "classifier.steps=40",
    "train.max_steps=60",
    "train.deterministic=true",
]
IMAGE = f"registry/image@sha256:{'0' * 64}"
SET = [word for setting in SETTINGS for word in ("--set", setting)]


def runner(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {name: text for name, text in os.environ.items() if "MNIST_" not in name}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        capture_output=True,
        text=True,
        env=environment | variables,
        check=False,
    )


def kubeflow_runner(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return runner("kubeflow_runner.py", *arguments, **variables)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "pipeline.yaml"
    # What names a folder of this machine is none of the spec's.
    result = kubeflow_runner(
        *("compile", "--preset", "smoke", *SET, "--image", IMAGE),
        *("--pipeline-root", "minio://bucket/root", "-o", str(path)),
        MNIST_DATA_DIR="/not/in/a/spec",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == f"Compiled {path}\n"
    assert result.stderr == ""
    return path


def test_compile_writes_yaml_of_schema_2_1(spec):
    document, platform = yaml.safe_load_all(spec.read_text())
    assert document["schemaVersion"] == "2.1.0"
    assert document["defaultPipelineRoot"] == "minio://bucket/root"
    assert set(document["root"]["dag"]["tasks"]) == NODES
    images = {
        executor["container"]["image"]
        for executor in document["deploymentSpec"]["executors"].values()
    }
    assert images == {IMAGE}
    assert "/not/in/a/spec" not in spec.read_text()
    assert str(ROOT) not in spec.read_text()
    assert set(platform) == {"platforms"}
    assert [path.name for path in spec.parent.iterdir()] == ["pipeline.yaml"]


def rehearse_all(spec: Path, span_dir: Path, work: Path) -> Path:
    """Rehearses, checks that all went well, and gives the folder of the run."""
    result = kubeflow_runner(
        *("rehearse", str(spec), "--store", "gs", "--work-dir", str(work)),
        *("--param", f"data_dir={span_dir}"),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "10 of 10 tasks succeeded" in result.stdout
    assert "warning" not in result.stdout
    [version] = (work / "volumes" / "mnist-gan" / "serving" / "mnist_gan").glob("[0-9]*")
    assert (version / "saved_model.pb").is_file()
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())
    assert card["data"]["span"] == 1
    [run] = [path for path in work.iterdir() if path.name != "volumes"]
    assert [path.name for path in (run / "bucket").iterdir()] == ["gcs"]
    # What `submit --wait` looks for.
    assert re.search(r"\bPushed version \d+ to \S+", (run / "logs" / "Pusher.log").read_text())
    [page] = run.glob("bucket/**/report-page")
    assert "<!doctype html>" in page.read_text()
    [shown] = run.glob("bucket/**/evaluation-metrics")
    measured = {name: metric["value"] for name, metric in metrics(run / "bucket").items()}
    assert json.loads(shown.read_text()) == {
        name: value for name, value in measured.items() if value is not None
    }
    return run


def metrics(folder: Path) -> dict:
    [path] = folder.glob("**/evaluation/**/evaluation.json")
    return json.loads(path.read_text())["metrics"]


def flat_metrics(folder: Path) -> tuple[dict, dict]:
    """The fields of all metrics by metric and field: those that are no numbers, and the numbers."""
    fields: dict = {}
    for name, metric in metrics(folder).items():
        low, high = metric.pop("interval") or (None, None)
        for field, value in {**metric, "low": low, "high": high}.items():
            fields[name, field] = value
    numbers = {key: value for key, value in fields.items() if isinstance(value, float)}
    return {key: value for key, value in fields.items() if key not in numbers}, numbers


@pytest.mark.slow
def test_a_rehearsal_gives_the_metrics_of_a_local_run(spec, span_dir, tmp_path):
    run = rehearse_all(spec, span_dir, tmp_path / "rehearsal")
    local = runner(
        "local_runner.py",
        *("run", "--preset", "smoke", *SET, "--data-dir", str(span_dir)),
        *("--output-dir", str(tmp_path / "local")),
    )
    assert local.returncode == 0, local.stdout + local.stderr
    texts, numbers = flat_metrics(run / "bucket")
    local_texts, local_numbers = flat_metrics(tmp_path / "local" / "artifacts")
    assert texts == local_texts
    # Under load sums are added in another order, and differ in their last bits.
    assert numbers == pytest.approx(local_numbers, rel=1e-6, abs=1e-9)


def kill_training(rehearsal: subprocess.Popen, checkpoints: str, work: Path) -> str:
    """Kills the Trainer's process once it has a checkpoint; gives its first line of progress."""
    lines: list[str] = []
    names: list[str] = []
    while not (lines and any(name.endswith("manifest.json") for name in names)):
        assert rehearsal.poll() is None
        time.sleep(0.1)
        lines = [line for log in work.glob(PROGRESS) for line in log.read_text().splitlines()]
        names = storage.files_in(checkpoints)
    for process in psutil.Process(rehearsal.pid).children(recursive=True):
        if "pipeline.kubeflow.container.entrypoint" in process.cmdline():
            process.kill()
    return lines[0]


PROGRESS = "*/pods/Trainer/minio/**/model_run/progress.jsonl"


@pytest.mark.slow
def test_a_killed_training_resumes_in_a_run_on_an_s3_store_that_tells_a_webhook(
    span_dir, tmp_path, s3_bucket, httpserver
):
    """No volume: versions and checkpoints are on a store over HTTP, whose keys are in secrets."""
    httpserver.expect_request("/hook", method="POST").respond_with_data("ok")
    spec, work = tmp_path / "pipeline.yaml", tmp_path / "work"
    places = [
        f"kubeflow.serving_root={s3_bucket}/serving",
        f"kubeflow.checkpoint_root={s3_bucket}/checkpoints",
        "kubeflow.volume_claim=null",
        f"kubeflow.s3_endpoint={os.environ[storage.ENDPOINT_VARIABLE]}",
        "kubeflow.s3_secret=minio-keys",
        "kubeflow.webhook_secret=slack",
        "train.max_steps=400",
        "train.checkpoint_seconds=1",
        "train.report_seconds=1",
    ]
    words = [word for place in places for word in ("--set", place)]
    result = kubeflow_runner("compile", "--preset", "smoke", *SET, *words, "-o", str(spec))
    assert result.returncode == 0, result.stderr
    assert os.environ[storage.SECRET_VARIABLE] not in spec.read_text()
    command = [sys.executable, str(ROOT / "kubeflow_runner.py"), "rehearse", str(spec)]
    command += ["--work-dir", str(work), "--param", f"data_dir={span_dir}"]
    variables = os.environ | {"RETRAIN_WEBHOOK_URL": httpserver.url_for("/hook")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables
    ) as rehearsal:
        first = kill_training(rehearsal, f"{s3_bucket}/checkpoints", work)
        output, _ = rehearsal.communicate()
    assert rehearsal.returncode == 0, output
    assert "11 of 11 tasks succeeded" in output
    [log] = work.glob("*/logs/Trainer.log")
    assert "killed by SIGKILL" in log.read_text()
    [progress] = work.glob(PROGRESS)
    steps = [json.loads(line)["step"] for line in progress.read_text().splitlines()]
    assert progress.read_text().splitlines()[0] == first
    assert steps == sorted(steps)
    assert steps[-1] == 400
    base = f"{s3_bucket}/serving/mnist_gan"
    [version] = list_versions(base)
    card = json.loads(storage.read(f"{base}/{version}/assets.extra/model_card.json"))
    [(request, _)] = httpserver.log
    message = request.get_json()
    assert (message["outcome"], message["version"], message["span"]) == ("pushed", version, 1)
    assert message["fid"] == card["metrics"]["fid"]["value"]
    # A training that ends removes its checkpoints, and the exit handler the notes of failures.
    assert storage.names_in(f"{s3_bucket}/checkpoints") == []


def test_help_imports_neither_tfx_nor_tensorflow():
    code = (
        "import sys, kubeflow_runner\n"
        "try: kubeflow_runner.app(['--help'])\n"
        "except SystemExit: pass\n"
        "names = ('tensorflow', 'tfx', 'kfp', 'apache_beam', 'numpy')\n"
        "print([m for m in names if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.rstrip().endswith("[]"), result.stdout


@pytest.mark.parametrize(
    ("command", "defaults"),
    [
        ("compile", ["kubeflow.image", "kubeflow.pipeline_root"]),
        ("rehearse", ["pipeline.yaml", "the spec's root's, or minio"]),
        ("submit", ["pipeline.yaml", "$KF_PIPELINES_ENDPOINT", "the pipeline's name"]),
        ("schedule", ["pipeline.yaml", "$KF_PIPELINES_ENDPOINT", "the spec's, else the cluster's"]),
    ],
)
def test_help_says_what_is_taken_where_nothing_is_given(command, defaults, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    printed = " ".join(CliRunner().invoke(app, [command, "--help"]).output.split())
    assert [each for each in defaults if each not in printed] == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("compile --preset tiny", "'tiny'"),
        ("compile --set kubeflow.imag=x", "the nearest is kubeflow.image"),
        ("compile --image Image", "where: --image"),
        ("compile --image image@sha256:0", "where: --image"),
        ("compile --pipeline-root ftp://x", "where: --pipeline-root"),
        ("compile --set kubeflow.serving_root=/tmp/x", "kubeflow.serving_root"),
        ("compile --set kubeflow.serving_root=minio://b/x", "kubeflow.serving_root"),
        ("compile -o pipeline.json", "pipeline.json"),
        ("compile -o nowhere/pipeline.yaml", "nowhere"),
        ("rehearse nowhere.yaml", "where: nowhere.yaml"),
        ("rehearse README.md", "where: README.md"),
        ("rehearse --store ftp", "--store"),
        ("rehearse SPEC --param span", "where: --param"),
        ("rehearse SPEC", "data_dir"),
        ("rehearse SPEC --param data_dir=/d --param x=1", "'x'"),
        ("rehearse SPEC --param data_dir=/d --param span=a", "span is 'a'"),
    ],
)
def test_a_mistake_is_status_2_and_leaves_nothing(spec, tmp_path, arguments, named):
    words = arguments.replace("SPEC", str(spec)).split()
    if words[0] == "rehearse":
        words += ["--work-dir", str(tmp_path / "work")]
    # In this process, since each start of Python takes a second or two.
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    assert named in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) <= 5
    assert not (tmp_path / "work").exists()


def test_a_mistake_shows_no_traceback(tmp_path):
    result = kubeflow_runner("rehearse", str(tmp_path / "pipeline.yaml"))
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.slow
def test_a_task_that_fails_is_named_with_the_reason(spec, tmp_path):
    result = kubeflow_runner(
        "rehearse", str(spec), "--param", f"data_dir={tmp_path}", "--work-dir", str(tmp_path / "w")
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "✗ MnistExampleGen" in result.stdout
    assert str(tmp_path) in result.stdout
    assert "1 of 10 tasks succeeded" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
