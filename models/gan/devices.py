"""The devices of a training: workers and replicas, precision and compilation."""

import os
from typing import Any

import tensorflow as tf

from errors import UserError
from models.gan.cluster import read_cluster

_NVIDIA_DRIVER = "/proc/driver/nvidia/version"
_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def choose_strategy() -> tf.distribute.Strategy:
    """Chooses the workers in `TF_CONFIG`, else all GPUs of this machine, else one device.

    Raises:
      ClusterError: if `TF_CONFIG` names no workers in the form that TensorFlow expects.
    """
    if read_cluster(os.environ):
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one of all workers that writes files."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    leader = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (leader, 0)


class Workers:
    """The processes that train together, with the same number of replicas each.

    Attributes:
      is_chief: whether this process is the one that writes files.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        """Communicates nothing yet."""
        self._strategy = strategy
        self.is_chief = is_chief(strategy)

    def agree(self, *values: float) -> list[Any]:
        """Returns the mean of each value over all workers, in the type of the value.

        All workers have to call this with as many values. A single process gets its own values.
        """
        if not isinstance(self._strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return list(values)
        own = tf.constant([float(value) for value in values], tf.float64)
        means = self._sum(own).numpy() / self._strategy.num_replicas_in_sync
        return [type(value)(mean) for value, mean in zip(values, means, strict=True)]

    @tf.function
    def _sum(self, values: tf.Tensor) -> tf.Tensor:
        return self._strategy.reduce("SUM", self._strategy.run(tf.identity, [values]), axis=None)


def trains_on_cpu() -> bool:
    """Whether this machine has no GPU that TensorFlow can use."""
    return not tf.config.list_physical_devices("GPU")


def choose_precision(setting: str) -> str:
    """Returns the Keras dtype policy for `train.precision`.

    `auto` is bfloat16 on GPUs of compute capability 8 and above, float16 on those of 7, and
    float32 elsewhere.
    """
    if setting != "auto":
        return _POLICIES[setting]
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "float32"
    capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability")
    if capability is None or capability < (7, 0):
        return "float32"
    return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16"


def choose_xla(setting: str, replicas: int) -> bool:
    """Whether XLA compiles the update; `auto` is on one GPU only.

    On CPUs XLA's gradients of convolutions are many times slower: `docs/training.md`.

    Raises:
      UserError: if several replicas are to be compiled, which XLA cannot: their optimizers
        communicate within the update.
    """
    if setting == "on" and replicas > 1:
        raise UserError(
            f"XLA compiles the update of a single replica, and there are {replicas}",
            "train.xla = on",
            "set it to auto",
        )
    if setting != "auto":
        return setting == "on"
    return replicas == 1 and bool(tf.config.list_physical_devices("GPU"))


def describe_devices(precision: str, xla: str, replicas: int) -> str:
    """Describes the devices of a training for the log, such as "NVIDIA L4, mixed_bfloat16, XLA".

    Args:
      precision: `train.precision`.
      xla: `train.xla`.
      replicas: over all processes.
    """
    gpus = tf.config.list_physical_devices("GPU")
    name = "CPU"
    if gpus:
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    words = [f"{replicas} x {name}" if replicas > 1 else name, choose_precision(precision)]
    return ", ".join([*words, "XLA"] if choose_xla(xla, replicas) else words)


def has_idle_gpu() -> bool:
    """Whether there is an NVIDIA driver but no usable GPU, though no variable hides the GPUs."""
    return (
        os.path.exists(_NVIDIA_DRIVER)
        and "CUDA_VISIBLE_DEVICES" not in os.environ
        and not tf.config.list_physical_devices("GPU")
    )
