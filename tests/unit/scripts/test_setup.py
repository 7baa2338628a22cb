"""Which stack, Python and uv the set-up takes, with stand-ins for what machines have."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


class Machine:
    """A PATH without any Python or uv, and a copy of the set-up."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "a project"
        self.path = folder / "bin"
        self.path.mkdir()
        for name in ("sh", "dirname", "awk", "grep", "sed", "tail", "cat", "pwd", "mkdir", "chmod"):
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
            "python install --quiet {version}") exit 0 ;;
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
    assert f"install {version}" in machine.refuses()
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
