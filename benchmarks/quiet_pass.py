"""What it costs when there is nothing to do: a pass of retraining, and an idle schedule.

    MNIST_DATA_DIR=... python benchmarks/quiet_pass.py [--rounds 5] [--idle [3600]] [--output DIR]

First a run with the preset `smoke`, so that something is served; with --output its folder is kept
and taken again. Then each kind of pass in turn, in fresh processes, `import tensorflow` beside them
for scale; then, with --idle, a schedule that has nothing to do, and what Linux counts of it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNNER = [sys.executable, str(ROOT / "local_runner.py")]
PASSES = {
    "retrain --if new-data": ["retrain", "--if", "new-data"],
    "retrain --if drift": ["retrain", "--if", "drift"],
    "retrain --if age:7d": ["retrain", "--if", "age:7d"],
    "retrain --if new-data,age:7d": ["retrain", "--if", "new-data,age:7d"],
    "schedule --once": ["schedule", "--once", "--cron", "0 3 * * *"],
}


def seconds_of(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def measure_passes(output: str, rounds: int) -> None:
    commands = {name: [*RUNNER, *words, "--output-dir", output] for name, words in PASSES.items()}
    for name in list(PASSES)[:4]:
        done = subprocess.run([*commands[name]], check=True, capture_output=True, text=True)
        report = json.loads(done.stdout)
        if report["outcome"] != "nothing to do":
            sys.exit(f"{name}: {done.stdout}")
    commands["import tensorflow"] = [sys.executable, "-c", "import tensorflow"]
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            found[name].append(seconds_of(command))
    for name, seconds in found.items():
        print(
            f"{name:30} median {statistics.median(seconds):5.2f} s, "
            f"{min(seconds):.2f} to {max(seconds):.2f} s",
            flush=True,
        )


def measure_idle(output: str, seconds: float) -> None:
    command = [*RUNNER, "schedule", "--cron", "0 3 1 1 *", "--output-dir", output]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # it waits
    proc = Path("/proc", str(process.pid))
    before = cpu_seconds(proc)
    time.sleep(seconds)
    used = cpu_seconds(proc) - before
    memory = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    process.terminate()
    process.wait()
    print(
        f"idle for {seconds:.0f} s: {used:.2f} s of CPU, {used / seconds:.4%}; resident "
        f"{int(memory['VmRSS'].split()[0]) / 1024:.0f} MiB, at most "
        f"{int(memory['VmHWM'].split()[0]) / 1024:.0f} MiB"
    )


def cpu_seconds(proc: Path) -> float:
    """User and system time of a process and of its children that have ended."""
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--idle",
        metavar="SECONDS",
        type=float,
        nargs="?",
        const=600.0,
        default=0.0,
        help="measure an idle schedule, for 600 s where no other time is given",
    )
    parser.add_argument("--output", help="kept, and taken again")
    arguments = parser.parse_args()
    if not os.environ.get("MNIST_DATA_DIR"):
        parser.error("name the folder with MNIST's files: MNIST_DATA_DIR")
    with tempfile.TemporaryDirectory() as temporary:
        output = arguments.output or temporary
        if not Path(output, "serving").exists():
            run = [*RUNNER, "run", "--preset", "smoke", "--output-dir", output]
            subprocess.run(run, check=True, stdout=sys.stderr)
        if arguments.rounds:
            measure_passes(output, arguments.rounds)
        if arguments.idle:
            measure_idle(output, arguments.idle)


if __name__ == "__main__":
    main()
