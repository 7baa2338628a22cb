"""The local command line as a user meets it: real digits in, a served generator out."""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image
from typer.testing import CliRunner

from local_runner import app
from pipeline.settings.resolution import resolve
from registry.records import read_record

ROOT = Path(__file__).parents[2]
NODES = [
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
]
UNKNOWN_FIELD = b"\xc0\x3e\x01"  # number 1000 of a message, which readers pass over


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="module")
def arguments(workspace: Path) -> list[str]:
    """A smoke run on the 5,000 bundled digits."""
    return [
        *("run", "--preset", "smoke", "--output-dir", str(workspace / "outputs")),
        *("--set", "data.source=bundled", "--set", f"data.cache_dir={workspace / 'cache'}"),
    ]


@pytest.fixture(scope="module")
def pushed(arguments: list[str]) -> subprocess.CompletedProcess:
    """The first run, which pushes version 1 of everything."""
    return local_runner(*arguments)


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "local_runner.py"), *arguments]


def environment() -> dict[str, str]:
    names = {name for name in os.environ if name.startswith("MNIST_")}
    return {name: value for name, value in os.environ.items() if name not in names}


def local_runner(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment(), check=False
    )


def assert_refused(result: subprocess.CompletedProcess, named: str, status: int = 2) -> None:
    """A command ended with an error of at most five lines that names a path, a key or a value."""
    assert result.returncode == status, result.stdout + result.stderr
    assert result.stderr.startswith("error: ")
    assert named in result.stderr
    assert len(result.stderr.splitlines()) <= 5
    assert "Traceback" not in result.stdout


def in_process(*arguments: str) -> subprocess.CompletedProcess:
    """A command that ends before TFX is imported; a process of its own would take seconds."""
    without = {name: None for name in os.environ if name.startswith("MNIST_")}
    result = CliRunner().invoke(app, arguments, env=without)
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def versions_in(serving: Path) -> list[Path]:
    return sorted(path for path in serving.iterdir() if path.name.isdecimal())


def versions(workspace: Path) -> list[Path]:
    return versions_in(workspace / "outputs" / "serving" / "mnist_gan")


def test_a_first_run_pushes_a_generator(pushed, workspace):
    assert pushed.returncode == 0, pushed.stdout + pushed.stderr
    assert pushed.stderr == ""
    for node in NODES:
        assert f"{node} " in pushed.stdout
    assert "5,000 real MNIST training digits" in pushed.stdout
    assert "Pushed " in pushed.stdout
    assert "FID " in pushed.stdout
    most = resolve("smoke", environ={}).settings.train.max_steps
    assert f"  budget  at most {most:,} steps of training" in pushed.stdout
    _, _, follow = pushed.stdout.rpartition("\nNext:\n")
    commands = [shlex.split(line, comments=True) for line in follow.splitlines()]
    assert [each[2] for each in commands] == ["report", "serve", "draw"]
    assert {each[-1] for each in commands} == {str(workspace / "outputs")}
    [version] = versions(workspace)
    assert version.name.isdecimal()
    assert read_record(version).version == int(version.name)
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())
    assert card["evaluated"]
    assert card["data"]["span"] == 1
    assert card["metrics"]["fid"]["value"] > 0
    assert "| FID | " in (version / "assets.extra" / "model_card.md").read_text()
    kept = version / "assets.extra" / "data_statistics"
    assert {path.name for path in kept.iterdir()} == {
        "statistics.pb",
        "class_means.npy",
        "data.json",
    }


def test_lineage_needs_the_served_folder_alone(pushed, workspace, tmp_path):
    shutil.copytree(workspace / "outputs" / "serving", tmp_path / "serving")
    [version] = versions(workspace)
    shown = in_process("lineage", version.name, "--json", "--output-dir", str(tmp_path))
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert (found["version"], found["state"]) == (int(version.name), "intact")
    assert [span["train"] + span["eval"] for span in found["spans"]] == [5000]
    schema = (ROOT / "pipeline" / "schema" / "schema.pbtxt").read_bytes()
    assert found["provenance"]["schema_sha256"] == hashlib.sha256(schema).hexdigest()
    assert re.fullmatch("[0-9a-f]{64}", found["provenance"]["classifier_sha256"])
    assert found["recipe"] == {"preset": "smoke", "changed": {}}
    assert found["start"] == {"start": "cold", "origin": None}
    assert found["verdict"]["blessed"] is True
    assert found["metrics"]["fid"]["interval"]
    text = in_process("lineage", "--output-dir", str(tmp_path))
    assert "not recorded" not in text.stdout
    assert_refused(in_process("lineage", "5", "--output-dir", str(tmp_path)), "no version 5")
    full = in_process("lineage", "--open-lineage", "/dev/full", "--output-dir", str(tmp_path))
    assert_refused(full, "No space left", status=1)
    assert sorted(os.listdir(tmp_path)) == ["serving"]


