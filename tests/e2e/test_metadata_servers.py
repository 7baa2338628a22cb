"""ML Metadata on MariaDB (or MySQL) and PostgreSQL, each run for real on loopback."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.local import history
from pipeline.local.metadata import Database, DatabaseError
from pipeline.local.paths import OutputPaths
from pipeline.settings.resolution import resolve

REPOSITORY = Path(__file__).parents[2]
PASSWORD = "p@ss:w/ord%"


class Server:
    """A database server of our own, with its files in a folder of its own."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        {"mysql": self._make_mysql, "postgresql": self._make_postgres}[kind]()

    @property
    def url(self) -> str:
        return f"{self.kind}://gan@127.0.0.1:{self.port}/mnist"

    def _make_mysql(self) -> None:
        here, port = self.folder, str(self.port)
        self._do(
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={here}/data",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
        )
        self.command = [
            *("mariadbd", "--no-defaults", f"--datadir={here}/data", "--bind-address=127.0.0.1"),
            *("--port", port, f"--socket={here}/socket", f"--pid-file={here}/pid"),
        ]
        self.start()
        self._do(
            "mariadb",
            "--no-defaults",
            "-S",
            f"{here}/socket",
            "-u",
            "root",
            "-e",
            "CREATE DATABASE mnist; CREATE USER gan@'%' IDENTIFIED BY "
            f"'{PASSWORD}'; GRANT ALL ON mnist.* TO gan@'%'; DROP USER IF EXISTS ''@localhost",
        )

    def _make_postgres(self) -> None:
        here, programs = self.folder, max(Path("/usr/lib/postgresql").glob("*/bin"))
        (here / "password").write_text(PASSWORD)
        (here / "password").chmod(0o644)
        self._do(
            f"{programs}/initdb",
            "-D",
            f"{here}/data",
            "-U",
            "gan",
            "-E",
            "UTF8",
            f"--pwfile={here}/password",
            "--auth=scram-sha-256",
        )
        self.command = [
            *(f"{programs}/postgres", "-D", f"{here}/data", "-h", "127.0.0.1"),
            *("-p", str(self.port), "-k", str(here)),
        ]
        self.start()
        self._do(
            "psql",
            f"postgresql://gan@127.0.0.1:{self.port}/postgres",
            "-c",
            "CREATE DATABASE mnist",
            env={"PGPASSWORD": PASSWORD},
        )

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*unprivileged(), *self.command], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                time.sleep(1)
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.1)
        raise AssertionError("the server does not answer")

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM if self.kind == "mysql" else signal.SIGINT)
        self.process.wait(60)

    def _do(self, *command: str, env: dict[str, str] | None = None) -> None:
        subprocess.run(
            [*unprivileged(), *command],
            check=True,
            capture_output=True,
            env=os.environ | (env or {}),
        )


def unprivileged() -> list[str]:
    """What comes before a command, so that root's tests start no server as root."""
    if os.getuid():
        return []
    nobody = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]


@pytest.fixture(params=["mysql", "postgresql"])
def server(request, monkeypatch) -> Iterator[Server]:
    there = {
        "mysql": shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin"),
        "postgresql": any(Path("/usr/lib/postgresql").glob("*/bin/postgres")),
    }
    if not there[request.param]:
        pytest.skip(f"there is no {request.param} server on this machine")
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
    monkeypatch.setenv("MNIST_GAN_METADATA_PASSWORD", PASSWORD)
    # Not in pytest's folder, which other users may not enter.
    with tempfile.TemporaryDirectory(prefix="store-") as name:
        if not os.getuid():
            nobody = pwd.getpwnam("nobody")
            os.chown(name, nobody.pw_uid, nobody.pw_gid)
        made = Server(request.param, Path(name))
        yield made
        if made.process and made.process.poll() is None:
            made.stop()


def test_a_lost_connection_is_made_again_and_given_up_with_a_message(server, tmp_path):
    database = Database(tmp_path / "no file", server.url, retry_seconds=30.0)
    store = database.open()
    kind = store.put_artifact_type(mlmd.ArtifactType(name="Thing"))
    server.stop()
    server.start()
    [number] = store.put_artifacts([mlmd.Artifact(type_id=kind, uri="/there")])
    assert [each.id for each in store.get_artifacts()] == [number]
    server.stop()
    with pytest.raises(DatabaseError, match=f"mnist at 127.0.0.1:{server.port}") as caught:
        Database(tmp_path / "no file", server.url, retry_seconds=1.0).open()
    assert PASSWORD not in str(caught.value)


def start_run(server: Server, output: Path, data: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "local_runner.py", "run", "--preset", "smoke", *more]
    command += ["--data-dir", str(data), "--output-dir", str(output)]
    command += ["--set", f"metadata.url={server.url}", "--set", "train.checkpoint_seconds=1"]
    with open(output.with_suffix(".log"), "ab") as shown:
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=shown, stderr=shown)


def wait_for_training(child: subprocess.Popen[bytes], output: Path) -> None:
    while not any((output / "checkpoints").glob("*/*/manifest.json")):
        assert child.poll() is None, output.with_suffix(".log").read_text()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_run_a_kill_a_restarted_server_and_one_that_stays_away(server, tmp_path, span_dir):
    output = tmp_path / "out"
    shown = output.with_suffix(".log")
    killed = start_run(server, output, span_dir)
    wait_for_training(killed, output)
    killed.kill()
    assert killed.wait(60) == -signal.SIGKILL

    resumed = start_run(server, output, span_dir)
    wait_for_training(resumed, output)
    server.stop()
    time.sleep(3)
    server.start()
    assert resumed.wait(900) == 0, shown.read_text()

    other_seed = ("--set", "train.seed=7")
    left_alone = start_run(server, output, span_dir, *other_seed)
    wait_for_training(left_alone, output)
    server.stop()
    length = len(shown.read_bytes())
    assert left_alone.wait(900) == 1, shown.read_text()
    printed = shown.read_bytes()[length:].decode()
    assert f"mnist at 127.0.0.1:{server.port}" in printed
    assert "Traceback" not in printed
    server.start()
    assert start_run(server, output, span_dir, *other_seed).wait(900) in (0, 3), shown.read_text()

    options = {"output_dir": (str(output), "t"), "metadata.url": (server.url, "t")}
    paths = OutputPaths.of(resolve(options=options, environ={}).settings)
    last, lost, second, first = history.read_runs(paths.database, 10)
    assert first.nodes["Trainer"] == "running"
    assert second.nodes["DigitClassifier"] == "cached"
    assert second.nodes["Trainer"] == "complete"
    assert second.pushed_version
    assert lost.pushed_version is None
    assert last.nodes["Trainer"] == "complete"
    assert not paths.database.file.exists()
    logs = "".join(path.read_text() for path in paths.logs.glob("*.log"))
    assert PASSWORD not in logs + shown.read_text()
    assert "_metadata_source.cc" not in shown.read_text()
