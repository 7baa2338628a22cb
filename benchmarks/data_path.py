"""Ours from IDX files to the gate, against TFX's own four nodes on the same digits as TFRecords.

    MNIST_DATA_DIR=... python benchmarks/data_path.py [--rounds 3]
    python benchmarks/data_path.py --made 10000000 [--against CHECKOUT]

Ours: MnistExampleGen, StatisticsGen, ImportSchemaGen, ExampleValidator, DataGate. TFX's:
ImportExampleGen, StatisticsGen, SchemaGen, ExampleValidator, on examples that hold `image` and
`label`. Each round runs each side once in a process of its own, in turn; the time is that of the
pipeline, without imports, and the memory is the process's peak.

With `--made`: MnistExampleGen alone on so many made digits in one uncompressed file, by one process
and by two; with `--against`, by another checkout as well. The peak is the largest process's.
The records have to be the same.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # PYTHONPATH may name another checkout


def ours(data_dir: str):
    from pipeline.pipeline import create_data_nodes
    from pipeline.settings.resolution import resolve

    return list(create_data_nodes(resolve(environ={}).settings, data_dir=data_dir, source="MNIST"))


def tfx_own(data_dir: str):
    from tfx import v1 as tfx

    split = tfx.proto.Input.Split
    example_gen = tfx.components.ImportExampleGen(
        input_base=data_dir,
        input_config=tfx.proto.Input(
            splits=[split(name=name, pattern=f"{name}/*") for name in ("train", "eval")]
        ),
    )
    statistics_gen = tfx.components.StatisticsGen(examples=example_gen.outputs["examples"])
    schema_gen = tfx.components.SchemaGen(statistics=statistics_gen.outputs["statistics"])
    validator = tfx.components.ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema_gen.outputs["schema"]
    )
    return [example_gen, statistics_gen, schema_gen, validator]


SIDES = {"ours": ours, "tfx": tfx_own}


def run_side(side: str, data_dir: str) -> None:
    """Runs one side in this process and prints its time and peak memory as JSON."""
    from tfx import v1 as tfx

    from pipeline.settings.beam import BeamSettings

    with tempfile.TemporaryDirectory() as root:
        pipeline = tfx.dsl.Pipeline(
            pipeline_name=side,
            pipeline_root=f"{root}/artifacts",
            components=SIDES[side](data_dir),
            metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
                f"{root}/metadata.sqlite"
            ),
            beam_pipeline_args=BeamSettings().arguments(),
        )
        started = time.perf_counter()
        tfx.orchestration.LocalDagRunner().run(pipeline)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_gib": peak}))


def write_records(data_dir: str, folder: Path) -> None:
    """The same digits as TFRecords with `image` and `label`, for TFX's side."""
    import tensorflow as tf

    from mnist.spans import resolve_span
    from mnist.splits import load_splits

    for split, digits in load_splits(resolve_span(data_dir, None), 0.1).items():
        (folder / split).mkdir()
        options = tf.io.TFRecordOptions(compression_type="GZIP")
        with tf.io.TFRecordWriter(str(folder / split / "digits.gz"), options) as writer:
            for image, label in zip(digits.images, digits.labels.tolist(), strict=True):
                example = tf.train.Example()
                example.features.feature["image"].bytes_list.value.append(image.tobytes())
                example.features.feature["label"].int64_list.value.append(label)
                writer.write(example.SerializeToString())


def measure(side: str, data_dir: str) -> dict[str, float]:
    return run_here(ROOT, ["--side", side, "--data-dir", data_dir])


