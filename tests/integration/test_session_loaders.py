"""A pushed version gives the same bytes in Python, in saved_model_cli and in TensorFlow Java.

TensorFlow Java loads by `tensorflow/cc/saved_model/loader.cc`, as TensorFlow Serving does, in the
C++ runtime of TensorFlow 2.18. saved_model_cli loads in a session of this TensorFlow. All three run
without oneDNN: its kernels differ from release to release by a gray level in a pixel now and then.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from old_export import export_as_before

from models.gan.export import export_generator
from models.gan.networks import build_generator
from models.gan.settings import TrainSettings
from registry.push import push

pytestmark = pytest.mark.slow

JAVA = Path(__file__).parents[1] / "java"
SETTINGS = TrainSettings(latent_dim=6, generator_channels=(8, 6, 4))
# Every digit, "any" among them, and seeds at both ends of int64.
SEEDS = [-(2**63), 2**63 - 1, *range(98)]
DIGITS = [row % 11 - 1 for row in range(100)]
PYTHON = """
import sys
import numpy as np
import tensorflow as tf

signature = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
rows = np.load(sys.argv[2])
drawn = signature(seed=tf.constant(rows["seed"]), digit=tf.constant(rows["digit"]))
np.save(sys.argv[3], drawn["image_bytes"].numpy())
"""
Draw = Callable[[Path, Path], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pushed version."""
    folder = tmp_path_factory.mktemp("pushed")
    export_generator(build_generator(SETTINGS), SETTINGS, str(folder / "model"))
    version = push(str(folder / "model"), str(folder / "serving" / "mnist_gan"))
    return folder / "serving" / "mnist_gan" / str(version)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with two copies of each variable."""
    folder = tmp_path_factory.mktemp("old") / "model"
    export_as_before(build_generator(SETTINGS), SETTINGS, folder)
    return folder


@pytest.fixture(scope="module")
def draw_in_java(tmp_path_factory: pytest.TempPathFactory) -> Draw:
    """A function that draws all rows from a SavedModel into a folder, by TensorFlow Java."""
    if not shutil.which("mvn"):
        pytest.skip("mvn is missing, which builds the client in tests/java")
    build = tmp_path_factory.mktemp("java")
    goals = ["compile", "dependency:build-classpath"]
    subprocess.run(
        ["mvn", "--quiet", "--batch-mode", f"-Dbuild.folder={build}", *goals], cwd=JAVA, check=True
    )
    classpath = f"{build / 'classes'}:{(build / 'classpath').read_text().strip()}"
    rows = [f"{seed}:{digit}" for seed, digit in zip(SEEDS, DIGITS, strict=True)]

    return lambda model, images: run(
        "java", "-cp", classpath, "DrawDigits", str(model), str(images), *rows
    )


def write_rows(folder: Path) -> Path:
    path = folder / "rows.npz"
    np.savez(path, seed=SEEDS, digit=DIGITS)
    return path


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=300, env=environment
    )


def draw_in_python(model: Path, folder: Path) -> list[bytes]:
    images = folder / "python.npy"
    drawing = run(sys.executable, "-c", PYTHON, str(model), str(write_rows(folder)), str(images))
    assert drawing.returncode == 0, drawing.stderr
    return np.load(images, allow_pickle=True).tolist()


def draw_by_cli(model: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `saved_model_cli run`, which writes `image_bytes.npy` into the folder."""
    path = write_rows(folder)
    inputs = ";".join(f"{name}={path}[{name}]" for name in ("seed", "digit"))
    cli = str(Path(sys.executable).with_name("saved_model_cli"))
    signature = ["--tag_set", "serve", "--signature_def", "serving_default"]
    rows = ["--inputs", inputs, "--outdir", str(folder)]
    return run(cli, "run", "--dir", str(model), *signature, *rows)


def test_saved_model_cli_draws_the_same_bytes(pushed: Path, tmp_path: Path) -> None:
    drawing = draw_by_cli(pushed, tmp_path)
    assert drawing.returncode == 0, drawing.stderr
    drawn = np.load(tmp_path / "image_bytes.npy", allow_pickle=True)
    assert drawn.tolist() == draw_in_python(pushed, tmp_path)


def test_java_draws_the_same_bytes(pushed: Path, tmp_path: Path, draw_in_java: Draw) -> None:
    drawing = draw_in_java(pushed, tmp_path)
    assert drawing.returncode == 0, drawing.stderr
    drawn = [(tmp_path / f"{row}.png").read_bytes() for row in range(len(SEEDS))]
    assert drawn == draw_in_python(pushed, tmp_path)
    seeded = "{digit=DT_INT64 [-1], seed=DT_INT64 [-1]}"
    assert sorted(re.findall(r"^(?:from|gen|serv).*$", drawing.stdout, re.MULTILINE)) == [
        "from_latent {digit=DT_INT64 [-1], latent=DT_FLOAT [-1, 6]} -> "
        "{digit=DT_INT64 [-1], image=DT_FLOAT [-1, 28, 28, 1]}",
        f"generate_pixels {seeded} -> {{digit=DT_INT64 [-1], image=DT_UINT8 [-1, 28, 28, 1]}}",
        f"serving_default {seeded} -> {{digit=DT_INT64 [-1], image_bytes=DT_STRING [-1]}}",
    ]


def test_both_fail_on_an_export_with_two_copies_of_each_variable(
    old: Path, tmp_path: Path, draw_in_java: Draw
) -> None:
    assert len(draw_in_python(old, tmp_path)) == len(SEEDS)
    for drawing in (draw_in_java(old, tmp_path), draw_by_cli(old, tmp_path)):
        assert drawing.returncode != 0
        assert "Could not find variable" in drawing.stderr
