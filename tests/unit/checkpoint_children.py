"""What child processes do with checkpoints; in a module of its own, so that it can be pickled."""

import os
import resource
from multiprocessing.connection import Connection
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.gan.checkpoints import CheckpointError, Checkpoints

KEY = "0123456789abcdef"


def filled(value: int, size: int = 300) -> dict[str, tf.Variable]:
    return {
        "weights": tf.Variable(tf.fill([size], float(value))),
        "step": tf.Variable(value, dtype=tf.int64),
        "flag": tf.Variable(value % 2 == 1),
    }


def values(variables: dict[str, tf.Variable]) -> list[Any]:
    return [variable.numpy().tolist() for variable in variables.values()]


def send_error_of_save(connection: Connection, root: str, step: int, extra: dict) -> None:
    try:
        Checkpoints(root, KEY, filled(step, size=5000)).save(step, extra)
        connection.send("saved")
    except CheckpointError as error:
        connection.send(str(error))


def save_on_a_full_disk(connection: Connection, root: str, limit: int, extra: dict) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    send_error_of_save(connection, root, 2, extra)


def save_as_nobody(connection: Connection, root: str) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)
    send_error_of_save(connection, root, 2, {})


def save_forever(connection: Connection, root: str) -> None:
    variables = filled(0, size=20_000)
    checkpoints = Checkpoints(root, KEY, variables)
    found = checkpoints.restore()
    step = found[0] if found else 0
    connection.send(step)
    while True:
        step += 1
        for name, variable in filled(step, size=20_000).items():
            variables[name].assign(variable)
        checkpoints.save(step, {"seconds": step / 3})
        connection.send(step)


def on_two_replicas(connection: Connection, root: str) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_visible_devices([], "GPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    def made(value: int) -> dict[str, tf.Variable]:
        with strategy.scope():
            variables = filled(value)
            variables["keras"] = keras.Variable(np.full([2], value, np.float32)).value
            return variables

    Checkpoints(root, KEY, made(5)).save(5, {})
    variables = made(0)
    Checkpoints(root, KEY, variables).restore()
    replicas = [
        [replica.numpy().tolist() for replica in strategy.experimental_local_results(variable)]
        for variable in variables.values()
    ]
    expected = [[value, value] for value in values(made(5))]
    connection.send("all set" if replicas == expected else str(replicas))