def test_models_shows_what_is_served(pushed, workspace):
    [version] = versions(workspace)
    result = in_process("models", "--output-dir", str(workspace / "outputs"))
    assert result.returncode == 0, result.stderr
    [row] = [line for line in result.stdout.splitlines() if version.name in line]
    assert row.split()[-1] == "served"


def test_an_image_is_drawn_with_what_is_served(pushed, workspace, tmp_path):
    place = ["--output-dir", str(workspace / "outputs")]
    for name in ("seven.png", "again.png"):
        result = in_process("draw", "7", "--seed", "3", "-o", str(tmp_path / name), *place)
        assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "seven.png") as image:
        assert (image.size, int(image.info["seed"]), int(image.info["digit"])) == ((28, 28), 3, 7)
    assert (tmp_path / "seven.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    nothing = in_process("draw", "7", "-o", str(tmp_path / "x.png"), "--output-dir", str(tmp_path))
    assert_refused(nothing, str(tmp_path))
    assert not (tmp_path / "x.png").exists()


def test_what_cannot_be_rolled_back_or_retired(pushed, workspace, tmp_path):
    [version] = versions(workspace)
    place = ["--output-dir", str(workspace / "outputs")]
    for command, named in (
        (["rollback", *place], version.name),
        (["retire", version.name, *place], version.name),
        (["retire", "7", *place], version.name),
        (["rollback", "--output-dir", str(tmp_path)], "there is no version"),
    ):
        assert_refused(in_process(*command), named)
    assert versions(workspace) == [version]


def test_the_report_and_the_comparison_of_runs(pushed, workspace, tmp_path):
    place = ["--output-dir", str(workspace / "outputs")]
    found = local_runner("report", *place)
    assert found.returncode == 0, found.stderr
    page = Path(found.stdout.strip())
    assert f"reports/{page.parent.name}/report.html" in pushed.stdout
    assert '<h1 id="verdict" class="good">Blessed</h1>' in page.read_text()
    assert "there is no drift to measure" in page.read_text()
    assert "Histograms: the label and each derived scalar" in page.read_text()
    assert json.loads((page.parent / "evaluation.json").read_text())["verdict"]["blessed"]
    compared = local_runner("compare", page.parent.name, *place)
    assert compared.returncode == 0, compared.stderr
    assert "FID / floor" in compared.stdout
    assert "1 run compared" in (page.parents[1] / "comparison.html").read_text()
    for command, named in (
        (["report", "1999", *place], "\n  - 20"),
        (["compare", "1999", *place], "'1999'"),
        (["report", "--output-dir", str(tmp_path)], "no run has a report yet"),
    ):
        assert_refused(in_process(*command), named)


def test_a_rerun_with_nothing_changed_skips_every_node(pushed, arguments, workspace):
    before = versions(workspace)
    result = local_runner(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("unchanged, from the cache") == len(NODES)
    assert str(before[-1]) in result.stdout
    assert versions(workspace) == before


@pytest.mark.slow
def test_a_model_that_is_served_already_is_not_pushed_again(pushed, arguments, workspace):
    """Its files differ from the pushed ones, as after a training with the same result."""
    before = versions(workspace)
    [graph] = (workspace / "outputs").glob("artifacts/**/Trainer/model/**/saved_model.pb")
    content = graph.read_bytes()
    graph.write_bytes(content + UNKNOWN_FIELD)
    try:
        result = local_runner(*arguments, "--from", "GeneratorEvaluator")
    finally:
        graph.write_bytes(content)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("unchanged, from the cache") == len(NODES) - 2
    assert f"Not pushed: version {before[-1].name} is this model already" in result.stdout
    assert versions(workspace) == before
    status = local_runner("status", "--output-dir", str(workspace / "outputs")).stdout
    assert status.count(before[-1].name) == 1


def test_status_shows_the_runs(pushed, workspace):
    result = in_process("status", "--output-dir", str(workspace / "outputs"))
    assert result.returncode == 0, result.stderr
    assert "smoke" in result.stdout
    assert versions(workspace)[-1].name in result.stdout


def test_data_shows_each_span_and_what_is_wrong_with_it(tmp_path, digits, write_span):
    for span in (1, 2, 10):
        write_span(tmp_path / f"span-{span}", *digits, train=900)
        (tmp_path / f"span-{span}" / "_SUCCESS").touch()
    (tmp_path / "span-2" / "train-labels-idx1-ubyte").unlink()
    images = tmp_path / "span-10" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:5000])
    place = ["--output-dir", str(tmp_path / "out")]
    result = in_process("data", "--data-dir", str(tmp_path), *place)
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[0] for row in rows if row[0].isdecimal()] == ["10", "2", "1"]
    [row] = [row for row in rows if row[0] == "1"]
    shares = np.bincount(digits[1][:900], minlength=10) / 9
    assert row[1:13] == ["900", "100", *(f"{share:.0f}" for share in shares)]
    assert row[14] == "complete"
    assert "✗ span 2 is incomplete: " in result.stdout
    assert "✗ span 10 is damaged: " in result.stdout
    nothing = in_process("data", "--data-dir", str(tmp_path / "none"), *place)
    assert_refused(nothing, str(tmp_path / "none"))


