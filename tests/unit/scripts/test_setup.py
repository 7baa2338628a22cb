"""Which stack, Python and uv the set-up takes, with stand-ins for what machines have."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


class Machine:
    """A PATH without any Python or uv, and a copy of the set-up."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "a project"
        self.path = folder / "bin"
        self.path.mkdir()
        tools = "sh dirname awk grep sed tail cat pwd mkdir chmod date rm cp"
        for name in tools.split():
            (self.path / name).symlink_to(shutil.which(name))
        (self.project / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts/setup.sh", self.project / "scripts")
        self.has("uv", "exit 0")

    def has(self, name: str, script: str) -> Path:
        program = self.path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    def has_glibc(self, version: str) -> None:
        self.has("getconf", f"echo glibc {version}")

    def has_python(self, version: str, *, headers: bool = True, name: str = "") -> Path:
        return self.has(
            name or f"python{version}",
            f'case "$2" in *Python.h*) exit {0 if headers else 1} ;; esac\necho {version}',
        )

    def has_uv_with(self, version: str) -> None:
        """A uv that brings this Python."""
        managed = self.has_python(version, name=f"managed{version}")
        self.has(
            "uv",
            f"""case "$*" in
            "python install {version}") exit 0 ;;
            "python find --python-preference only-managed {version}") echo {managed} ;;
            --version) exit 0 ;;
            *) exit 1 ;;
            esac""",
        )

    def set_up(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.project / "scripts/setup.sh", *arguments],
            env={"PATH": str(self.path), "HOME": str(self.path)} | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def set_up_on(self, device: str, folder: str) -> subprocess.CompletedProcess[str]:
        """Looks for a uv with another file system on a folder of the project."""
        place = self.project / folder
        place.mkdir(exist_ok=True)
        as_root = ["--user", "--map-root-user"] if os.geteuid() else []
        unshare = [shutil.which("unshare"), *as_root, "--mount"]
        if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
            pytest.skip("no mount namespaces here")
        mount = f"{shutil.which('mount')} {device} '{place}'"
        done = subprocess.run(
            [*unshare, "sh", "-ec", f"{mount}; exec '{self.project}/scripts/setup.sh' uv"],
            env={"PATH": str(self.path), "HOME": str(self.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (1, "")
        return done

    def takes(self, **variables: str) -> list[str]:
        done = self.set_up("python", **variables)
        assert done.returncode == 0, done.stderr
        return [Path(word).name for word in done.stdout.split()]

    def refuses(self, **variables: str) -> str:
        done = self.set_up("python", **variables)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("glibc", "pythons", "taken"),
    [
        ("2.41", ("3.13", "3.12", "3.10"), "today python3.13"),
        ("2.39", ("3.12", "3.10", "3.14"), "today python3.12"),
        ("2.41", ("3.11",), "today python3.11"),
        ("2.41", ("3.14", "3.10"), "py310 python3.10"),
        ("2.36", ("3.11", "3.10"), "py310 python3.10"),
        ("3.0", ("3.13", "3.10"), "today python3.13"),
    ],
)
def test_todays_stack_comes_first_where_it_can_run(machine, glibc, pythons, taken):
    machine.has_glibc(glibc)
    for version in pythons:
        machine.has_python(version)
    assert machine.takes() == taken.split()
    if "3.10" in pythons:
        assert machine.takes(STACK="py310") == ["py310", "python3.10"]


def test_another_c_library_is_not_a_new_glibc(machine):
    machine.has("getconf", "exit 1")
    machine.has_python("3.13")
    machine.has_python("3.10")
    assert machine.takes() == ["py310", "python3.10"]


def test_a_python_that_pyfarmhash_can_be_built_with_comes_first(machine):
    machine.has_glibc("2.36")
    machine.has_python("3.10", headers=False)
    assert machine.takes() == ["py310", "python3.10"]
    machine.has_uv_with("3.10")
    assert machine.takes() == ["py310", "managed3.10"]
    machine.has_python("3.10")
    assert machine.takes() == ["py310", "python3.10"]


@pytest.mark.parametrize(("glibc", "version"), [("2.41", "3.13"), ("2.36", "3.10")])
def test_uv_brings_a_python_where_there_is_none(machine, glibc, version):
    machine.has_glibc(glibc)
    machine.has_python("3.9")
    refusal = machine.refuses()
    assert f"no Python {'3.13, 3.12, 3.11 or ' if version == '3.13' else ''}3.10 here" in refusal
    assert f"pyenv install {version}" in refusal
    machine.has_uv_with(version)
    assert machine.takes()[1] == f"managed{version}"


def test_a_given_python_decides(machine):
    machine.has_glibc("2.41")
    machine.has_python("3.13")
    old = str(machine.has_python("3.10"))
    assert machine.takes(PYTHON=old) == ["py310", "python3.10"]
    assert "STACK=today" in machine.refuses(PYTHON=old, STACK="today")
    assert "3.10 to 3.13" in machine.refuses(PYTHON=str(machine.has_python("3.14")))
    machine.has_glibc("2.36")
    assert "glibc 2.39" in machine.refuses(PYTHON="python3.13")


def test_wishes_that_cannot_be_met(machine):
    machine.has_glibc("2.36")
    machine.has_python("3.13")
    assert "glibc 2.36" in machine.refuses(STACK="today")
    assert "py310" in machine.refuses(STACK="py311")


def test_the_stack_of_an_environment_stays(machine):
    machine.has_glibc("2.41")
    machine.has_python("3.13")
    machine.has_python("3.10")
    stamp = machine.project / ".venv/.stamp"
    stamp.parent.mkdir()
    stamp.write_text("/a project\n0123  requirements/py310/base.txt\n")
    assert machine.takes() == ["py310", "python3.10"]
    assert machine.takes(STACK="today") == ["today", "python3.13"]


def test_uv_is_installed_where_there_is_none(machine):
    machine.has("uv", "exit 1")  # as a shim of pyenv
    assert "no uv" in machine.set_up("uv").stderr
    own = machine.project / ".tools/bin"
    pip = machine.has(
        "pip",
        'echo "$@" >arguments; printf "#!/bin/sh\\n" >.tools/bin/uv; chmod +x .tools/bin/uv',
    )
    machine.has(
        "python3", f"mkdir -p .tools/bin; cat {pip} >.tools/bin/python; chmod +x .tools/bin/python"
    )
    assert machine.set_up("uv").stdout.strip() == str(own / "uv")
    assert "--require-hashes -r requirements/uv.txt" in (machine.project / "arguments").read_text()
    (machine.path / "python3").unlink()
    assert machine.set_up("uv").stdout.strip() == str(own / "uv"), "kept for the next time"


# What uv 0.13 and pip 25 said on bare systems, and the remedy.
DNS = "failed to lookup address information: Temporary failure in name resolution"
FULL = "failed to copy file from /a/b to /c/d: No space left on device (os error 28)"
UV_FAILURES = [
    (f"error: Failed to fetch: https://x/y/\n  cause: dns error\n  cause: {DNS}", "HTTPS_PROXY="),
    ("  cause: tcp connect error\n  cause: Connection refused (os error 111)", "HTTPS_PROXY="),
    (f"error: Failed to install: x.whl (x==1.0)\n  cause: {FULL}", "the disk is full"),
    ("  cause: invalid peer certificate: UnknownIssuer", "export SSL_CERT_FILE="),
    ("  cause: Because x was not found in the package registry and", "export UV_DEFAULT_INDEX="),
    ("  cause: HTTP status client error (403 Forbidden) for url", "export UV_DEFAULT_INDEX="),
    ("   error: command 'g++' failed: No such file or directory", "apt-get install g++"),
    ("fatal error: Python.h: No such file or directory", "apt-get install python3.10-dev"),
    ("error: Failed to initialize cache at `/no/uv`\n  cause: Permission", "export UV_CACHE_DIR="),
]


@pytest.mark.parametrize(("words", "remedy"), UV_FAILURES)
def test_packages_that_cannot_be_installed(machine, words, remedy):
    machine.has_glibc("2.41")
    machine.has_python("3.13")
    (machine.path / "words").write_text(f"{words}\n\nhint: Consider another flag\n")
    machine.has("uv", f'[ "$1" != pip ] || {{ cat "{machine.path}/words" >&2; exit 1; }}')
    done = machine.set_up()
    assert done.returncode == 1
    shown, sentence = done.stderr.splitlines()
    assert shown in words
    assert sentence.startswith("setup: could not install the packages: ")
    assert remedy in sentence
    assert not (machine.project / ".venv/.stamp").exists()


def test_words_that_are_unknown_are_shown_whole(machine):
    machine.has_glibc("2.41")
    machine.has_python("3.13")
    machine.has("uv", '[ "$1" != pip ] || { echo one >&2; echo two; exit 3; }')
    expected = ["one", "two", "setup: could not install the packages; the reason is above"]
    assert machine.set_up().stderr.splitlines() == expected


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (
            "WARNING: Retrying after 'Failed: [Errno -3] Temporary failure in name resolution'",
            "HTTPS",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left", "full"),
        (
            "WARNING: Retrying after 'SSLError(136, '[X509: NO_CERTIFICATE_OR_CRL_FOUND]')",
            "PIP_CERT=",
        ),
        ("ERROR: Could not find a version", "PIP_INDEX_URL="),
    ],
)
def test_uv_that_cannot_be_installed(machine, words, remedy):
    machine.has("uv", "exit 1")
    (machine.path / "words").write_text(f"{words}\nERROR: No matching distribution found for uv\n")
    pip = machine.has("pip", f'cat "{machine.path}/words" >&2; exit 1')
    machine.has(
        "python3",
        f'mkdir -p .tools/bin; cat "{pip}" >.tools/bin/python; chmod +x .tools/bin/python',
    )
    done = machine.set_up("uv")
    assert (done.returncode, done.stdout) == (1, "")
    _, sentence = done.stderr.splitlines()
    assert sentence.startswith("setup: could not install uv: ")
    assert remedy in sentence


def test_a_disk_too_small_for_the_tools(machine):
    """The real venv, which hides the reason."""
    machine.has("uv", "exit 1")
    (machine.path / "python3").symlink_to(sys.executable)
    shutil.copytree(ROOT / "requirements", machine.project / "requirements")
    done = machine.set_up_on("-t tmpfs -o size=16k none", ".tools")
    assert "setup: could not make .tools: the disk is full; " in done.stderr


def test_a_folder_that_cannot_be_written_to(machine):
    machine.has("uv", "exit 1")
    for folder, remedy in ((".", "`cp -r '"), (".tools", "`sudo chown -R $(id -u) '")):
        (machine.project / folder).mkdir(exist_ok=True)
        done = machine.set_up_on(f"--bind -o ro '{machine.project / folder}'", folder)
        assert done.stderr.startswith("setup: cannot write to ")
        assert remedy in done.stderr
