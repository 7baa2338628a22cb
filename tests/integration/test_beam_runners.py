"""Ingestion and statistics by Beam's runners: the same records and the same statistics."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from running_nodes import pipeline_of, records
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx import v1 as tfx

from pipeline.beam_workers import prepare_workers
from pipeline.pipeline import create_data_nodes
from pipeline.settings.resolution import resolve

ROOT = Path(__file__).parents[2]
SECONDS = 120


def run_nodes(data_dir: Path, root: Path, *assignments: str) -> None:
    """Runs the two Beam nodes with TFX's own local runner."""
    settings = resolve(environ={}, assignments=assignments).settings
    nodes = create_data_nodes(settings, data_dir=str(data_dir), source="a test")
    root.mkdir()
    used = [nodes.example_gen, nodes.statistics_gen]
    pipeline = pipeline_of(root, used, beam_pipeline_args=settings.beam.arguments())
    tfx.orchestration.LocalDagRunner().run(pipeline)


def statistics(root: Path) -> dict[str, statistics_pb2.DatasetFeatureStatisticsList]:
    """The statistics of each split, features in the order of their names."""
    found = {}
    for path in (root / "artifacts" / "StatisticsGen").rglob("FeatureStats.pb"):
        message = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes())
        for data_set in message.datasets:
            data_set.features.sort(key=lambda feature: feature.path.step[0])
        found[path.parent.name] = message
    return found


def counts(found: statistics_pb2.DatasetFeatureStatisticsList) -> dict[str, tuple[float, ...]]:
    """What of each feature is counted, and its ends."""
    [data_set] = found.datasets
    return {
        feature.path.step[0]: (
            data_set.num_examples,
            feature.num_stats.common_stats.num_non_missing,
            feature.num_stats.common_stats.tot_num_values,
            feature.num_stats.num_zeros,
            feature.num_stats.min,
            feature.num_stats.max,
        )
        for feature in data_set.features
    }


def moments(found: statistics_pb2.DatasetFeatureStatisticsList) -> dict[str, float]:
    """Mean and standard deviation of each feature."""
    return {
        f"{feature.path.step[0]} {name}": getattr(feature.num_stats, name)
        for feature in found.datasets[0].features
        for name in ("mean", "std_dev")
    }


@contextlib.contextmanager
def process(log: Path, *command: str) -> Iterator[None]:
    """A program, with what it says in a file."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # the pool starts `python`
    }
    with (
        log.open("w") as file,
        subprocess.Popen(command, env=environment, stdout=file, stderr=file) as started,
    ):
        try:
            yield
        finally:
            started.terminate()
            started.wait(SECONDS)


def worker_command(folder: Path) -> Path:
    """An executable that starts a worker process, as docs/scale.md makes it."""
    command = folder / "worker"
    python = sys.executable
    command.write_text(f'#!/bin/sh\ncd {ROOT} && exec {python} -m pipeline.beam_workers "$@"\n')
    command.chmod(0o755)
    return command


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for_port(port: int, log: Path) -> None:
    until = time.monotonic() + SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
            return
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory, digits, write_span) -> Path:
    """1,000 digits, and what the runner in this process makes of them."""
    folder = tmp_path_factory.mktemp("direct")
    write_span(folder / "data", *digits, train=700)
    run_nodes(folder / "data", folder / "run")
    return folder


@pytest.mark.slow
def test_a_job_server_with_worker_processes_of_its_own(direct: Path, tmp_path: Path) -> None:
    """Job, data and state go over gRPC: this process, the job service, the pool's workers."""
    job_port, pool_port = free_port(), free_port()
    service, pool = tmp_path / "service.log", tmp_path / "pool.log"
    with (
        process(
            service,
            sys.executable,
            "-m",
            "apache_beam.runners.portability.local_job_service_main",
            f"--port={job_port}",
        ),
        process(
            pool,
            sys.executable,
            "-m",
            "apache_beam.runners.worker.worker_pool_main",
            f"--service_port={pool_port}",
            f"--container_executable={worker_command(tmp_path)}",
        ),
    ):
        wait_for_port(job_port, service)
        wait_for_port(pool_port, pool)
        run_nodes(
            direct / "data",
            tmp_path / "run",
            "beam.pipeline_args=[--runner=PortableRunner, --environment_type=EXTERNAL, "
            f"--job_endpoint=localhost:{job_port}, --environment_config=localhost:{pool_port}]",
        )
    assert service.read_text().count("Completed job") == 2, service.read_text()
    assert pool.read_text().count("Starting worker with command") == 2, pool.read_text()
    assert records(tmp_path / "run") == records(direct / "run")
    assert statistics(tmp_path / "run") == statistics(direct / "run")