def test_retraining_on_the_same_data_has_nothing_to_do(pushed, arguments):
    result = in_process("retrain", *arguments[1:])
    assert result.returncode == 0, result.stderr
    done = json.loads(result.stdout)
    assert done["outcome"] == "nothing to do"
    assert "gave a verdict on the data of span 1" in done["reason"]


@pytest.mark.slow
def test_new_data_is_a_reason_to_retrain(tmp_path, span_dir, digits, write_span):
    data, place = tmp_path / "spans", ["--output-dir", str(tmp_path / "out"), "--preset", "smoke"]
    command = ["retrain", "--data-dir", str(data), *place]
    printed = []
    for span in (1, 2):
        write_span(data / f"span-{span}", *(part[span * 100 :] for part in digits), train=600)
        (data / f"span-{span}" / "_SUCCESS").touch()
        for _ in range(2):
            result = local_runner(*command)
            assert result.returncode in (0, 3), result.stdout
            printed.append(json.loads(result.stdout.splitlines()[-1]))
    assert [done["span"] for done in printed] == [1, 1, 2, 2]
    reasons = [done["reason"] for done in printed]
    assert reasons[0] == "no run has come to a verdict yet"
    assert reasons[2] == "the data of span 2 are new"
    assert [done["outcome"] for done in printed[1::2]] == ["nothing to do"] * 2
    assert printed[0]["outcome"] == "pushed"
    assert printed[0]["version"] == printed[1]["version"]


@pytest.mark.slow
def test_a_poisoned_span_stops_one_run_and_is_left_out_until_released(tmp_path, digits, write_span):
    images, labels = digits
    data, place = tmp_path / "data", ["--output-dir", str(tmp_path / "out")]
    named = ["--data-dir", str(data), *place]
    write_span(data / "span-2", images, labels[::-1], train=900)
    (data / "span-2" / "_SUCCESS").touch()
    stopped = local_runner("retrain", "--preset", "smoke", *named)
    assert_refused(stopped, "DataGate: ", status=1)
    done = json.loads(stopped.stdout.splitlines()[-1])
    assert (done["outcome"], done["quarantined"]) == ("failed", [2])
    assert done["error"].startswith("DataGate: ")
    assert "Trainer" not in stopped.stdout
    for command in (["status", *place], ["data", *named]):
        assert "span 2 is quarantined" in in_process(*command).stdout
    assert_refused(in_process("retrain", "--preset", "smoke", *named), str(data))
    asked_for = in_process("run", "--preset", "smoke", "--set", "data.span=2", *named)
    assert_refused(asked_for, "`python local_runner.py release 2`")
    assert in_process("release", "2", *place).returncode == 0
    assert "quarantined" not in in_process("status", *place).stdout
    assert_refused(in_process("release", "2", *place), "2")


