"""Time from the command to the first node of a run, against `import tensorflow`; and `--help`.

    MNIST_DATA_DIR=... python benchmarks/startup.py [--rounds 5]

Each round measures each once, in turn, in fresh processes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNNER = [sys.executable, str(ROOT / "local_runner.py")]


def seconds_of(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def seconds_to_first_node() -> float:
    with tempfile.TemporaryDirectory() as output:
        command = [*RUNNER, "run", "--preset", "smoke", "--output-dir", output]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if line.lstrip().startswith("1/"):
                seconds = time.perf_counter() - started
                process.kill()
                process.wait()
                return seconds
    sys.exit("the run showed no first node")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    if not os.environ.get("MNIST_DATA_DIR"):
        parser.error("name the folder with MNIST's files: MNIST_DATA_DIR")
    ratios = []
    print("round  --help  import tensorflow  to the first node  ratio")
    for number in range(1, rounds + 1):
        help_seconds = seconds_of([*RUNNER, "--help"])
        tensorflow = seconds_of([sys.executable, "-c", "import tensorflow"])
        first_node = seconds_to_first_node()
        ratios.append(first_node / tensorflow)
        print(
            f"{number:>5}  {help_seconds:5.2f}s {tensorflow:17.1f}s {first_node:17.1f}s "
            f"{ratios[-1]:6.2f}",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.2f} (goal: at most 1.3)")


if __name__ == "__main__":
    main()
