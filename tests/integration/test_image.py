"""The image's steps, performed without Docker, and nodes run in what they make."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "try_image.py"
ROOMS = (
    "components",
    "evaluation",
    "metrics",
    "mnist",
    "models",
    "pipeline",
    "registry",
    "serving",
)


def can_mount() -> bool:
    """Whether this is root on a machine that lets root mount."""
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return (
        os.geteuid() == 0
        and shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


def run_in_image(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Performs the Dockerfile's steps around this environment, then a shell script in it."""
    return subprocess.run(
        [
            *("unshare", "--mount", sys.executable, str(SCRIPT), str(folder)),
            *("--venv", sys.prefix, "--build-arg", "COMMIT=abc", "--build-arg", "VERSION=1.2.3"),
            *("--", "sh", "-euc", script),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


COMPILE_AND_REHEARSE = """
echo user $(id -u), home $HOME, in $(pwd)
python kubeflow_runner.py compile --preset smoke -o /tmp/whole.yaml
python - <<END
import yaml
spec, platform = yaml.safe_load_all(open("/tmp/whole.yaml"))
tasks = spec["root"]["dag"]["tasks"]
spec["root"]["dag"]["tasks"] = {key: tasks[key] for key in ("ImportSchemaGen", "MnistExampleGen")}
yaml.safe_dump_all([spec, platform], open("/tmp/pipeline.yaml", "w"))
END
python kubeflow_runner.py rehearse /tmp/pipeline.yaml --work-dir /tmp/w --param data_dir=/tmp/data
if touch /app/file 2>/dev/null; then echo the project can be written to; fi
find /app ! -perm -o=r
"""


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs root, and to be let mount")
def test_nodes_run_as_a_user_without_a_home(tmp_path, digits, write_span) -> None:
    write_span(tmp_path / "tmp" / "data", *digits, train=700)
    done = run_in_image(tmp_path, COMPILE_AND_REHEARSE)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout
    first, *_, last = done.stdout.splitlines()
    assert first == "user 65532, home /tmp, in /app"
    assert "2 of 2 tasks succeeded" in done.stdout, done.stdout
    assert last == "  store, pods, logs and volumes: /tmp/w"
    schema = tmp_path.glob("tmp/w/*/bucket/minio/**/ImportSchemaGen/**/schema.pbtxt")
    assert [path.read_text() for path in schema] == [
        (ROOT / "pipeline" / "schema" / "schema.pbtxt").read_text()
    ]
    image = json.loads((tmp_path / "image.json").read_text())
    assert image["workdir"] == "/app"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image["user"]), "by number, for runAsNonRoot"
    labels = {
        key.removeprefix("org.opencontainers.image."): each for key, each in image["labels"].items()
    }
    assert (labels["version"], labels["revision"]) == ("1.2.3", "abc")
    assert labels["licenses"] == "Apache-2.0"


@pytest.mark.slow
def test_the_context_is_what_is_copied_and_nothing_else() -> None:
    """No tests, no outputs, no environment; and every module that git knows."""
    sys.path.insert(0, str(SCRIPT.parent))
    from try_image import context

    found = {str(path) for path in context(ROOT)}
    kept = (*(f"{room}/" for room in ROOMS), "requirements/", "LICENSE")
    assert {path for path in found if not path.startswith(kept)} == {
        "local_runner.py",
        "kubeflow_runner.py",
        "storage.py",
        "errors.py",
        "parsing.py",
        "surroundings.py",
    }
    command = ["git", "ls-files", *ROOMS]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(listed.stdout.split()) <= found
    assert not [path for path in found if "__pycache__" in path]


def test_the_image_is_the_slim_python_and_nothing_of_debian_is_added() -> None:
    sys.path.insert(0, str(SCRIPT.parent))
    from try_image import parse

    stages = parse((ROOT / "deploy" / "Dockerfile").read_text(), {})
    installs = {stage.name for stage in stages.values() if "apt-get" in str(stage.steps)}
    assert not installs
    bases = [name := list(stages)[-1]]
    while name in stages:
        bases.append(name := stages[name].base)
    assert bases == ["default", "run", "base", "python:3.13-slim-trixie"]


def test_beams_worker_is_of_the_locked_release() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    [release] = re.findall(r"^ARG BEAM=(\S+)$", text, re.MULTILINE)
    assert f"apache-beam=={release} \\\n" in (ROOT / "requirements" / "base.txt").read_text()
