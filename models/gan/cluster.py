"""The processes that train together: their addresses, and waiting until each one answers."""

import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from errors import UserError
from parsing import parse_json

PORT = 2222  # of a worker in a JobSet; Kubeflow's training operator names it in TF_CONFIG
_TRAINING_JOBS = ("chief", "worker")
# Kubeflow Trainer sets these for a runtime with `mlPolicy.jax`. The coordinator is the first pod.
_COUNT, _INDEX, _FIRST = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_COORDINATOR_ADDRESS"
_FIRST_HOST = re.compile(r"(?P<name>[^.:]+)-0(?P<domain>\.[^:]+)(:\d+)?", re.ASCII)
_EXAMPLE = (
    '{"cluster": {"worker": ["host:port", "host:port"]}, "task": {"type": "worker", "index": 0}}'
)
_CONNECT_SECONDS = 2.0
_RETRY_SECONDS = 0.5
_LOG_SECONDS = 30.0

_log = logging.getLogger("mnist_gan.progress")


class ClusterError(UserError):
    """`TF_CONFIG` or the environment of a JobSet does not describe workers."""


class MissingWorkerError(UserError):
    """A worker did not answer in time."""

    exit_status = 1


@dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Attributes:
      jobs: the addresses `host:port` of each job of TensorFlow's cluster, `chief` or `worker`.
      job: this process's.
      index: this process's, in the job's addresses.
    """

    jobs: dict[str, list[str]]
    job: str
    index: int

    @property
    def addresses(self) -> list[str]:
        """Of all processes that train, the one that writes files first."""
        return [address for job in _TRAINING_JOBS for address in self.jobs.get(job, [])]

    @property
    def own_address(self) -> str:
        """Of this process."""
        return self.jobs[self.job][self.index]

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.own_address == self.addresses[0]

    def tf_config(self) -> str:
        """The value of `TF_CONFIG` for this process."""
        task = {"type": self.job, "index": self.index}
        return json.dumps({"cluster": self.jobs, "task": task})


def read_cluster(environ: Mapping[str, str]) -> Cluster | None:
    """Reads which processes train together.

    Args:
      environ: `TF_CONFIG` counts if it is set, else the variables that Kubeflow Trainer sets.

    Returns:
      The cluster; None if this process trains alone.

    Raises:
      ClusterError: if the variables do not fit together.
    """
    cluster = None
    if environ.get("TF_CONFIG"):
        cluster = _from_tf_config(environ["TF_CONFIG"])
    elif environ.get(_COUNT):
        cluster = _from_job_set(environ)
    return cluster if cluster and len(cluster.addresses) > 1 else None


def _from_tf_config(text: str) -> Cluster | None:
    def wrong(what: str) -> ClusterError:
        return ClusterError(what, "TF_CONFIG", f"expected {_EXAMPLE}")

    try:
        content = parse_json(text)
    except ValueError as error:
        raise wrong(f"it is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise wrong("it is no mapping")
    jobs, task = content.get("cluster") or {}, content.get("task") or {}
    if not isinstance(jobs, dict) or not isinstance(task, dict):
        raise wrong("cluster and task have to be mappings")
    for name, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(_is_address(each) for each in addresses):
            raise wrong(f"cluster.{name} has to be a list of addresses")
    job, index = task.get("type"), task.get("index")
    if sum(len(jobs.get(name, [])) for name in _TRAINING_JOBS) < 2 or job == "evaluator":
        return None
    if job not in _TRAINING_JOBS or type(index) is not int:
        raise wrong("task.type has to be chief or worker, and task.index an integer")
    if not 0 <= index < len(jobs.get(job, [])):
        raise wrong(f"task.index = {index} is not in cluster.{job}")
    return Cluster(jobs, job, index)


def _is_address(value: object) -> bool:
    if not isinstance(value, str):
        return False
    host, _, port = value.rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and int(port) < 1 << 16


def _from_job_set(environ: Mapping[str, str]) -> Cluster:
    values = {name: environ.get(name, "") for name in (_COUNT, _INDEX, _FIRST)}
    found = _FIRST_HOST.fullmatch(values[_FIRST])
    numbers = [values[_COUNT], values[_INDEX]]
    is_number = all(each.isascii() and each.isdigit() and len(each) < 6 for each in numbers)
    if not found or not is_number or not int(numbers[1]) < int(numbers[0]):
        given = ", ".join(f"{name}={value}" for name, value in values.items())
        raise ClusterError(
            f"{given} does not name the workers",
            "the environment of Kubeflow Trainer",
            "use the TrainingRuntime of deploy/trainjob.yaml, or set TF_CONFIG",
        )
    count, index = map(int, numbers)
    hosts = [f"{found['name']}-{number}{found['domain']}:{PORT}" for number in range(count)]
    return Cluster({"worker": hosts}, "worker", index)


def wait_for_workers(cluster: Cluster, seconds: float) -> None:
    """Waits until a connection to each other worker can be made.

    TensorFlow waits by itself, but for an hour, without a message, and ignores signals meanwhile.
    Until all workers answer, this process listens at its own port, where TensorFlow listens later.

    Args:
      cluster: the workers.
      seconds: to wait.

    Raises:
      MissingWorkerError: if a worker does not answer in time.
      ClusterError: if this process cannot listen at its own address.
    """
    search = _Search(address for address in cluster.addresses if address != cluster.own_address)
    until, interval = time.monotonic() + seconds, _CONNECT_SECONDS
    with _listening(int(cluster.own_address.rpartition(":")[2])):
        search.start()
        while not search.ended.wait(max(0.0, min(interval, until - time.monotonic()))):
            state = f"{len(search.missing)} of {len(cluster.addresses)} workers"
            named = ", ".join(search.missing[:3]) + (" and more" if search.missing[3:] else "")
            if time.monotonic() >= until:
                search.ended.set()
                raise MissingWorkerError(
                    f"{state} did not answer in {seconds:g} s: {named}",
                    fix="see why their pods do not start, or raise --worker-timeout",
                )
            _log.info(f"waiting for {state}: {named}")
            interval = _LOG_SECONDS


class _Search(threading.Thread):
    """Connects to addresses until each has answered.

    In a thread of its own: signal handlers do not run while the main thread looks up a name.
    """

    def __init__(self, addresses: Iterable[str]) -> None:
        super().__init__(daemon=True)
        self.missing = list(addresses)
        self.ended = threading.Event()

    def run(self) -> None:
        while self.missing and not self.ended.is_set():
            self.missing = [address for address in self.missing if not _answers(address)]
            if self.missing:
                self.ended.wait(_RETRY_SECONDS)
        self.ended.set()


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server(("", port))
    except OSError as error:
        raise ClusterError(
            f"cannot listen at port {port}: {error.strerror}",
            "TF_CONFIG",
            "name an address of this machine whose port is free",
        ) from None


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, UnicodeError):  # of a label that is too long
        return False
    return True