@contextlib.contextmanager
def engine(variable: str, folder: Path) -> Iterator[list[str]]:
    """Beam's flags for an engine, of which a variable of the environment names the program."""
    program = os.environ.get(variable) or pytest.skip(f"{variable} names no program")
    workers = f"--environment_options=process_command={worker_command(folder)}"
    if variable == "BEAM_FLINK_JOB_SERVER_JAR":
        yield [f"--flink_job_server_jar={program}", "'--flink_master=[local]'", workers]
    elif variable == "BEAM_SPARK_JOB_SERVER_JAR":
        yield [f"--spark_job_server_jar={program}", "'--spark_master_url=local[2]'", workers]
    else:
        port, log = free_port(), folder / "prism.log"
        with process(log, program, f"--job_port={port}", "--serve_http=false"):
            wait_for_port(port, log)
            yield [f"--job_endpoint=localhost:{port}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "runner", "workers"),
    [
        ("BEAM_PRISM", "PortableRunner", "LOOPBACK"),
        ("BEAM_FLINK_JOB_SERVER_JAR", "FlinkRunner", "PROCESS"),
        ("BEAM_SPARK_JOB_SERVER_JAR", "SparkRunner", "PROCESS"),
    ],
)
def test_an_engine(variable: str, runner: str, workers: str, direct: Path, tmp_path: Path) -> None:
    """Prism is Beam's own, whose process workers get a wrong id; the jars have an engine inside."""
    with engine(variable, tmp_path) as flags:
        flags += [f"--runner={runner}", f"--environment_type={workers}"]
        run_nodes(direct / "data", tmp_path / "run", f"beam.pipeline_args=[{', '.join(flags)}]")
    assert records(tmp_path / "run") == records(direct / "run")
    here, there = statistics(direct / "run"), statistics(tmp_path / "run")
    for split in here:
        assert counts(there[split]) == counts(here[split])
        assert moments(there[split]) == pytest.approx(moments(here[split]), rel=1e-9)


@pytest.mark.slow
def test_several_processes_of_one_machine(direct: Path, tmp_path: Path) -> None:
    """Which process sees which digits is left to chance, and with it the last bits of a sum."""
    processes = "--direct_running_mode=multi_processing, --direct_num_workers=2"
    run_nodes(direct / "data", tmp_path / "run", f"beam.pipeline_args=[{processes}]")
    assert records(tmp_path / "run") == records(direct / "run")
    here, there = statistics(direct / "run"), statistics(tmp_path / "run")
    assert here.keys() == there.keys() == {"Split-train", "Split-eval"}
    for split in here:
        assert counts(there[split]) == counts(here[split])
        assert moments(there[split]) == pytest.approx(moments(here[split]), rel=1e-9)


def end_the_worker(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("python", [sys.executable, "/bin/false"], ids=["killed", "never began"])
def test_a_worker_process_that_ends_early_fails_the_node(
    python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # they import this module
    prepare_workers()
    monkeypatch.setattr(sys, "executable", python)
    flags = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    settings = resolve(environ={}, assignments=[f"beam.pipeline_args={flags}"]).settings
    pipeline = beam.Pipeline(options=PipelineOptions(settings.beam.arguments()))
    _ = pipeline | beam.Create(range(10)) | beam.Reshuffle() | beam.Map(end_the_worker)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="worker process of Beam ended before its work"):
        pipeline.run().wait_until_finish()
    assert time.monotonic() - started < 60


NODE = """
import time
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from pipeline.beam_workers import prepare_workers
prepare_workers()
def wait(number):
    import os, time
    os.write(1, f"{os.getpid()}\\n".encode())  # at once, since all workers write to one pipe
    time.sleep(600)
flags = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
runner = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
with beam.Pipeline(runner=runner, options=PipelineOptions(flags)) as pipeline:
    _ = pipeline | beam.Create(range(10)) | beam.Reshuffle() | beam.Map(wait)
"""


def test_no_worker_process_outlives_its_node(tmp_path: Path) -> None:
    """By an interpreter whose path has a space, which Beam does not quote."""
    python = tmp_path / "a b" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    packages = os.pathsep.join([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    node = subprocess.Popen(
        [python, "-c", NODE],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": packages},
        stdout=subprocess.PIPE,
    )
    assert node.stdout is not None
    worker = int(node.stdout.readline())
    os.kill(worker, 0)
    node.kill()
    node.communicate(timeout=60)  # ends when nobody is left who could write
