"""Beam's own flags, as Beam reads them, and what is refused before a node runs."""

import socket

import pytest
from apache_beam.options import pipeline_options as options
from apache_beam.runners.runner import create_runner
from apache_beam.transforms.environments import Environment

from pipeline.kubeflow.compiler.compile import compile_settings
from pipeline.kubeflow.compiler.spec_checks import SpecError
from pipeline.kubeflow.container import entrypoint
from pipeline.settings.beam import BeamError, BeamSettings, check_addresses, check_flags
from pipeline.settings.resolution import ConfigError, resolve

IMAGE = "--sdk_container_image=registry/beam@sha256:00"
POOL = ("--environment_type=EXTERNAL", "--environment_config=pool:50000")
GCP = ("--project=my-project", "--region=europe-west4", "--temp_location=gs://bucket/tmp", IMAGE)


def beam(*flags: str) -> BeamSettings:
    assignment = f"beam.pipeline_args=[{', '.join(flags)}]"
    return resolve(environ={}, assignments=[assignment]).settings.beam


@pytest.mark.parametrize(
    ("flags", "runner", "environment"),
    [
        ((), "FnApiRunner", None),
        (
            ("--direct_running_mode=multi_processing", "--direct_num_workers=3"),
            "FnApiRunner",
            None,
        ),
        (("--runner=PortableRunner", *POOL), "PortableRunner", "ExternalEnvironment"),
        (("--runner=FlinkRunner", IMAGE, "--parallelism=8"), "FlinkRunner", "DockerEnvironment"),
        (
            ("--runner=SparkRunner", "--environment_type=LOOPBACK"),
            "SparkRunner",
            "PythonLoopbackEnvironment",
        ),
        (("--runner=DataflowRunner", *GCP), "DataflowRunner", None),
    ],
)
def test_beam_reads_each_flag_unchanged(flags, runner, environment) -> None:
    settings = beam(*flags)
    check_flags(settings)
    arguments = settings.arguments()
    assert tuple(arguments[len(arguments) - len(flags) :]) == flags
    parsed = options.PipelineOptions(arguments)
    known = parsed.get_all_options()
    assert type(create_runner(known["runner"])).__name__ == runner
    assert known["sdk_container_image"], "else TFX packages itself at every node"
    if environment:
        made = Environment.from_options(parsed.view_as(options.PortableOptions))
        assert type(made).__name__ == environment


@pytest.mark.parametrize(
    ("flags", "sees"),
    [
        ((), True),
        (("--runner=DirectRunner",), True),
        (("--runner=PortableRunner", "--environment_type=LOOPBACK"), True),
        (("--runner=PortableRunner", *POOL), False),
        (("--runner=DataflowRunner", *GCP), False),
    ],
)
def test_which_workers_see_the_disk_of_a_node(flags, sees) -> None:
    assert beam(*flags).sees_this_disk is sees


@pytest.mark.parametrize(
    "flags",
    [
        ("parallelism=2",),
        ("-x",),
        ("--runner FlinkRunner",),
        ("--runner=FlinkRunner",),
        ("--runner=DataflowRunner",),
    ],
)
def test_what_is_no_flag_and_workers_without_the_project_are_refused(flags) -> None:
    with pytest.raises(ConfigError):
        beam(*flags)


def test_an_unknown_flag_is_refused_with_the_nearest() -> None:
    with pytest.raises(BeamError) as caught:
        check_flags(beam("--flink_mater=a", "--runer=FlinkRunner"))
    assert caught.value.where == "beam.pipeline_args"
    assert "--flink_master" in caught.value.what
    assert "--runner" in caught.value.what


def test_a_value_that_beam_cannot_read_is_refused() -> None:
    with pytest.raises(BeamError) as caught:
        check_flags(beam("--direct_num_workers=many"))
    assert caught.value.what == "argument --direct_num_workers: invalid int value: 'many'"


def test_a_job_server_may_have_flags_of_its_own() -> None:
    check_flags(beam("--runner=PortableRunner", *POOL, "--of_the_server=1"))


