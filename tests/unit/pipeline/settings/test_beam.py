"""Beam's arguments, as Beam itself reads them, and what is refused before it sees them."""

import pytest
from apache_beam.options import pipeline_options as options
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.runner import create_runner
from apache_beam.transforms.environments import Environment

from pipeline.kubeflow.compiler.compile import compile_settings
from pipeline.kubeflow.compiler.spec_checks import SpecError
from pipeline.kubeflow.container import entrypoint
from pipeline.settings.beam import BeamSettings
from pipeline.settings.resolution import ConfigError, resolve

POOL = ("workers=external", "worker_address=pool:50000")
IMAGE = ("worker_image=registry/beam@sha256:00",)
GCP = ("project=my-project", "region=europe-west4", "temp_location=gs://bucket/tmp", *IMAGE)
GOOD: dict[str, tuple[tuple[str, ...], str, dict[str, object]]] = {
    "direct": ((), "FnApiRunner", {"direct_num_workers": 1, "direct_running_mode": "in_memory"}),
    "direct, processes": (
        ("parallelism=3",),
        "FnApiRunner",
        {"direct_num_workers": 3, "direct_running_mode": "multi_processing"},
    ),
    "portable": (
        ("runner=portable", "job_endpoint=server:8099", "parallelism=4", *POOL),
        "PortableRunner",
        {"job_endpoint": "server:8099", "sdk_worker_parallelism": "4"},
    ),
    "flink": (
        ("runner=flink", "master=http://flink:8081", "parallelism=8", *IMAGE),
        "FlinkRunner",
        {"flink_master": "http://flink:8081", "parallelism": 8, "flink_submit_uber_jar": True},
    ),
    "flink, given its jar": (
        ("runner=flink", "master=http://flink:8081", "job_server_jar=/jars/flink.jar", *POOL),
        "FlinkRunner",
        {"flink_job_server_jar": "/jars/flink.jar"},
    ),
    "spark": (
        ("runner=spark", "master=http://spark:6066", "workers=process", "worker_command=/boot"),
        "SparkRunner",
        {"spark_rest_url": "http://spark:6066", "spark_submit_uber_jar": True},
    ),
    "dataflow": (
        (
            "runner=dataflow",
            *GCP,
            "parallelism=20",
            "machine_type=n2-standard-4",
            "service_account=a@b.iam.gserviceaccount.com",
            "subnetwork=regions/r/subnetworks/s",
            "staging_location=gs://bucket/staging",
        ),
        "DataflowRunner",
        {
            "project": "my-project",
            "region": "europe-west4",
            "temp_location": "gs://bucket/tmp",
            "staging_location": "gs://bucket/staging",
            "max_num_workers": 20,
            "machine_type": "n2-standard-4",
            "service_account_email": "a@b.iam.gserviceaccount.com",
            "use_public_ips": False,
        },
    ),
}


def beam(*assignments: str) -> BeamSettings:
    keys = [f"beam.{assignment}" for assignment in assignments]
    return resolve(environ={}, assignments=keys).settings.beam


def problems(parsed: options.PipelineOptions, runner: object) -> list[str]:
    """What Beam's validator finds, without the part of it that asks Google Cloud."""
    validator = PipelineOptionsValidator(parsed, runner)
    validator.OPTIONS = [
        each for each in validator.OPTIONS if each is not options.GoogleCloudOptions
    ]
    found = validator.validate()
    if validator.is_service_runner():
        cloud = parsed.view_as(options.GoogleCloudOptions)
        found += validator.validate_cloud_options(cloud)
        for name in ("temp_location", "staging_location"):
            found += validator.validate_gcs_path(cloud, name)
    return found


@pytest.mark.parametrize(("assignments", "runner", "expected"), GOOD.values(), ids=GOOD)
def test_beam_reads_what_was_set(assignments, runner, expected) -> None:
    parsed = options.PipelineOptions(beam(*assignments).arguments())
    known = parsed.get_all_options(drop_default=False)
    assert {name: known[name] for name in expected} == expected
    chosen = create_runner(known["runner"])
    assert type(chosen).__name__ == runner
    assert problems(parsed, chosen) == []
    assert known["sdk_container_image"], "else TFX packages itself at every node"


