"""Where the Beam nodes run: Beam's own flags, and checks that save a user a long wait.

What was seen on a real Flink 1.19 and Spark 3.5 in November 2026 stands beside each check.
"""

import contextlib
import difflib
import io
import os
import shutil
import socket
import urllib.parse
from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from errors import UserError
from surroundings import LOOPBACK

# By its whole name: with the short one newer Beams try Prism first, which they download.
_DIRECT_RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
_PROBE_SECONDS = 5.0
# Workers that are processes of somebody else's making, with this project already importable.
_WORKERS_WITHOUT_IMAGE = ("EXTERNAL", "PROCESS", "LOOPBACK")

Flag = Annotated[str, Field(pattern=r"^--[a-zA-Z]\w*(=.*)?$")]


class BeamError(UserError):
    """Beam could not run with these flags."""


class BeamSettings(BaseModel):
    """Beam's own flags, as the module `apache_beam.options.pipeline_options` defines them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline_args: tuple[Flag, ...] = Field(
        (),
        description="flags of Apache Beam, each --name or --name=value, such as "
        "--runner=FlinkRunner; []: Beam's runner in the node's own process",
    )

    @model_validator(mode="after")
    def _refuse_workers_that_lack_this_project(self) -> "BeamSettings":
        # Beam starts its own image then, in which each pickled function fails to import.
        if (
            not self.is_direct
            and self.value("environment_type") not in _WORKERS_WITHOUT_IMAGE
            and not (self.value("sdk_container_image") or self.value("environment_config"))
        ):
            raise ValueError(
                f"pipeline_args with --runner={self.value('runner')} start workers in containers: "
                "add --sdk_container_image=<image of `make image TARGET=beam`>, or choose other "
                "workers with --environment_type=PROCESS, EXTERNAL or LOOPBACK"
            )
        return self

    def value(self, name: str) -> str | None:
        """The value of a flag, the last one if it is repeated; None if it is not given."""
        values = [
            flag.partition("=")[2] for flag in self.pipeline_args if flag.startswith(f"--{name}=")
        ]
        return values[-1] if values else None

    @property
    def is_direct(self) -> bool:
        """Whether the nodes run Beam in their own process."""
        runner = self.value("runner") or _DIRECT_RUNNER
        return runner.endswith(("DirectRunner", "FnApiRunner"))

    @property
    def engine(self) -> str:
        """The address of the engine or its job server; "" if the flags have none."""
        addresses = map(self.value, ("flink_master", "spark_rest_url", "job_endpoint"))
        return next(filter(None, addresses), "")

    def notice(self) -> str:
        """A sentence on what a run with these flags depends on; "" for none."""
        if self.value("environment_type") != "EXTERNAL":
            return ""
        return (
            f"the worker pool {self.value('environment_config')} serves one job at a time: two "
            "jobs stop each other's workers"
        )

    @property
    def sees_this_disk(self) -> bool:
        """Whether the workers are processes of the machine that a node runs on."""
        return self.is_direct or self.value("environment_type") == "LOOPBACK"

    def arguments(self) -> list[str]:
        """The `beam_pipeline_args` of TFX: the flags, after those that every run needs."""
        needed = []
        if self.value("runner") is None:
            needed.append(f"--runner={_DIRECT_RUNNER}")
        if self.value("sdk_container_image") is None:
            # Without it TFX packages itself for the workers, at every node.
            needed.append("--sdk_container_image=unused")
        if not self.is_direct:
            # Otherwise Beam asks pip for a list of the installed packages, for its log.
            needed.append("--experiments=disable_logging_submission_environment")
        if not self.is_direct and self.value("environment_type") in ("PROCESS", "DOCKER"):
            # A worker waits for the next stage: 12 starts in place of 129 in three runs on Spark.
            # Not in a pool, which would stop another job's worker of the same id that much later.
            needed.append("--environment_cache_millis=60000")
        return [*needed, *self.pipeline_args]


def check_flags(beam: BeamSettings) -> None:
    """Refuses flags that Beam does not know or cannot read; imports Beam, which takes seconds.

    Beam itself drops an unknown flag with a warning, and the job runs without it.

    Raises:
      BeamError: with all such flags.
    """
    if beam.pipeline_args:
        _raise_if(list(_find_bad_flags(beam)))


def check_addresses(beam: BeamSettings) -> None:
    """Refuses addresses that nobody listens on, and jars and worker commands that are not there.

    Beam waits 60 s for a job server and then prints an empty line; for workers it waits longer.

    Raises:
      BeamError: with all such flags.
    """
    _raise_if(
        [*_find_missing_jars(beam), *_find_missing_command(beam), *_find_silent_addresses(beam)]
    )


def _raise_if(problems: list[str]) -> None:
    if problems:
        raise BeamError("; ".join(problems), where="beam.pipeline_args")


def _find_bad_flags(beam: BeamSettings) -> Iterator[str]:
    from apache_beam.options.pipeline_options import PipelineOptions

    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):  # 100 lines of usage
            options = PipelineOptions(list(beam.pipeline_args))
            known = options.get_all_options()
            given = options.get_all_options(drop_default=True, retain_unknown_options=True)
    except SystemExit:
        yield printed.getvalue().strip().rpartition("error: ")[2]
        return
    # A job server has flags of its own, which Beam asks it for.
    unknown = set(given) - set(known) if beam.value("runner") != "PortableRunner" else ()
    for name in sorted(unknown):
        [nearest] = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        yield f"Beam has no flag --{name}; the nearest is --{nearest}"


def _find_missing_jars(beam: BeamSettings) -> Iterator[str]:
    for name in ("flink_job_server_jar", "spark_job_server_jar"):
        jar = beam.value(name)
        if jar and "://" not in jar and not os.path.isfile(jar):
            yield f"--{name}={jar}: there is no such file"


def _find_missing_command(beam: BeamSettings) -> Iterator[str]:
    """Only where the engine is on this machine, for workers elsewhere have files of their own."""
    name, _, command = (beam.value("environment_options") or "").partition("=")
    is_here = beam.engine.rpartition("//")[2].startswith(LOOPBACK)
    if name == "process_command" and is_here and not shutil.which(command):
        yield f"--environment_options=process_command={command}: there is no such program"


def _find_silent_addresses(beam: BeamSettings) -> Iterator[str]:
    names = ["job_endpoint", "flink_master", "spark_rest_url"]
    if beam.value("environment_type") == "EXTERNAL":
        names.append("environment_config")
    for name in names:
        address = beam.value(name) or ""
        if address in ("", "[local]", "[auto]"):
            continue  # Flink starts a cluster of its own
        try:
            url = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
            port = url.port or (443 if url.scheme == "https" else 80)
            socket.create_connection((url.hostname or "", port), _PROBE_SECONDS).close()
        except ValueError as error:
            yield f"--{name}={address}: not an address ({error})"
        except OSError as error:
            yield f"--{name}={address}: nobody answers there ({error})"
