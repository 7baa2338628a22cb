"""The benchmarks and tools start as docs/benchmarks.md says they are called."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("benchmarks", "tools")
    for path in (ROOT / folder).glob("*.py")
    if "__main__" in path.read_text()
)
NAMED = re.findall(r"`((?:benchmarks|tools)/[^`]+)`", (ROOT / "docs/benchmarks.md").read_text())
COMMANDS = sorted({command for command in NAMED if command.split()[0] in PROGRAMS})
# Each program as far as its arguments, in a fork of one process that has imported what takes long.
RUN_PROGRAMS = """
import argparse, json, os, runpy, sys
import tensorflow, tfx.v1

def run(program, arguments, log):
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    parse = argparse.ArgumentParser.parse_args
    argparse.ArgumentParser.parse_args = lambda self: sys.exit(parse(self) is None)
    sys.argv = [program, *arguments]
    sys.path.insert(0, os.path.dirname(program))
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(end.code or 0)  # at once: to unload TensorFlow takes seconds

statuses = []
for number, (program, *arguments) in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if not child:
        run(program, arguments, f"{number}.log")
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(statuses))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """The exit status and the output of each command."""
    commands = [f"{program} --help" for program in PROGRAMS] + COMMANDS
    folder = tmp_path_factory.mktemp("programs")
    split = [shlex.split(command) for command in commands]
    absolute = [[str(ROOT / program), *arguments] for program, *arguments in split]
    result = subprocess.run(
        [sys.executable, "-c", RUN_PROGRAMS, json.dumps(absolute)],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    statuses = json.loads(result.stdout)
    outputs = [(folder / f"{number}.log").read_text() for number in range(len(commands))]
    return dict(zip(commands, zip(statuses, outputs, strict=True), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_each_says_how_it_is_used(program: str, results: dict[str, tuple[int, str]]) -> None:
    status, output = results[f"{program} --help"]
    assert status == 0, output
    assert "usage: " in output


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_each_documented_command_is_understood(
    command: str, results: dict[str, tuple[int, str]]
) -> None:
    status, output = results[command]
    assert status == 0, output


@pytest.mark.slow
def test_trainings_are_compared_to_the_end(span_dir: Path, tmp_path: Path) -> None:
    """Both sides draw, are measured at each mark and at the end, and are written and plotted."""
    options = "--preset smoke --set classifier.steps=20 --judge-steps 20 --seconds 4 --at 2"
    options += " --samples 300 --only ours --only dcgan"
    command = [sys.executable, ROOT / "benchmarks/training.py", *options.split()]
    output = tmp_path / "output"
    subprocess.run([*command, "--data-dir", span_dir, "--output", output], check=True)

    results = json.loads((output / "results.json").read_text())
    assert [run["side"] for run in results["runs"]] == ["ours", "dcgan"]
    for run in results["runs"]:
        assert len(run["moments"]) == 2
        for moment in run["moments"]:
            for measures in (moment, moment["judge"]):
                assert measures["fid_ratio"] > 0
                assert 0 <= measures["recall"] <= 1
        assert 0 <= run["two_sample_accuracy"] <= 1
    assert results["runs"][0]["moments"][-1]["conditional_accuracy"] is not None
    assert results["runs"][1]["moments"][-1]["conditional_accuracy"] is None
    assert 0 <= results["real"]["classification_accuracy_score"] <= 1
    assert (output / "curve.png").read_bytes().startswith(b"\x89PNG")