def run_here(root: Path, arguments: list[str]) -> dict[str, Any]:
    """Runs this program with the modules of a checkout."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "data_path.py"), *arguments],
        cwd=root,  # which a worker puts first
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        sys.exit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def compare(data_dir: str, rounds: int) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        write_records(data_dir, folder)
        inputs = {"ours": data_dir, "tfx": str(folder)}
        ratios = []
        print("round  ours              TFX's four        ratio")
        for number in range(1, rounds + 1):
            seen = {side: measure(side, inputs[side]) for side in SIDES}
            ratios.append(seen["ours"]["seconds"] / seen["tfx"]["seconds"])
            cells = [f"{s['seconds']:5.1f} s {s['peak_gib']:4.2f} GiB" for s in seen.values()]
            print(f"{number:>5}  {cells[0]:16}  {cells[1]:16}  {ratios[-1]:.2f}", flush=True)
        print(f"median ratio {statistics.median(ratios):.2f} (goal: at most 1.0)")
    finally:
        shutil.rmtree(folder)


def ingest(data_dir: str, processes: int) -> None:
    """Runs MnistExampleGen, and prints its time, peak memory and the digest of its records."""
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.types import standard_artifacts

    from components.mnist_example_gen.executor import Executor
    from mnist.settings import DataSettings
    from pipeline.beam_workers import prepare_workers
    from pipeline.settings.beam import BeamSettings

    prepare_workers()
    flags = ("--direct_running_mode=multi_processing", f"--direct_num_workers={processes}")
    arguments = BeamSettings(pipeline_args=flags if processes > 1 else ()).arguments()
    examples = standard_artifacts.Examples()
    with tempfile.TemporaryDirectory(dir=data_dir) as examples.uri:
        context = BaseBeamExecutor.Context(beam_pipeline_args=arguments)
        settings = DataSettings().model_dump_json()
        started = time.perf_counter()
        Executor(context).Do(
            {}, {"examples": [examples]}, {"data_dir": data_dir, "settings": settings, "source": ""}
        )
        seconds = time.perf_counter() - started
        records = hashlib.sha256()
        for path in sorted(Path(examples.uri).rglob("*.gz")):
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    records.update(chunk)
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20
    print(json.dumps({"seconds": seconds, "peak_gib": peak, "records": records.hexdigest()}))


def write_made(count: int, folder: Path) -> None:
    """IDX files of digits in shades of noise, no two alike."""
    import numpy as np

    draw = np.random.default_rng(0)
    block = draw.integers(0, 256, (10_000, 784), np.uint8) * (draw.random((10_000, 784)) < 0.19)
    with (folder / "train-images-idx3-ubyte").open("wb") as images:
        images.write(struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28))
        for start in range(0, count, len(block)):
            block[:, :4] = np.frombuffer(struct.pack(">I", start), np.uint8)
            images.write(block[: count - start].astype(np.uint8).data)
    with (folder / "train-labels-idx1-ubyte").open("wb") as labels:
        labels.write(struct.pack(">4BI", 0, 0, 8, 1, count))
        labels.write(draw.integers(0, 10, count, np.uint8).data)


def compare_ingestion(count: int, against: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_made(count, Path(folder))
        digests = set()
        print("processes  seconds  digits/s  peak of a process")
        for root in filter(None, (ROOT, against)):
            for processes in (1, 2):
                arguments = ["--processes", str(processes), "--data-dir", folder]
                seen = run_here(root, arguments)
                digests.add(seen["records"])
                print(
                    f"{processes:>9}  {seen['seconds']:7.1f}  {count / seen['seconds']:8.0f}  "
                    f"{seen['peak_gib']:.2f} GiB  {root}",
                    flush=True,
                )
        print("the records are the same" if len(digests) == 1 else "the records DIFFER")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default=os.environ.get("MNIST_DATA_DIR"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--made", type=int, metavar="N", help="ingest N made digits")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="with --made")
    parser.add_argument("--processes", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.made:
        compare_ingestion(arguments.made, arguments.against)
        return
    if not arguments.data_dir:
        parser.error("name the folder with MNIST's files: --data-dir or MNIST_DATA_DIR")
    if arguments.processes:
        ingest(arguments.data_dir, arguments.processes)
    elif arguments.side:
        run_side(arguments.side, arguments.data_dir)
    else:
        compare(arguments.data_dir, arguments.rounds)


if __name__ == "__main__":
    main()
