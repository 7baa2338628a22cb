"""A pass in hostile surroundings, and a run beside a reader of its database."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from database_holders import holding

ROOT = Path(__file__).parents[2]
OPTIONS = ["--preset", "smoke", "--set", "train.max_steps=20", "--set", "data.source=bundled"]
# A file system without flock, whose folders cannot be synced.
LIBRARY = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/stat.h>
int flock(int fd, int how) { errno = ENOSYS; return -1; }
int fsync(int fd) {
  struct stat status;
  if (fstat(fd, &status) == 0 && S_ISDIR(status.st_mode)) { errno = EINVAL; return -1; }
  return ((int (*)(int)) dlsym(RTLD_NEXT, "fsync"))(fd);
}
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "local_runner.py"), *arguments, *OPTIONS]


@pytest.mark.slow
def test_a_pass_among_hostile_surroundings(tmp_path: Path) -> None:
    (tmp_path / "library.c").write_text(LIBRARY)
    library = tmp_path / "library.so"
    compiler = ["cc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "library.c"), "-ldl"]
    subprocess.run(compiler, check=True)
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(
        json.dumps({"floatx": "float16", "image_data_format": "channels_first"})
    )
    (tmp_path / "tmp").mkdir()
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path / "tmp"),
        "LD_PRELOAD": str(library),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "ascii",
        "KERAS_BACKEND": "torch",
        "KERAS_MAX_EPOCHS": "1",
        "http_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "foo://x",
        "MNIST_GAN_SERVING_PORT": "tcp://10.96.14.7:8501",
    }
    environment.pop("MNIST_DATA_DIR", None)
    # Two workers, which talk to the node by gRPC over loopback.
    workers = "beam.pipeline_args=[--direct_num_workers=2, --direct_running_mode=multi_processing]"
    passed = command("retrain", "--output-dir=~/out", "--set", workers)
    quoted = " ".join(f"'{part}'" for part in passed)
    shell = ["bash", "-c", f"umask 077; exec {quoted} > /dev/full 2> {tmp_path}/said"]
    ended = subprocess.run(shell, cwd=tmp_path, env=environment, timeout=600, check=False)
    said = (tmp_path / "said").read_text()
    assert ended.returncode == 0, said
    assert "Traceback" not in said
    [line] = (tmp_path / "out" / "passes.jsonl").read_text().splitlines()
    assert json.loads(line)["outcome"] == "pushed"
    base = tmp_path / "out" / "serving" / "mnist_gan"
    [version] = [path for path in base.iterdir() if path.name.isdigit()]
    for path in (base.parent, base, version, *version.rglob("*")):
        expected = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
def test_a_reader_at_the_end_of_the_training_costs_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("run", "-v", "--output-dir", str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = ""
    while "7/10 Trainer ..." not in said:
        said += process.stdout.readline()
        assert process.poll() is None, said
    with holding(tmp_path / "metadata.sqlite", "BEGIN", seconds=30):
        said += process.communicate(timeout=600)[0]
    assert process.returncode == 0, said
    assert list((tmp_path / "checkpoints").glob("*")) == []
    assert len(list((tmp_path / "serving" / "mnist_gan").glob("[0-9]*"))) == 1
