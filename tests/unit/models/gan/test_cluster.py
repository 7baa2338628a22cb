"""Which processes train together, and waiting until each one answers."""

import json
import socket
import threading
import time
from typing import Any

import pytest

from models.gan.cluster import (
    Cluster,
    ClusterError,
    MissingWorkerError,
    read_cluster,
    wait_for_workers,
)

# As a worker of a TFJob and of a TrainJob has them; seen on a cluster: docs/scale.md.
OPERATOR = {
    "cluster": {"worker": ["mnist-gan-worker-0.ns.svc:2222", "mnist-gan-worker-1.ns.svc:2222"]},
    "task": {"type": "worker", "index": 1},
    "environment": "cloud",
}
JOB_SET = {
    "JAX_NUM_PROCESSES": "3",
    "JAX_PROCESS_ID": "2",
    "JAX_COORDINATOR_ADDRESS": "mnist-gan-node-0-0.mnist-gan:29500",
}
A, B = "127.0.0.1:1", "127.0.0.1:2"


def read(content: Any) -> Cluster | None:
    return read_cluster({"TF_CONFIG": content if isinstance(content, str) else json.dumps(content)})


def test_the_operators_workers():
    cluster = read(OPERATOR)
    assert cluster == Cluster({"worker": OPERATOR["cluster"]["worker"]}, "worker", 1)
    assert cluster.own_address == "mnist-gan-worker-1.ns.svc:2222"
    assert not cluster.is_chief


def test_a_job_sets_workers():
    cluster = read_cluster(JOB_SET)
    assert json.loads(cluster.tf_config()) == {
        "cluster": {"worker": [f"mnist-gan-node-0-{index}.mnist-gan:2222" for index in range(3)]},
        "task": {"type": "worker", "index": 2},
    }
    assert not cluster.is_chief
    assert read_cluster(JOB_SET | {"JAX_PROCESS_ID": "0"}).is_chief


def test_tf_config_counts_before_a_job_set():
    assert read_cluster(JOB_SET | {"TF_CONFIG": json.dumps(OPERATOR)}) == read(OPERATOR)


@pytest.mark.parametrize(
    "content",
    [
        "",
        {},
        {"cluster": None},
        {"cluster": {"worker": [A]}, "task": {"type": "worker", "index": 0}},
        {"cluster": {"worker": [A], "evaluator": [B]}, "task": {"type": "worker", "index": 0}},
        {"cluster": {"worker": [A, B]}, "task": {"type": "evaluator", "index": 0}},
    ],
)
def test_a_process_that_trains_alone(content):
    assert read(content) is None


def test_one_node_of_a_job_set_trains_alone():
    assert read_cluster(JOB_SET | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}) is None


def test_the_chief_comes_first():
    cluster = {"worker": [A], "chief": [B]}
    chief = read({"cluster": cluster, "task": {"type": "chief", "index": 0}})
    worker = read({"cluster": cluster, "task": {"type": "worker", "index": 0}})
    assert (chief.addresses, chief.is_chief, worker.is_chief) == ([B, A], True, False)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[" * 100_000,
        "[]",
        {"cluster": [A, B]},
        # What the operator's enableDynamicWorker hands out.
        {"cluster": {"worker": {"1": B}}, "task": {"type": "worker", "index": 1}},
        {"cluster": {"worker": [A, "no port"]}, "task": {"type": "worker", "index": 0}},
        {"cluster": {"worker": [A, 5]}, "task": {"type": "worker", "index": 0}},
        {"cluster": {"worker": [A, B]}},
        {"cluster": {"worker": [A, B]}, "task": {"type": "worker"}},
        {"cluster": {"worker": [A, B]}, "task": {"type": "worker", "index": "0"}},
        {"cluster": {"worker": [A, B]}, "task": {"type": "worker", "index": 2}},
        {"cluster": {"worker": [A, B]}, "task": {"type": "worker", "index": -1}},
        {"cluster": {"worker": [A, B]}, "task": {"type": "chief", "index": 0}},
    ],
)
def test_a_wrong_tf_config_is_bad_usage(content):
    with pytest.raises(ClusterError) as caught:
        read(content)
    assert (caught.value.where, caught.value.exit_status) == ("TF_CONFIG", 2)


@pytest.mark.parametrize(
    "changed",
    [
        {"JAX_NUM_PROCESSES": "three"},
        {"JAX_NUM_PROCESSES": "٣"},
        {"JAX_NUM_PROCESSES": "2"},
        {"JAX_PROCESS_ID": ""},
        {"JAX_PROCESS_ID": "-1"},
        {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:29500"},
        {"JAX_COORDINATOR_ADDRESS": "mnist-gan-node-0-1.mnist-gan:29500"},
        {"JAX_COORDINATOR_ADDRESS": ""},
    ],
)
def test_a_wrong_job_set_is_bad_usage(changed):
    with pytest.raises(ClusterError) as caught:
        read_cluster(JOB_SET | changed)
    assert caught.value.exit_status == 2


def free_addresses(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def test_workers_that_come_late_are_waited_for():
    addresses = free_addresses(3)
    left = []
    all_left = threading.Barrier(3)

    def start(index: int) -> None:
        time.sleep(index * 0.6)
        cluster = Cluster({"worker": addresses}, "worker", index)
        wait_for_workers(cluster, 30.0)
        # As TensorFlow's server does next.
        with socket.create_server(("", int(cluster.own_address.rpartition(":")[2]))):
            left.append(time.monotonic())
            all_left.wait(30.0)

    threads = [threading.Thread(target=start, args=[index]) for index in range(3)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(left) == 3
    assert min(left) - began >= 1.2  # when the last one came


def test_a_worker_that_never_comes():
    own, absent = free_addresses(2)
    cluster = Cluster({"worker": [own, absent, "no-such-host.invalid:2222"]}, "worker", 0)
    with pytest.raises(MissingWorkerError) as caught:
        wait_for_workers(cluster, 0.5)
    assert caught.value.exit_status == 1
    assert caught.value.what.startswith("2 of 3 workers")
    assert absent in caught.value.what


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        own = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError):
            wait_for_workers(Cluster({"worker": [own, B]}, "worker", 0), 30.0)
