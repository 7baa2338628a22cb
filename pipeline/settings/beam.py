"""Where the Beam nodes run: the settings, and the arguments that say so to Beam.

A runner is one row of `_RUNNERS`. What it needs are the settings in its arguments; what it takes
besides stands beside them. Beam's side is `apache_beam/options/pipeline_options.py`.
"""

import string
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

# TFX packages itself for the workers, at every node, where it is not told of an image.
_NO_PACKAGING = "--sdk_container_image=unused"
# Nor does Beam need to list the packages of this environment, for which it asks pip.
_NO_FREEZE = "--experiments=disable_logging_submission_environment"


class _Choice(NamedTuple):
    """Beam's arguments with settings in braces: always, and those of a setting that is set."""

    always: tuple[str, ...]
    optional: Mapping[str, tuple[str, ...]] = {}


# On another machine, whose workers are chosen by `workers`.
_PORTABLE = ("portable", "flink", "spark")
_RUNNERS = {
    # By its whole name, since the short one may start Prism, which is downloaded.
    "direct": _Choice(
        (
            "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner",
            _NO_PACKAGING,
        ),
        {
            "parallelism": (
                "--direct_running_mode=multi_processing",
                "--direct_num_workers={parallelism}",
            )
        },
    ),
    "portable": _Choice(
        ("--runner=PortableRunner", _NO_FREEZE, "--job_endpoint={job_endpoint}"),
        {"parallelism": ("--sdk_worker_parallelism={parallelism}",)},
    ),
    # An uber jar goes to the cluster's REST address; nothing of Java runs here.
    "flink": _Choice(
        ("--runner=FlinkRunner", _NO_FREEZE, "--flink_master={master}", "--flink_submit_uber_jar"),
        {
            "job_server_jar": ("--flink_job_server_jar={job_server_jar}",),
            "parallelism": ("--parallelism={parallelism}",),
        },
    ),
    "spark": _Choice(
        (
            "--runner=SparkRunner",
            _NO_FREEZE,
            "--spark_rest_url={master}",
            "--spark_submit_uber_jar",
        ),
        {
            "job_server_jar": ("--spark_job_server_jar={job_server_jar}",),
            "parallelism": ("--sdk_worker_parallelism={parallelism}",),
        },
    ),
    "dataflow": _Choice(
        (
            "--runner=DataflowRunner",
            _NO_FREEZE,
            "--project={project}",
            "--region={region}",
            "--temp_location={temp_location}",
            "--sdk_container_image={worker_image}",
        ),
        {
            "staging_location": ("--staging_location={staging_location}",),
            "parallelism": ("--max_num_workers={parallelism}",),
            "machine_type": ("--worker_machine_type={machine_type}",),
            "service_account": ("--service_account_email={service_account}",),
            "subnetwork": ("--subnetwork={subnetwork}", "--no_use_public_ips"),
        },
    ),
}
_WORKERS = {
    "docker": _Choice(
        (
            "--environment_type=DOCKER",
            "--environment_config={worker_image}",
            "--sdk_container_image={worker_image}",
        )
    ),
    "external": _Choice(
        ("--environment_type=EXTERNAL", "--environment_config={worker_address}", _NO_PACKAGING)
    ),
    "process": _Choice(
        (
            "--environment_type=PROCESS",
            "--environment_options=process_command={worker_command}",
            _NO_PACKAGING,
        )
    ),
    "loopback": _Choice(("--environment_type=LOOPBACK", _NO_PACKAGING)),
}
_GCS = r"^gs://[^/]+/.+"


class BeamSettings(BaseModel):
    """The runner of the Beam nodes, and what it has to know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runner: Literal["direct", "portable", "flink", "spark", "dataflow"] = Field(
        "direct", description="direct: in the node's own process; portable: a Beam job server"
    )
    parallelism: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="direct: worker processes; flink: parallelism; dataflow: workers at most; "
        "portable and spark: worker processes per machine; null: the runner's default, one here",
    )
    workers: Literal["docker", "external", "process", "loopback"] = Field(
        "docker",
        description="of portable, flink and spark: containers, a pool that is there, a command, or "
        "the node's own process",
    )
    worker_image: str | None = Field(
        None,
        pattern=r"^[a-z0-9]\S*$",
        description="of docker and dataflow: `make image TARGET=beam`",
    )
    worker_address: str | None = Field(
        None, pattern=r"^[^\s/]+:\d+$", description="host:port of an external pool"
    )
    worker_command: str | None = Field(
        None, min_length=1, description="of process: starts a worker, as Beam's boot does"
    )
    job_endpoint: str | None = Field(
        None, pattern=r"^[^\s/]+:\d+$", description="host:port of portable's job server"
    )
    master: str | None = Field(
        None, pattern=r"^https?://\S+$", description="REST address of Flink or Spark"
    )
    job_server_jar: str | None = Field(
        None,
        min_length=1,
        description="of flink and spark: path or URL; null: Beam downloads it from Maven",
    )
    project: str | None = Field(None, min_length=1, description="of dataflow: Google Cloud project")
    region: str | None = Field(None, min_length=1, description="of dataflow: such as europe-west4")
    temp_location: str | None = Field(
        None, pattern=_GCS, description="of dataflow: gs://bucket/folder for temporary files"
    )
    staging_location: str | None = Field(
        None, pattern=_GCS, description="of dataflow: for code; null: as temp_location"
    )
    machine_type: str | None = Field(None, min_length=1, description="of dataflow's workers")
    service_account: str | None = Field(None, min_length=1, description="of dataflow's workers")
    subnetwork: str | None = Field(
        None, min_length=1, description="of dataflow's workers, which then have no public address"
    )

    @model_validator(mode="after")
    def _refuse_what_the_runner_lacks_or_does_not_know(self) -> "BeamSettings":
        reason = f"runner={self.runner}"
        if self.runner in _PORTABLE:
            reason += f" with workers={self.workers}"
        values = self.model_dump()
        needed = {name for choice in self._choices() for name in _names(choice.always)}
        missing = [name for name in values if name in needed and values[name] is None]
        taken = {"runner", *needed, *(name for each in self._choices() for name in each.optional)}
        taken |= {"workers"} if self.runner in _PORTABLE else set()
        unknown = [
            name
            for name, field in type(self).model_fields.items()
            if name not in taken and values[name] != field.default
        ]
        problems = [f"{reason} needs {' and '.join(missing)}"] if missing else []
        problems += [f"{reason} does not know {' and '.join(unknown)}"] if unknown else []
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def arguments(self) -> list[str]:
        """The `beam_pipeline_args` of TFX."""
        values = self.model_dump()
        return [
            template.format_map(values)
            for choice in self._choices()
            for template in _templates(choice, values)
        ]

    def _choices(self) -> list[_Choice]:
        workers = [_WORKERS[self.workers]] if self.runner in _PORTABLE else []
        return [_RUNNERS[self.runner], *workers]

    @property
    def sees_this_disk(self) -> bool:
        """Whether the workers are processes of the machine that a node runs on."""
        return self.runner == "direct" or (self.runner in _PORTABLE and self.workers == "loopback")


def _templates(choice: _Choice, values: Mapping[str, Any]) -> Iterator[str]:
    yield from choice.always
    for name, templates in choice.optional.items():
        if values[name] is not None:
            yield from templates


def _names(templates: tuple[str, ...]) -> Iterator[str]:
    for template in templates:
        yield from (name for _, name, _, _ in string.Formatter().parse(template) if name)
