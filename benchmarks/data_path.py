"""Ours from IDX files to the gate, against TFX's own four nodes on the same digits as TFRecords.

    MNIST_DATA_DIR=... python benchmarks/data_path.py [--rounds 3]

Ours: MnistExampleGen, StatisticsGen, ImportSchemaGen, ExampleValidator, DataGate. TFX's:
ImportExampleGen, StatisticsGen, SchemaGen, ExampleValidator, on examples that hold `image` and
`label`. Each round runs each side once in a process of its own, in turn; the time is that of the
pipeline, without imports, and the memory is the process's peak.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


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
    command = [sys.executable, __file__, "--side", side, "--data-dir", data_dir]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default=os.environ.get("MNIST_DATA_DIR"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.data_dir:
        parser.error("name the folder with MNIST's files: --data-dir or MNIST_DATA_DIR")
    if arguments.side:
        run_side(arguments.side, arguments.data_dir)
    else:
        compare(arguments.data_dir, arguments.rounds)


if __name__ == "__main__":
    main()