@pytest.mark.parametrize(
    ("workers", "kind", "what"),
    [
        (IMAGE, "DockerEnvironment", ("container_image", "registry/beam@sha256:00")),
        (POOL, "ExternalEnvironment", ("url", "pool:50000")),
        (
            ("workers=process", "worker_command=/opt/apache/beam/boot"),
            "ProcessEnvironment",
            ("command", "/opt/apache/beam/boot"),
        ),
        (("workers=loopback",), "PythonLoopbackEnvironment", ("_artifacts", [])),
    ],
)
def test_the_workers_are_beams_environments(workers, kind, what) -> None:
    arguments = beam("runner=portable", "job_endpoint=a:1", *workers).arguments()
    parsed = options.PipelineOptions(arguments).view_as(options.PortableOptions)
    environment = Environment.from_options(parsed)
    assert type(environment).__name__ == kind
    assert list(getattr(environment, what[0])) == list(what[1])


BAD = {
    "no master": (
        ("runner=flink", *IMAGE),
        "beam.runner=flink with beam.workers=docker needs beam.master",
    ),
    "no address": (
        ("runner=portable", "workers=external", "job_endpoint=a:1"),
        "with beam.workers=external needs beam.worker_address",
    ),
    "several": (
        ("runner=dataflow", "region=r"),
        "beam.runner=dataflow needs beam.worker_image and beam.project and beam.temp_location",
    ),
    "not known": (
        ("project=p", "machine_type=m"),
        "beam.runner=direct does not know beam.project and beam.machine_type",
    ),
    "workers": (("workers=loopback",), "beam.runner=direct does not know beam.workers"),
    "of other workers": (
        ("runner=portable", "job_endpoint=a:1", *POOL, *IMAGE),
        "with beam.workers=external does not know beam.worker_image",
    ),
    "not a bucket": (
        ("runner=dataflow", *GCP, "temp_location=/tmp"),
        "beam.temp_location = '/tmp'",
    ),
    "no port": (("job_endpoint=server",), "beam.job_endpoint = 'server'"),
    "no such runner": (("runner=prism",), "one of direct, portable, flink, spark, dataflow"),
}


@pytest.mark.parametrize(("assignments", "message"), BAD.values(), ids=BAD)
def test_what_a_runner_lacks_or_does_not_know_is_named(assignments, message) -> None:
    with pytest.raises(ConfigError) as caught:
        beam(*assignments)
    assert message in str(caught.value)


def compiled(*assignments: str) -> dict[str, list[str]]:
    settings = resolve("smoke", environ={}, assignments=assignments).settings
    executors = compile_settings(settings)[0]["deploymentSpec"]["executors"]
    return {name: executor["container"]["args"] for name, executor in executors.items()}


def test_the_beam_nodes_of_the_spec_have_the_arguments() -> None:
    wanted = ["beam.runner=dataflow", *(f"beam.{each}" for each in GCP)]
    arguments = compiled(*wanted, "kubeflow.pipeline_root=gs://bucket/root")
    nodes = {name for name, each in arguments.items() if "--leave_gs_uris" in each}
    assert nodes == {"MnistExampleGen_executor", "StatisticsGen_executor"}
    for name in nodes:  # TFX hands them to the others as well, which do not look at them.
        assert "--runner=DataflowRunner" in arguments[name]


def test_workers_elsewhere_need_a_store_that_they_can_read() -> None:
    wanted = ["beam.runner=flink", "beam.master=http://f:1", "beam.worker_image=i"]
    for root in (None, "minio://bucket/root"):
        with pytest.raises(SpecError, match=r"beam.runner=flink has workers that do not see"):
            compiled(*wanted, *([f"kubeflow.pipeline_root={root}"] if root else []))
    assert not any("--leave_gs_uris" in each for each in compiled().values())


@pytest.mark.parametrize("leave_gs", [True, False])
def test_a_node_with_workers_elsewhere_keeps_the_stores_addresses(monkeypatch, leave_gs) -> None:
    monkeypatch.delenv("KFP_LOCAL_ROOT", raising=False)
    uri = "gs://bucket/root/run/MnistExampleGen/examples"
    place = uri if leave_gs else uri.replace("gs://", "/gcs/")
    given = {"outputs": {"artifacts": {"examples": {"artifacts": [{"uri": uri}]}}}}
    given["outputs"]["outputFile"] = "/gcs/bucket/root/run/output_metadata.json"
    uris = entrypoint.prepare(given, {}, leave_gs)
    [artifact] = given["outputs"]["artifacts"]["examples"]["artifacts"]
    assert artifact["uri"] == place
    assert given["outputs"]["outputFile"] == "/gcs/bucket/root/run/output_metadata.json"
    output = {"artifacts": {"examples": {"artifacts": [{"uri": place, "metadata": {}}]}}}
    assert entrypoint.finish(output, uris, leave_gs)["artifacts"]["examples"]["artifacts"] == [
        {"uri": uri, "metadata": {}}
    ]
