"""What a program inherits changes nothing, shown with real processes."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from read_only_root import run_read_only

from surroundings import use_each_core

ROOT = Path(__file__).parents[2]
CONFIG = [sys.executable, str(ROOT / "local_runner.py"), "config"]
# Says that it is ready, then waits; at its end it writes what it was given, and a check mark.
PROGRAM = """
import os, sys, tempfile, time
from surroundings import prepare
arguments = prepare()
open(sys.argv[0] + ".txt", "w").write(f"{arguments} {sys.argv[1:]} \u2713")
tempfile.mkdtemp()
print("\u2713", flush=True)
time.sleep(float(arguments[0]))
print("\u2713" * 100_000)
"""


def program(folder: Path) -> list[str]:
    path = folder / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    (folder / "tmp").mkdir()
    return [sys.executable, str(path)]


def environment(folder: Path, **changed: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp"), **changed}


@pytest.mark.parametrize(
    "redirection", ["", ">&-", "> /dev/full", "2>&- >&-", "<&- >&- 2>&-", "| true", "2>/dev/full"]
)
@pytest.mark.parametrize(
    "changed",
    [{}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}],
    ids=["utf-8", "ascii", "C"],
)
def test_output_that_cannot_be_written_changes_nothing(
    tmp_path: Path, redirection: str, changed: dict[str, str]
) -> None:
    quoted = shlex.join(program(tmp_path))
    command = f"set -o pipefail; {quoted} 0 -v --help {redirection}"
    subprocess.run(["bash", "-c", command], env=environment(tmp_path, **changed), check=True)
    found = (tmp_path / "program.py.txt").read_text(encoding="utf-8")
    assert found == "['0', '-v', '--help'] [] \u2713"
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_temporary_files(tmp_path: Path, number: signal.Signals) -> None:
    inherited = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    process = start(program(tmp_path), tmp_path)
    signal.signal(number, inherited)
    process.send_signal(number)
    assert process.wait(30) == 143
    assert list((tmp_path / "tmp").iterdir()) == []


def test_nohup_is_heeded(tmp_path: Path) -> None:
    process = start(["nohup", *program(tmp_path)], tmp_path, seconds=1.0)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert process.returncode == 0


def start(command: list[str], folder: Path, seconds: float = 60.0) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [*command, str(seconds)],
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


@pytest.mark.parametrize(
    ("redirection", "changed"),
    [
        ("> /dev/full", {}),
        ("| head -1", {}),
        (">&-", {"MNIST_GAN_SERVING_PORT": "tcp://10.96.14.7:8501", "TMPDIR": "/nowhere"}),
    ],
)
def test_a_command_ends_as_it_would(redirection: str, changed: dict[str, Any]) -> None:
    command = f"set -o pipefail; {shlex.join(CONFIG)} {redirection}"
    subprocess.run(["bash", "-c", command], env={**os.environ, **changed}, check=True)


def test_loopback_is_never_proxied(tmp_path: Path) -> None:
    code = "from surroundings import prepare; prepare(); import urllib.request as r; "
    code += "print(*(r.proxy_bypass(host) for host in ('localhost', '127.0.0.1', 'a.b', 'c.d')))"
    for name in ("no_proxy", "NO_PROXY"):
        given = environment(tmp_path, http_proxy="http://p:1", **{name: "a.b"})
        (tmp_path / "tmp").mkdir(exist_ok=True)
        command = [sys.executable, "-c", code]
        found = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
        assert [part != "False" and part != "0" for part in found.stdout.split()] == [
            *(True, True, True, False)
        ]


@pytest.mark.parametrize(
    "config", ['{"floatx": "float16"}', '{"image_data_format": "channels_first"}']
)
def test_keras_configuration_of_the_user_is_not_read(tmp_path: Path, config: str) -> None:
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(config)
    code = "import models.gan.settings, keras; "
    code += (
        "print(keras.backend.backend(), keras.config.floatx(), keras.config.image_data_format())"
    )
    given = environment(tmp_path, HOME=str(tmp_path), KERAS_BACKEND="torch")
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["tensorflow", "float32", "channels_last"]


def test_a_run_without_a_place_for_temporary_files_does_not_start(tmp_path: Path) -> None:
    options = ["--output-dir", "/mnt/out", "--set", "data.source=bundled"]
    command = shlex.join([sys.executable, "local_runner.py", "run", *options])
    ended = run_read_only(tmp_path, command, has_tmp=False)
    assert ended.returncode == 2, ended.stderr
    assert "TMPDIR" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cores", "given", "expected"),
    [
        (2, {}, ("1", "2")),
        (2, {"TF_NUM_INTRAOP_THREADS": "2"}, ("2", "2")),
        (1, {}, (None, None)),
        (4, {}, (None, None)),
    ],
)
def test_two_cores_compute_an_operation_each(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    given: dict[str, str],
    expected: tuple[str | None, str | None],
) -> None:
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is as before after the test
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    use_each_core()
    assert tuple(os.environ.get(name) for name in names) == expected