def test_an_address_where_nobody_listens_is_refused_at_once(tmp_path) -> None:
    jar = tmp_path / "flink.jar"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        flink = ["--runner=FlinkRunner", IMAGE, f"--flink_job_server_jar={jar}"]
        used = beam(*flink, f"--flink_master=http://127.0.0.1:{port}/")
        with pytest.raises(BeamError, match="flink_job_server_jar"):
            check_addresses(used)
        jar.touch()
        check_addresses(used)
        check_addresses(beam(*flink, "'--flink_master=[local]'"))
        for wrong in ("[::1", "127.0.0.1:port"):
            with pytest.raises(BeamError, match="not an address"):
                check_addresses(beam(*flink, f"'--flink_master={wrong}'"))
    with pytest.raises(BeamError, match=f"--flink_master=http://127.0.0.1:{port}/"):
        check_addresses(used)
    processes = ["--environment_type=PROCESS", f"--environment_options=process_command={jar}"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        master = f"--flink_master=http://127.0.0.1:{server.getsockname()[1]}"
        started = beam("--runner=FlinkRunner", master, *processes)
        with pytest.raises(BeamError, match="process_command"):
            check_addresses(started)
        jar.chmod(0o755)
        check_addresses(started)
    pool = ("--environment_type=EXTERNAL", f"--environment_config=127.0.0.1:{port}")
    with pytest.raises(BeamError, match="--environment_config"):
        check_addresses(beam("--runner=PortableRunner", *pool))


@pytest.mark.parametrize(
    ("flags", "warns", "keeps_workers"),
    [
        ((), False, False),
        (("--runner=PortableRunner", *POOL), True, False),
        (("--runner=SparkRunner", "--environment_type=PROCESS"), False, True),
        (("--runner=FlinkRunner", "--environment_type=DOCKER", IMAGE), False, True),
        (("--runner=FlinkRunner", "--environment_type=LOOPBACK"), False, False),
    ],
)
def test_workers_are_kept_and_a_pool_is_warned_of(flags, warns, keeps_workers) -> None:
    settings = beam(*flags)
    assert bool(settings.notice()) is warns
    parsed = options.PipelineOptions(settings.arguments()).view_as(options.PortableOptions)
    assert bool(parsed.environment_cache_millis) is keeps_workers


def compiled(*assignments: str) -> dict[str, list[str]]:
    settings = resolve("smoke", environ={}, assignments=assignments).settings
    executors = compile_settings(settings)[0]["deploymentSpec"]["executors"]
    return {name: executor["container"]["args"] for name, executor in executors.items()}


def test_the_beam_nodes_of_the_spec_have_the_flags() -> None:
    flags = ", ".join(("--runner=DataflowRunner", *GCP))
    arguments = compiled(f"beam.pipeline_args=[{flags}]", "kubeflow.pipeline_root=gs://bucket/root")
    nodes = {name for name, each in arguments.items() if "--leave_gs_uris" in each}
    assert nodes == {"MnistExampleGen_executor", "StatisticsGen_executor"}
    for name in nodes:  # TFX hands them to the others as well, which do not look at them.
        assert "--runner=DataflowRunner" in arguments[name]


def test_workers_elsewhere_need_a_store_that_they_can_read() -> None:
    flags = f"beam.pipeline_args=[--runner=FlinkRunner, {IMAGE}]"
    for root in ((), ("kubeflow.pipeline_root=minio://bucket/root",)):
        with pytest.raises(SpecError):
            compiled(flags, *root)
    assert not any("--leave_gs_uris" in each for each in compiled().values())


@pytest.mark.parametrize("leave_gs", [True, False])
def test_a_node_with_workers_elsewhere_keeps_the_stores_addresses(monkeypatch, leave_gs) -> None:
    monkeypatch.delenv("KFP_LOCAL_ROOT", raising=False)
    uri = "gs://bucket/place/run/MnistExampleGen/examples"
    place = uri if leave_gs else uri.replace("gs://", "/gcs/")
    given = {"outputs": {"artifacts": {"examples": {"artifacts": [{"uri": uri}]}}}}
    given["outputs"]["outputFile"] = "/gcs/bucket/place/run/output_metadata.json"
    uris = entrypoint.prepare(given, {}, leave_gs)
    [artifact] = given["outputs"]["artifacts"]["examples"]["artifacts"]
    assert artifact["uri"] == place
    assert given["outputs"]["outputFile"] == "/gcs/bucket/place/run/output_metadata.json"
    output = {"artifacts": {"examples": {"artifacts": [{"uri": place, "metadata": {}}]}}}
    assert entrypoint.finish(output, uris, leave_gs)["artifacts"]["examples"]["artifacts"] == [
        {"uri": uri, "metadata": {}}
    ]
