"""The faults of `fault_matrix.py`: how each is made and removed, and exit statuses it may cause.

A fault is made in a cell: in its folders, or in how its command is called.
"""

import fcntl
import os
import shutil
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Any

from faults import DISK, bring_span, fill, remount

COMMANDS = ("run", "retrain", "serve", "rollback", "gc")
RUNS = ("run", "retrain")
_HELD_SECONDS = 5.0
_Make = Callable[[Any], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
      make: makes it in a cell, and removes it at the end of the block.
      statuses: exit statuses by command (negative: of a signal); of the others, 0.
      commands: those that it may concern.
    """

    make: _Make
    statuses: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    commands: tuple[str, ...] = COMMANDS

    def allowed(self, command: str) -> tuple[int, ...]:
        return self.statuses.get(command, (0,))


def maker(function: Callable[..., Iterator[None]]) -> Callable[..., _Make]:
    """Lets a function of a cell and more be called with what is more, and then with the cell."""
    made = contextmanager(function)
    return lambda *arguments, **named: lambda cell: made(cell, *arguments, **named)


def places(cell: Any, names: tuple[str, ...]) -> list[Path]:
    newest = f"{{base}}/{cell.newest.name}"
    full = (name.replace("{newest}", newest) for name in names)
    return [cell.disk / name.replace("{base}", "out/serving/mnist_gan") for name in full]


@maker
def variables(cell: Any, **named: str | None) -> Iterator[None]:
    """Variables of the environment; None removes one."""
    cell.environment.update(named)
    cell.environment = {name: text for name, text in cell.environment.items() if text is not None}
    yield


@maker
def shell(cell: Any, setup: str = "", redirection: str = "") -> Iterator[None]:
    cell.setup, cell.redirection = setup, redirection
    yield


@maker
def keras_file(cell: Any) -> Iterator[None]:
    folder = cell.disk / "home" / ".keras"
    folder.mkdir(parents=True)
    text = '{"floatx": "float16", "image_data_format": "channels_first"}'
    (folder / "keras.json").write_text(text)
    cell.environment["HOME"] = str(folder.parent)
    yield


@maker
def written(cell: Any, *names: str, content: bytes = b"x") -> Iterator[None]:
    """Files made or written over; at the end put back, where no command has written to them."""
    paths = places(cell, names)
    before = [path.read_bytes() if path.is_file() else None for path in paths]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    yield
    for path, old in zip(paths, before, strict=True):
        if path.is_file() and path.read_bytes() == content:
            path.unlink() if old is None else path.write_bytes(old)


@maker
def linked(cell: Any, name: str, target: str) -> Iterator[None]:
    [path, end] = places(cell, (name, target))
    path.symlink_to(end)
    yield
    path.unlink(missing_ok=True)


@maker
def folder(cell: Any, name: str) -> Iterator[None]:
    [path] = places(cell, (name,))
    path.mkdir()
    (path / "saved_model.pb").touch()
    yield
    shutil.rmtree(path)


@maker
def lost(cell: Any, name: str) -> Iterator[None]:
    """A folder that is gone; what was in it comes back beside what is there by then."""
    [path] = places(cell, (name,))
    away = cell.disk / "away"
    path.rename(away)
    yield
    if path.parent.is_dir():
        path.mkdir(exist_ok=True)
        for each in away.iterdir():
            if not (path / each.name).exists():
                each.rename(path / each.name)
    shutil.rmtree(away)


@maker
def half(cell: Any, name: str) -> Iterator[None]:
    """A file that was cut off."""
    [path] = places(cell, (name,))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    yield
    if path.parent.is_dir():
        path.write_bytes(content)


@maker
def database(cell: Any, damage: Callable[[bytes], bytes | None]) -> Iterator[None]:
    """ML Metadata with other bytes, or gone; it comes back where no command made another."""
    path = cell.out / "metadata.sqlite"
    good = path.read_bytes()
    content = damage(good)
    path.unlink() if content is None else path.write_bytes(content)
    yield
    if (path.read_bytes() if path.exists() else None) == content:
        path.write_bytes(good)
        return
    cell.keeps_runs = False
    aside = [each.read_bytes() for each in cell.out.glob("set-aside/*/metadata.sqlite")]
    if content and content not in aside:
        cell.problems.append("the damaged database is gone")
    if not list(cell.out.glob("set-aside/*/artifacts/Trainer/model/*")):
        cell.problems.append("the artifacts are gone")


@maker
def database_held(cell: Any) -> Iterator[None]:
    with closing(sqlite3.connect(cell.out / "metadata.sqlite", check_same_thread=False)) as held:
        held.execute("BEGIN EXCLUSIVE")
        timer = Timer(_HELD_SECONDS, held.rollback)
        timer.start()
        yield
        timer.join()


@maker
def hot_journal(cell: Any) -> Iterator[None]:
    """A process killed while it writes; with a cache of a page SQLite does so at once."""
    child = os.fork()
    if child == 0:
        connection = sqlite3.connect(cell.out / "metadata.sqlite", isolation_level=None)
        for statement in (
            *("PRAGMA cache_size = 1", "BEGIN", "UPDATE Artifact SET uri = 'never written'"),
            "CREATE TABLE half AS SELECT randomblob(100000)",
        ):
            connection.execute(statement)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    if not (cell.out / "metadata.sqlite-journal").stat().st_size:
        raise AssertionError("no journal")
    yield


@maker
def locked(cell: Any, name: str, seconds: float) -> Iterator[None]:
    """A lock that another process holds."""
    [path] = places(cell, (name,))
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        timer = Timer(seconds, file.close)
        timer.start()
        yield
        timer.cancel()


@maker
def full(cell: Any) -> Iterator[None]:
    fill(cell.disk, 0)
    yield
    remount(cell.disk, DISK)


@maker
def read_only(cell: Any) -> Iterator[None]:
    remount(cell.disk, "ro")
    yield
    remount(cell.disk, f"rw,{DISK}")


@maker
def signaled(cell: Any, number: signal.Signals) -> Iterator[None]:
    """A signal in the middle of the work; there is a new span, so that there is some."""
    bring_span(cell.data, 4)
    cell.signal = number
    yield


@maker
def half_span(cell: Any) -> Iterator[None]:
    """A span that is being copied."""
    new = cell.data / "span-4"
    new.mkdir()
    source = cell.data / "span-3" / "train-images-idx3-ubyte"
    (new / source.name).write_bytes(source.read_bytes()[:10_000])
    yield


@maker
def cluttered_span(cell: Any) -> Iterator[None]:
    """A new span among files of others."""
    bring_span(cell.data, 4)
    for place in (cell.data, cell.data / "span-4"):
        for name in (".DS_Store", "._span-4", "Thumbs.db", "NOTES.txt"):
            (place / name).write_bytes(b"x")
        (place / "loop").symlink_to("loop")
    yield


@maker
def silent_webhook(cell: Any) -> Iterator[None]:
    """A server that takes connections and says nothing; there is a new span to tell it of."""
    bring_span(cell.data, 4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        cell.environment["RETRAIN_WEBHOOK_URL"] = address
        yield


def runs_in(out: Path) -> set[str]:
    """The ids of the runs that ML Metadata knows."""
    with closing(sqlite3.connect(out / "metadata.sqlite")) as connection:
        query = "SELECT Context.name FROM Context JOIN Type ON Context.type_id = Type.id"
        found = connection.execute(f"{query} WHERE Type.name = 'pipeline_run'")
        return {name for (name,) in found}


_REFUSED = {"run": (2,), "retrain": (2,)}
_SERVED = "{newest}/saved_model.pb"
FAULTS = {
    "no fault": Fault(shell()),
    # The environment.
    "service links of Kubernetes": Fault(
        variables(MNIST_GAN_SERVING_PORT="tcp://10.96.14.7:8501", MNIST_GAN_PORT="tcp://10.0.0.1")
    ),
    "proxies that do not exist": Fault(
        variables(http_proxy="http://127.0.0.1:9", HTTPS_PROXY="foo://x")
    ),
    "SOCKS proxy": Fault(variables(ALL_PROXY="socks5://127.0.0.1:9")),
    "`SSL_CERT_FILE` absent": Fault(variables(SSL_CERT_FILE="/no/such.pem")),
    "locale ISO-8859-1": Fault(variables(LC_ALL="de_DE.ISO-8859-1", PYTHONUTF8="0")),
    "locale C": Fault(variables(LC_ALL="C", PYTHONUTF8="0")),
    "ASCII output": Fault(variables(PYTHONIOENCODING="ascii")),
    "hostile `keras.json`": Fault(keras_file()),
    "`KERAS_BACKEND=torch`": Fault(variables(KERAS_BACKEND="torch")),
    "umask 077": Fault(shell("umask 077")),
    "`TZ` nonsense": Fault(variables(TZ="No/Such_Place")),
    "`HOME` absent": Fault(variables(HOME="/no/such")),
    "`HOME` not set": Fault(variables(HOME=None)),
    "`TMPDIR` absent": Fault(variables(TMPDIR="/no/such")),
    "stdout closed": Fault(shell(redirection=">&-")),
    "stdout full": Fault(shell(redirection="> /dev/full")),
    "stdout without a reader": Fault(shell(redirection="> >(true)")),
    "stderr closed": Fault(shell(redirection="2>&-")),
    "no standard streams": Fault(shell(redirection="<&- >&- 2>&-")),
    "working directory removed": Fault(shell('cd "$(mktemp -d)"; rmdir "$PWD"')),
    # Files of others.
    "`.DS_Store`, `Thumbs.db`": Fault(written("{newest}/.DS_Store", "{newest}/Thumbs.db")),
    "`NOTES.txt` in a version": Fault(written("{newest}/NOTES.txt")),
    "`._x`, `.nfs0`": Fault(written("{newest}/._x", "{newest}/.nfs0", "{base}/.nfs0")),
    "`lost+found`": Fault(written("out/lost+found/x", "{base}/lost+found/x")),
    # Names.
    "looping link named by digits": Fault(linked("{base}/9000000000", "{base}/9000000000")),
    "link to a version, named by digits": Fault(linked("{base}/9000000000", "{newest}")),
    "file named by digits": Fault(written("{base}/9000000000")),
    "folder named by 20 digits": Fault(folder("{base}/99999999999999999999")),
    "folder named by Arabic digits": Fault(folder("{base}/٣٣٣")),
    "file `.incoming-x`": Fault(written("{base}/.incoming-x")),
    "link `.damaged-1`": Fault(linked("{base}/.damaged-1", "{newest}")),
    # Records.
    "`push.json` is `[]`": Fault(written("{newest}/assets.extra/push.json", content=b"[]")),
    "`push.json` is `null`": Fault(written("{newest}/assets.extra/push.json", content=b"null")),
    "`push.json` empty": Fault(written("{newest}/assets.extra/push.json", content=b"")),
    "`.history.jsonl` is `5`": Fault(written("{base}/.history.jsonl", content=b"5\n")),
    "`model_card.json` 100,000 deep": Fault(
        written("{newest}/assets.extra/model_card.json", content=b'{"data":' + b"[" * 100_000)
    ),
    "`passes.jsonl` is `[]`": Fault(written("out/passes.jsonl", content=b"[]\n\xff\n{}\n")),
    "`quarantine.json` is `[]`": Fault(
        written("out/serving/quarantine.json", content=b"[]"), _REFUSED
    ),
    # What runs made.
    "`saved_model.pb` cut off": Fault(half(_SERVED)),
    "variables gone": Fault(lost("{newest}/variables")),
    "served version deleted": Fault(lost("{newest}")),
    "all versions deleted": Fault(lost("{base}"), {"serve": (2,), "rollback": (2,)}),
    "database garbage": Fault(database(lambda good: os.urandom(9_999)), {"gc": (2,)}),
    "database cut off": Fault(database(lambda good: good[: len(good) // 2]), {"gc": (2,)}),
    "database empty": Fault(database(lambda good: b"")),
    "database deleted": Fault(database(lambda good: None)),
    "database locked for 5 s": Fault(database_held()),
    "hot journal of the database": Fault(hot_journal()),
    "disk full": Fault(full(), {"run": (1, 2), "rollback": (2,)}),
    "read-only output folder": Fault(read_only(), {"run": (2,), "rollback": (2,), "gc": (2,)}),
    "output folder in use": Fault(locked("out/.lock", 900), {"run": (2,), "gc": (2,)}),
    "push in progress for 5 s": Fault(locked("{base}/.push.lock", _HELD_SECONDS)),
    "SIGTERM": Fault(
        signaled(signal.SIGTERM),
        {"run": (143,), "retrain": (143,), "rollback": (0, 143), "gc": (0, 143)},
    ),
    "SIGHUP": Fault(
        signaled(signal.SIGHUP),
        {"run": (143,), "retrain": (143,), "rollback": (0, 143), "gc": (0, 143)},
    ),
    "SIGKILL": Fault(
        signaled(signal.SIGKILL),
        {"run": (-9,), "retrain": (-9,), "serve": (-9,), "rollback": (0, -9), "gc": (0, -9)},
    ),
    # Data and what is beside a run.
    "data folder gone": Fault(lost("data"), _REFUSED, RUNS),
    "half-written span": Fault(half_span(), commands=RUNS),
    "files of others in a new span": Fault(cluttered_span(), commands=RUNS),
    "webhook that never answers": Fault(silent_webhook(), commands=("retrain",)),
    "metrics file not writable": Fault(
        variables(MNIST_GAN_METRICS__TEXTFILE="/proc/no/a.prom"), commands=RUNS
    ),
}
