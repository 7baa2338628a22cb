"""Where data are looked for, against a real HTTP server that gives, breaks and withholds them."""

import contextlib
import gzip
import hashlib
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist import idx, spans
from mnist.digits import Fingerprint, scan
from mnist.source import MNIST_FILES, DataSource, DataSourceError, Source, default_cache_dir, locate

REPOSITORY = Path(__file__).parents[3]
CONTENTS = {
    "train-images-idx3-ubyte": struct.pack(">4B3I", 0, 0, 8, 3, 40, 28, 28)
    + np.random.RandomState(0).bytes(40 * 784),
    "train-labels-idx1-ubyte": struct.pack(">4BI", 0, 0, 8, 1, 40) + bytes(range(10)) * 4,
    "t10k-images-idx3-ubyte": struct.pack(">4B3I", 0, 0, 8, 3, 10, 28, 28) + bytes(10 * 784),
    "t10k-labels-idx1-ubyte": struct.pack(">4BI", 0, 0, 8, 1, 10) + bytes(range(10)),
}
PACKED = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in CONTENTS.items()}
FILES = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
IMAGES = "train-images-idx3-ubyte.gz"

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
    """Ends early without a Content-Length."""
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


@contextlib.contextmanager
def serve(bodies: dict[str, bytes] = PACKED) -> Iterator[Mirror]:
    with Mirror(bodies) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serve() as server:
        yield server


@pytest.fixture
def second_mirror() -> Iterator[Mirror]:
    with serve() as server:
        yield server


@pytest.fixture
def closed_url() -> str:
    """An address at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


@pytest.fixture(scope="module")
def cache_with_bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the bundled digits, after an earlier process was killed half-way."""
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
    files: Mapping[str, str] = FILES,
    seconds: float = 60.0,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> DataSource:
    return locate(
        source=source,
        data_dir=data_dir,
        cache_dir=cache_dir,
        mirrors=mirrors,
        download_seconds=seconds,
        progress=progress,
        files=files,
    )


def stored(cache_dir: Path) -> dict[str, bytes]:
    folder = cache_dir / "mnist"
    return {path.name: path.read_bytes() for path in folder.glob("*")} if folder.is_dir() else {}


def test_a_download_stores_what_it_received_and_is_not_repeated(
    tmp_path: Path, mirror: Mirror
) -> None:
    seen: dict[str, list[int]] = {}
    found = find(
        tmp_path, mirror.url, progress=lambda name, *n: seen.setdefault(name, []).extend(n)
    )
    assert (found.origin, found.directory) == ("download", str(tmp_path / "mnist"))
    assert mirror.url in found.description
    assert stored(tmp_path) == PACKED
    assert {name: numbers[-2:] for name, numbers in seen.items()} == {
        name: [len(body)] * 2 for name, body in PACKED.items()
    }
    files = spans.resolve_span(found.directory, None)
    pair, *_ = scan(files.paths)
    assert len(pair) == 40
    sources: tuple[Source, ...] = ("auto", "cache", "download")
    for source in sources:
        found = find(tmp_path, mirror.url, source=source)
        assert (found.origin, found.directory) == ("cache", str(tmp_path / "mnist"))
    assert mirror.asked == list(PACKED)


def test_the_real_files(tmp_path: Path, mnist_dir: Path) -> None:
    paths = [mnist_dir / f"{name}.gz" for name in MNIST_FILES]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"{mnist_dir} does not hold MNIST as .gz files")
    real = {path.name: path.read_bytes() for path in paths}
    with serve(real) as server:
        find(tmp_path, server.url, files=MNIST_FILES)
    assert stored(tmp_path) == real


def test_only_what_the_cache_lacks_is_fetched(tmp_path: Path, mirror: Mirror) -> None:
    find(tmp_path, mirror.url)
    (tmp_path / "mnist" / IMAGES).unlink()
    with pytest.raises(DataSourceError) as caught:
        find(tmp_path, mirror.url, source="cache")
    assert caught.value.where == str(tmp_path / "mnist")
    mirror.asked.clear()
    assert find(tmp_path, mirror.url).origin == "download"
    assert mirror.asked == [IMAGES]
    assert stored(tmp_path) == PACKED


@pytest.mark.parametrize(
    "answers",
    [[status(503), status(429), give], [truncate, truncate_unseen, give], [move, give]],
    ids=["busy", "truncated", "moved"],
)
def test_transient_failures_are_retried(
    tmp_path: Path, mirror: Mirror, answers: list[Answer]
) -> None:
    mirror.script[IMAGES] = list(answers)
    assert find(tmp_path, mirror.url).origin == "download"
    assert stored(tmp_path) == PACKED
    assert mirror.asked.count(IMAGES) == len(answers)