@pytest.mark.slow
@pytest.mark.nightly
def test_warm_starts_go_on_from_what_is_served_and_never_from_what_was_rejected(
    tmp_path, span_dir, digits, write_span
):
    output = tmp_path / "out"
    arguments = [
        *("run", "--preset", "smoke", "--output-dir", str(output), "--data-dir", str(span_dir)),
        *("--set", "train.warm_start=auto", "--set", "train.max_steps=120"),
    ]

    def start_of_last_training() -> str:
        runs = output.glob("artifacts/Trainer/model_run/*/progress.jsonl")
        newest = max(runs, key=lambda path: int(path.parent.name))
        return json.loads(newest.read_text().splitlines()[0])["start"]

    def run(*more: str, status: int = 0) -> int:
        """Returns how many nodes came from the cache."""
        result = local_runner(*arguments, *more)
        assert result.returncode == status, result.stdout + result.stderr
        return result.stdout.count("unchanged, from the cache")

    serving = output / "serving" / "mnist_gan"
    run()
    [first] = versions_in(serving)
    assert start_of_last_training() == "cold"
    assert run() == len(NODES)
    write_span(span_dir, *(part[::-1] for part in digits), train=700)
    run("--set", "evaluation.thresholds.fid_ratio=0.001", status=3)
    assert f"warm from version {first.name}" in start_of_last_training()
    write_span(span_dir, *(part[100:] for part in digits), train=700)
    run("--set", "evaluation.tolerances.fid=null")
    assert f"warm from version {first.name}" in start_of_last_training()
    assert len(versions_in(serving)) == 2
    assert run("--set", "evaluation.tolerances.fid=null") == len(NODES)
    wider = ("--set", "train.latent_dim=65", "--set", "evaluation.tolerances.fid=null")
    run(*wider)
    assert start_of_last_training() == "cold"
    other = ("--set", "train.warm_start=served", "--set", "train.latent_dim=66")
    refused = local_runner(*arguments, *other)
    assert_refused(refused, "Trainer: ", status=1)


def test_a_model_that_is_not_blessed_is_not_pushed(pushed, arguments, workspace):
    before = versions(workspace)
    result = local_runner(*arguments, "--set", "evaluation.thresholds.fid_ratio=0.001")
    assert result.returncode == 3, result.stdout + result.stderr
    assert "must be at most 0.001" in result.stdout
    assert versions(workspace) == before
    status = in_process("status", "--why", "--output-dir", str(workspace / "outputs"))
    assert "no: fid_ratio" in status.stdout
    assert "must be at most 0.001" in status.stdout


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["deleted", "altered"])
def test_a_version_that_was_damaged_by_hand_is_restored(pushed, arguments, workspace, damage):
    [version] = versions(workspace)
    whole = contents(version)
    if damage == "deleted":
        shutil.rmtree(version)
    else:
        weights = next((version / "variables").glob("variables.data*"))
        weights.write_bytes(weights.read_bytes()[:-1000])
    result = local_runner("retrain", *arguments[1:])
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("unchanged, from the cache") == len(NODES)
    assert f"version {version.name} was altered or gone and is served again" in result.stdout
    [restored] = versions(workspace)
    assert contents(restored) == whole
    quiet = local_runner("retrain", *arguments[1:])
    assert json.loads(quiet.stdout)["outcome"] == "nothing to do"


