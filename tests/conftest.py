"""Fixtures that several test files use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder with MNIST's four files, where this machine has one."""
    named = os.environ.get("MNIST_DATA_DIR")
    if not named:
        pytest.skip("MNIST_DATA_DIR names no folder with MNIST's files")
    return Path(named)