@pytest.mark.parametrize(
    ("answer", "attempts"),
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
        (stall, None),
        (drip, None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_bad_mirror_is_left_for_the_next_one(
    tmp_path: Path, mirror: Mirror, second_mirror: Mirror, answer: Answer, attempts: int | None
) -> None:
    mirror.script[IMAGES] = [answer]
    seconds = 60.0 if attempts else 3.0
    with pytest.raises(DataSourceError) as caught:
        find(tmp_path, mirror.url, source="download", seconds=seconds / 2)
    assert f"{mirror.url}{IMAGES}: " in caught.value.what
    assert stored(tmp_path) == {}
    assert attempts in (None, len(mirror.asked))

    found = find(tmp_path, mirror.url, second_mirror.url, source="download", seconds=seconds)
    assert stored(tmp_path) == PACKED
    assert second_mirror.url in found.description
    assert second_mirror.asked == list(PACKED)


def test_the_next_mirror_continues_where_one_fails(
    tmp_path: Path, mirror: Mirror, second_mirror: Mirror
) -> None:
    *before, last = PACKED
    mirror.script[last] = [status(404)]
    find(tmp_path, mirror.url, second_mirror.url)
    assert mirror.asked == [*before, last]
    assert second_mirror.asked == [last]
    assert stored(tmp_path) == PACKED


def test_every_mirror_has_a_reason_and_no_password_is_shown(
    tmp_path: Path, closed_url: str, mirror: Mirror
) -> None:
    mirror.script[IMAGES] = [status(404)]
    secret = mirror.url.replace("//", "//user:p@S3CRET@")
    with pytest.raises(DataSourceError) as caught:
        find(tmp_path, closed_url, secret, source="download")
    assert "S3CRET" not in str(caught.value)
    assert f"{closed_url}{IMAGES}: " in caught.value.what
    assert f"{IMAGES}: HTTP status 404 Not Found" in caught.value.what
    unreachable = (closed_url, "http://no-such-host.invalid/", "ftp://x/")
    with pytest.raises(DataSourceError) as caught:
        find(tmp_path, *unreachable, source="download")
    assert all(f"{url}: " in caught.value.what for url in unreachable)
    with pytest.raises(DataSourceError):
        find(tmp_path, source="download")


def test_a_proxy_of_the_environment_is_used(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", mirror.url)
    assert find(tmp_path, "http://behind-the-proxy.invalid/mnist/").origin == "download"
    assert stored(tmp_path) == PACKED


def test_offline_the_bundled_digits_are_used_within_seconds(
    cache_with_bundled: Path, closed_url: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        started = time.monotonic()
        found = find(cache_with_bundled, url, closed_url, "http://no-such-host.invalid/")
    assert time.monotonic() - started < 5
    assert (found.origin, found.directory) == ("bundled", str(cache_with_bundled / "bundled-5000"))


def test_if_all_mirrors_fail_the_bundled_digits_are_used(
    cache_with_bundled: Path, mirror: Mirror
) -> None:
    mirror.script[IMAGES] = [other_digits]
    assert find(cache_with_bundled, mirror.url).origin == "bundled"


def test_the_bundled_digits(cache_with_bundled: Path) -> None:
    files = spans.resolve_span(str(cache_with_bundled / "bundled-5000"), None)
    [pair] = scan(files.paths)
    found = Fingerprint()
    found.add(pair.keys, pair.labels)
    assert found.hexdigest() == (
        "bebbf8c611110103ee955feb2a5b2e2caec98f20285081c73c2777a3be09346a"
    ), "the same order everywhere"
    assert np.bincount(pair.labels).tolist() == [500] * 10
    assert min(len(set(part)) for part in np.split(pair.labels, 100)) > 5, "digits are mixed"


def test_the_bundled_digits_are_among_the_real_ones(
    cache_with_bundled: Path, mnist_dir: Path
) -> None:
    def read(folder: Path) -> Iterator[tuple[bytes, int]]:
        files = spans.resolve_span(str(folder), None)
        for image, label in zip(
            idx.read_images(files.train_images), idx.read_labels(files.train_labels), strict=True
        ):
            yield image.tobytes(), int(label)

    assert set(read(cache_with_bundled / "bundled-5000")) <= set(read(mnist_dir))


def test_a_data_folder_comes_first(tmp_path: Path, mirror: Mirror) -> None:
    find(tmp_path / "cache", mirror.url)
    folder = str(tmp_path / "cache" / "mnist")
    sources: tuple[Source, ...] = ("auto", "folder")
    for source in sources:
        found = find(tmp_path / "other", source=source, data_dir=folder)
        assert (found.origin, found.directory) == ("folder", folder)
    assert not (tmp_path / "other").exists()


def test_a_data_folder_without_data_is_an_error(tmp_path: Path, mirror: Mirror) -> None:
    sources: tuple[Source, ...] = ("auto", "folder")
    for source in sources:
        for folder in (tmp_path, tmp_path / "none"):
            with pytest.raises(spans.SpanError):
                find(tmp_path / "cache", mirror.url, source=source, data_dir=str(folder))
    with pytest.raises(DataSourceError) as caught:
        find(tmp_path, source="folder")
    assert "MNIST_DATA_DIR" in caught.value.fix
    assert mirror.asked == []


@pytest.mark.parametrize("source", ["auto", "download", "bundled"])
def test_a_cache_folder_that_cannot_be_made(tmp_path: Path, mirror: Mirror, source: Source) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataSourceError) as caught:
        find(tmp_path / "file" / "cache", mirror.url, source=source)
    assert caught.value.where == str(tmp_path / "file" / "cache")


def test_two_processes_download_once(tmp_path: Path, mirror: Mirror) -> None:
    mirror.script[IMAGES] = [give_slowly]
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from mnist.source import locate\n"
        "found = locate(source='auto', data_dir=None, cache_dir=Path(sys.argv[1]),\n"
        "    mirrors=[sys.argv[2]], progress=lambda *_: None,\n"
        "    files=json.loads(sys.argv[3]))\n"
        "print(found.origin)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), mirror.url, json.dumps(FILES)]
    running = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    origins = [process.communicate(timeout=60)[0].strip() for process in running]
    assert sorted(origins) == ["cache", "cache", "download"]
    assert mirror.asked == list(PACKED)


def test_importing_does_not_import_what_is_slow() -> None:
    script = (
        "import sys, mnist.source\n"
        "sys.exit(bool({'tensorflow', 'mlxtend', 'tfx', 'httpx', 'filelock'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True)


def test_the_cache_follows_the_users_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip("the variable is Linux's")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "mnist-gan-tfx"