def contents(version: Path) -> dict[str, bytes]:
    """All files of a version but the record of its push."""
    files = [path for path in version.rglob("*") if path.is_file() and path.name != "push.json"]
    return {str(path.relative_to(version)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_changed_data_under_the_same_path_is_seen(span_dir, tmp_path, digits, write_span):
    arguments = [
        *("run", "--preset", "smoke", "--output-dir", str(tmp_path / "out")),
        *("--data-dir", str(span_dir)),
        *("--set", "classifier.min_accuracy=1", "--set", "classifier.steps=1"),
    ]
    first = local_runner(*arguments)
    assert_refused(first, "where: classifier.min_accuracy", status=1)
    images, labels = digits
    write_span(span_dir, images[::-1], labels[::-1], train=700)
    second = local_runner(*arguments)
    ingestion = [line for line in second.stdout.splitlines() if "MnistExampleGen  " in line]
    assert "from the cache" not in ingestion[0], second.stdout


@pytest.mark.slow
def test_a_killed_run_is_finished_by_the_next(tmp_path, span_dir):
    """SIGKILL in the middle of training; the next run takes up where the cache ends."""
    output = tmp_path / "out"
    arguments = ["run", "--preset", "smoke", "--output-dir", str(output)]
    arguments += ["--data-dir", str(span_dir)]
    arguments += ["--set", "classifier.min_accuracy=0", "--set", "classifier.steps=1"]
    with open(tmp_path / "first.txt", "w") as log:
        process = subprocess.Popen(
            command(*arguments), stdout=log, env=environment(), start_new_session=True
        )
        wait_for(tmp_path / "first.txt", "Trainer ...", process)
        time.sleep(2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (output / "serving").exists()
    result = local_runner(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("unchanged, from the cache") == NODES.index("Trainer")
    assert len(versions_in(output / "serving" / "mnist_gan")) == 1


def wait_for(log: Path, text: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--preset", "nix"], "'nix'"),
        (["--set", "train.max_secnds=1"], "the nearest is train.max_seconds"),
        (["--data-dir", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--data-dir", ".", "--set", "data.span=7"], "holds no MNIST data"),
        (["--frobnicate"], "--frobnicate"),
        (["--output-dir", "/proc/nothing/here"], "/proc/nothing"),
    ],
)
def test_bad_usage_is_status_2_and_leaves_nothing(arguments, named, tmp_path):
    if "--output-dir" not in arguments:
        arguments = [*arguments, "--output-dir", str(tmp_path / "out")]
    assert_refused(in_process("run", *arguments), named)
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_is_none_is_bad_usage_before_tfx_is_imported(tmp_path, span_dir):
    output = tmp_path / "out"
    place = ["--data-dir", str(span_dir), "--output-dir", str(output)]
    code = (
        "import sys, local_runner\n"
        "try: local_runner.app(sys.argv[1:])\n"
        "finally: print([m for m in ('tensorflow', 'tfx') if m in sys.modules])"
    )
    arguments = ["run", "--no-cache", "--from", "Trainr", *place]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert result.returncode == 2, result.stdout + result.stderr
    assert "'Trainr'" in result.stderr
    assert result.stdout == "[]\n"
    assert not output.exists()


def test_make_run_takes_the_options_of_run():
    command = ["make", "--dry-run", "run", "ARGS=--preset smoke"]
    printed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    program, *arguments = printed.splitlines()[-1].split()
    assert program.endswith("python")
    assert arguments == ["local_runner.py", "run", "--preset", "smoke"]


def test_bad_data_are_refused_with_status_2_and_leave_nothing(tmp_path, span_dir):
    path = span_dir / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    output = tmp_path / "out"
    result = local_runner(
        "run", "--preset", "smoke", "--data-dir", str(span_dir), "--output-dir", str(output)
    )
    assert_refused(result, "train-labels-idx1-ubyte")
    assert not output.exists()


def test_other_images_given_as_digits_stop_the_run_with_five_lines(tmp_path, write_span):
    """As Fashion-MNIST would: files that are right and content that is not."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (500, 28, 28)).astype(np.uint8)
    labels = random.integers(0, 10, 500).astype(np.uint8)
    write_span(tmp_path / "data", images, labels, train=400)
    place = ["--output-dir", str(tmp_path / "out"), "--data-dir", str(tmp_path / "data")]
    result = local_runner("run", "--preset", "smoke", *place)
    assert_refused(result, "DataGate: ", status=1)
    [log] = (tmp_path / "out" / "logs").iterdir()
    left = re.search(r"and (\d+) more in (.*)", result.stderr)
    assert left
    assert Path(left[2]) == log
    assert len(re.findall(r"^- (?:train|eval|span 1): ", log.read_text(), re.M)) == int(left[1]) + 1
    assert "Traceback" in log.read_text()


def test_config_is_yaml_with_origins():
    result = in_process("config", "--preset", "smoke", "--set", "train.batch_size=8")
    settings = yaml.safe_load(result.stdout)
    assert settings["train"]["batch_size"] == 8
    assert "batch_size: 8  # --set" in result.stdout
    assert "# preset smoke" in result.stdout


def test_help_does_not_import_tensorflow():
    code = (
        "import sys, local_runner\n"
        "try: local_runner.app(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('tensorflow', 'tfx', 'apache_beam', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.rstrip().endswith("[]"), result.stdout


@pytest.mark.parametrize(
    ("command", "default"),
    [("run", "$MNIST_DATA_DIR"), ("report", "the newest"), ("serve", "where runs push")],
)
def test_help_says_what_is_taken_where_nothing_is_given(command, default, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert default in CliRunner().invoke(app, [command, "--help"]).output


@pytest.mark.slow
def test_tfx_command_line_compiles_the_pipeline(tmp_path):
    programs = str(Path(sys.executable).parent)
    result = subprocess.run(
        [
            f"{programs}/tfx",
            "pipeline",
            "compile",
            "--engine",
            "local",
            "--pipeline-path",
            "local_runner.py",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **environment(),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "MNIST_GAN_OUTPUT_DIR": str(tmp_path / "out"),
            "HOME": str(tmp_path),
        },
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Pipeline compiled successfully" in result.stdout


@pytest.mark.slow
def test_a_killed_search_is_finished_by_the_next_run_and_feeds_the_trainer(tmp_path, span_dir):
    """SIGKILL in the second trial; the next run tries only the rest, and trains with the best."""
    output = tmp_path / "out"
    arguments = ["run", "--preset", "smoke", "--output-dir", str(output)]
    arguments += ["--data-dir", str(span_dir)]
    for setting in (
        *("classifier.min_accuracy=0", "classifier.steps=20", "train.latent_dim=1"),
        *("tune.enabled=true", "tune.seconds=null", "tune.steps=40", "tune.trials=3"),
        *("tune.parameters=[latent_dim]", "train.max_steps=120"),
    ):
        arguments += ["--set", setting]
    with open(tmp_path / "first.txt", "w") as log:
        process = subprocess.Popen(
            command(*arguments), stdout=log, env=environment(), start_new_session=True
        )
        wait_for(tmp_path / "first.txt", "trial 2 of 3", process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    result = local_runner(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("unchanged, from the cache") == NODES.index("Trainer")
    assert "trial 1 of 3" not in result.stdout
    assert "trial 3 of 3" in result.stdout
    [version] = versions_in(output / "serving" / "mnist_gan")
    [found] = output.glob("artifacts/Tuner/best_hyperparameters/*/best_hyperparameters.txt")
    best = json.loads(found.read_text())["values"]["latent_dim"]
    latent = tf.saved_model.load(str(version)).signatures["from_latent"]
    assert latent.structured_input_signature[1]["latent"].shape[1] == best


@pytest.mark.slow
def test_a_model_is_evaluated_again_when_another_is_served(tmp_path, span_dir):
    """And not when what is served is the model itself, or the run is repeated."""
    arguments = ["run", "--preset", "smoke", "--output-dir", str(tmp_path / "out")]
    arguments += ["--data-dir", str(span_dir), "--set", "classifier.min_accuracy=0"]
    arguments += ["--set", "classifier.steps=20", "--set", "evaluation.tolerances.fid=null"]
    arguments += ["--set", "train.max_steps=120"]
    other = [*arguments, "--set", "train.seed=7"]
    serving = tmp_path / "out" / "serving" / "mnist_gan"
    runs = [local_runner(*which) for which in (arguments, other, other, arguments, arguments)]
    assert [run.returncode for run in runs] == [0] * 5, runs[-1].stdout
    versions = [path.name for path in versions_in(serving)]
    assert len(versions) == 3
    assert "No model is served yet" in runs[0].stdout
    assert f"Compared with version {versions[0]}" in runs[1].stdout
    assert f"Compared with version {versions[1]}" in runs[3].stdout
    for repeated in (runs[2], runs[4]):
        assert repeated.stdout.count("unchanged, from the cache") == len(NODES)
    assert (
        runs[3].stdout.count("unchanged, from the cache") == NODES.index("GeneratorEvaluator") + 1
    )


@pytest.mark.slow
def test_a_rollback_lasts_until_there_is_another_model(pushed, arguments, workspace):
    place = ["--output-dir", str(workspace / "outputs")]
    second = [*arguments, "--set", "train.seed=1"]
    assert local_runner(*second).returncode == 0
    old, new = versions(workspace)
    result = local_runner("rollback", "--reason", "thin strokes", *place)
    assert result.returncode == 0, result.stderr
    served = versions(workspace)[-1]
    assert (served / "saved_model.pb").read_bytes() == (old / "saved_model.pb").read_bytes()
    again = local_runner(*second)
    assert again.returncode == 3, again.stdout
    assert new.name in again.stdout
    assert "thin strokes" in again.stdout
    assert versions(workspace) == [old, new, served]
    assert local_runner("retire", new.name, *place).returncode == 0
    assert versions(workspace) == [old, served]
    third = local_runner(*arguments, "--set", "train.seed=2")
    assert third.returncode == 0, third.stdout
    assert len(versions(workspace)) == 3
    shown = " ".join(in_process("models", *place).stdout.split())
    assert f"rolled back from {new.name} to {old.name}: thin strokes" in shown
