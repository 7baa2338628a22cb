"""A power cut: what a node has recorded is on the disk."""

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mnist.records import load_split
from pipeline.local.paths import OutputPaths

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from test_gc_and_cache import ingest
from test_power_cut import cut_power
from pipeline.local.paths import OutputPaths
disk, old, new = map(Path, sys.argv[1:])
paths = OutputPaths(disk)
"""
GOING_DOWN, WITHOUT_LOG = 0x8004587D, struct.pack("I", 2)  # linux/fs.h


def cut_power(folder: Path) -> None:
    """Ends its file system: nothing that is not yet on the device reaches it, not even the log."""
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.ioctl(descriptor, GOING_DOWN, WITHOUT_LOG)
    os.close(descriptor)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 file system on a loop device."""
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_the_cache_answers_with_whole_files(disk, tmp_path, digits, write_span):
    old, new = tmp_path / "old", tmp_path / "new"
    write_span(old, *digits, train=700)
    write_span(new, *digits, train=600)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}

    def run(program: str) -> None:  # this process would hold the disk
        command = [sys.executable, "-c", PROGRAM + program, str(disk), str(old), str(new)]
        subprocess.run(command, env=environment, check=True)

    # SQLite may lose the last that is recorded, and then the cache does not answer with it.
    run("ingest(paths, old); ingest(paths, new); cut_power(disk)")
    subprocess.run(["umount", str(disk)], check=True)
    subprocess.run(["mount", "-o", "loop", str(tmp_path / "image"), str(disk)], check=True)
    run("assert ingest(paths, old)")
    artifact = OutputPaths(disk).artifacts / "MnistExampleGen" / "examples" / "1"
    images, _ = load_split([f"{artifact}/Split-train/*"])
    assert len(images) == 700
