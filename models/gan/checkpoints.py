"""Checkpoints of a training: whole or passed over, and only ever of the same training.

    root/key/0000012-step-0001234/state.index     the variables, in TensorFlow's own format
                                  state.data-*
                                  manifest.json   the step, and the digests of the files above

The first number counts the saves. The manifest is written last and renamed into place, so a folder
without one is what a killed process left. Nothing depends on renaming a folder, which is no single
act on object stores. One process at a time may save under a key.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import storage

_FORMAT = 2
_STATE = "state"
MANIFEST = "manifest.json"
_PARTIAL_MANIFEST = "partial-manifest.json"
_FOLDER = re.compile(r"(\d+)-step-\d+")
_OPERATION = re.compile(r"^\{\{[^}]*\}\} | \[Op:\w+\]$")  # around TensorFlow's reasons
_CHUNK_BYTES = 1 << 20
_log = logging.getLogger("mnist_gan.progress")


class CheckpointError(RuntimeError):
    """A checkpoint cannot be saved or restored, and why."""


class BrokenStateError(Exception):
    """A folder holds no whole state, and why."""


def checkpoint_key(settings: dict[str, Any], images: np.ndarray, labels: np.ndarray) -> str:
    """Names the training that a checkpoint belongs to.

    Args:
      settings: whatever the result depends on; what JSON can hold.
      images: the data, of any shape and numeric type.
      labels: likewise.

    Returns:
      16 hexadecimal digits that differ when a setting, the data, TensorFlow's or Keras' version,
      or the format of the checkpoints does.

    Raises:
      TypeError: when JSON cannot hold the settings.
    """
    arrays = [np.ascontiguousarray(array) for array in (images, labels)]
    head = {
        "format": _FORMAT,
        "versions": [tf.__version__, keras.__version__],
        "settings": settings,
        "arrays": [[array.dtype.str, array.shape] for array in arrays],
    }
    digest = hashlib.sha256(_canonical(head))
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


class Checkpoints:
    """The newest checkpoints of one training.

    Attributes:
      directory: where they lie, `root/key`.
    """

    def __init__(
        self, root: str, key: str, variables: Mapping[str, tf.Variable], keep: int = 2
    ) -> None:
        """Touches no file.

        Args:
          root: a local folder or a URI that `storage.py` knows; made when needed.
          key: from `checkpoint_key`.
          variables: the state, by any names; of a Keras variable, its `value`.
          keep: how many checkpoints to leave after a save.

        Raises:
          ValueError: when `keep` is less than 1, or a variable has two names.
        """
        if keep < 1:
            raise ValueError(f"keep must be 1 or more, not {keep}")
        if len({id(variable) for variable in variables.values()}) < len(variables):
            raise ValueError("a variable to be checkpointed has two names")
        self.directory = f"{root.rstrip('/')}/{key}"
        self._variables = dict(variables)
        self._keep = keep
        self._broken: set[str] = set()

    def save(self, step: int, extra: Mapping[str, Any]) -> None:
        """Saves the variables, then removes all but the newest checkpoints.

        Args:
          step: updates done so far.
          extra: whatever else to hand back; what JSON can hold.

        Raises:
          CheckpointError: when that fails, as on a full disk; the former checkpoints stay.
          TypeError: when JSON cannot hold `extra`; likewise.
        """
        try:
            folders = self._folders()
            whole = [name for name in folders if self._is_complete(name)]
            for name in folders:
                if name not in whole:
                    _remove(f"{self.directory}/{name}")
            number = _number(folders[-1]) + 1 if folders else 1
            new = f"{number:07d}-step-{step:07d}"
            self._write(f"{self.directory}/{new}", step, extra)
        except (OSError, tf.errors.OpError) as error:
            raise CheckpointError(
                f"cannot save the checkpoint of step {step} in {self.directory}: {_reason(error)}. "
                "Make room there or see who may write to it, and start the same run again: it "
                "goes on from the newest checkpoint that was saved."
            ) from error
        for name in [*whole, new][: -self._keep]:
            _remove(f"{self.directory}/{name}")

    def restore(self) -> tuple[int, dict[str, Any]] | None:
        """Sets the variables to the newest whole checkpoint, all of them or none.

        Logs a warning for each newer one that is not whole; they stay until the next save.

        Returns:
          The step and the `extra` that `save` was given, as JSON holds it; None when there is no
          whole checkpoint.

        Raises:
          CheckpointError: when the folder cannot be listed or read, or a whole checkpoint holds
            other variables than these.
        """
        for name in reversed(self._listed()):
            folder = f"{self.directory}/{name}"
            try:
                with storage.local_copy(folder) as place:
                    content, values = read_state(place)
            except BrokenStateError as error:
                _log.warning(f"passing over the checkpoint {folder}: {error}")
                self._broken.add(name)
                continue
            except OSError as error:
                raise CheckpointError(
                    f"cannot read the checkpoint {folder}: {_reason(error)}. Start the same run "
                    "again once it can be read: it goes on from there."
                ) from error
            self._check(folder, values)
            for variable_name, variable in self._variables.items():
                variable.assign(values[variable_name])
            return content["step"], content["extra"]
        return None

    def clear(self) -> None:
        """Removes this key's checkpoints, for when the training is complete.

        Raises:
          CheckpointError: when the folder cannot be listed.
        """
        for name in self._listed():
            _remove(f"{self.directory}/{name}")
        _remove(self.directory)

    def _folders(self) -> list[str]:
        """The checkpoints' names, oldest first; none when the directory is not there."""
        return sorted(filter(_FOLDER.fullmatch, storage.names_in(self.directory)), key=_number)

    def _listed(self) -> list[str]:
        try:
            return self._folders()
        except (OSError, tf.errors.OpError) as error:
            raise CheckpointError(
                f"cannot look for checkpoints in {self.directory}: {_reason(error)}. "
                "It must be a folder that can be read."
            ) from error

    def _is_complete(self, name: str) -> bool:
        return name not in self._broken and storage.exists(f"{self.directory}/{name}/{MANIFEST}")

    def _write(self, folder: str, step: int, extra: Mapping[str, Any]) -> None:
        """Writes a checkpoint, or removes what it has written of it."""
        try:
            with storage.new_folder(folder, last=MANIFEST) as place:
                write_state(place, self._variables, step, extra)
            _sync(self.directory)
        except BaseException:
            _remove(folder)
            raise

    def _check(self, folder: str, values: Mapping[str, np.ndarray]) -> None:
        misfit = find_misfit(values, self._variables)
        if misfit:
            raise CheckpointError(
                f"the checkpoint {folder} holds {misfit}. Remove {self.directory} to start anew."
            )


def write_state(
    folder: str, variables: Mapping[str, tf.Variable], step: int, extra: Mapping[str, Any]
) -> None:
    """Writes variables into a folder that is there and empty, the manifest last.

    Args:
      folder: where TensorFlow writes.
      variables: by name.
      step: updates done so far.
      extra: whatever else to keep; what JSON can hold.

    Raises:
      OSError, tf.errors.OpError: when that fails.
      TypeError: when JSON cannot hold `extra`.
    """
    tf.train.Checkpoint(values=list(variables.values())).write(f"{folder}/{_STATE}")
    files = sorted(tf.io.gfile.listdir(folder))
    content = {
        "step": step,
        "extra": dict(extra),
        "variables": list(variables),
        "files": {name: _size_and_digest(f"{folder}/{name}") for name in files},
    }
    with tf.io.gfile.GFile(f"{folder}/{_PARTIAL_MANIFEST}", "w") as file:
        file.write(_manifest(content))
    for path in [*files, _PARTIAL_MANIFEST]:
        _sync(f"{folder}/{path}")
    tf.io.gfile.rename(f"{folder}/{_PARTIAL_MANIFEST}", f"{folder}/{MANIFEST}")
    _sync(folder)


def find_misfit(
    values: Mapping[str, np.ndarray], variables: Mapping[str, tf.Variable]
) -> str | None:
    """Says in which variable a state differs in type or shape; None where it fits."""
    for name in sorted(values.keys() | variables.keys()):
        held = _kind(values[name].dtype, values[name].shape) if name in values else "nothing"
        variable = variables.get(name)
        wanted = "nothing"
        if variable is not None:
            wanted = _kind(variable.dtype.as_numpy_dtype, variable.shape)
        if held != wanted:
            return f"{held} for the variable {name}, where this training has {wanted}"
    return None


def read_state(folder: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads what `write_state` wrote.

    Args:
      folder: where TensorFlow reads.

    Returns:
      What it was given, with `step` and `extra`; and the variables' values by name.

    Raises:
      BrokenStateError: when anything in it is missing or not what was written.
    """
    try:
        content = _read_manifest(folder)
        for name, (size, digest) in content["files"].items():
            found = _size_and_digest(f"{folder}/{name}")
            if found[0] != size:
                raise BrokenStateError(f"{name} has {found[0]} bytes of {size}")
            if found[1] != digest:
                raise BrokenStateError(f"{name} is not what was written: its SHA-256 differs")
        reader = tf.train.load_checkpoint(f"{folder}/{_STATE}")
        values = {
            name: np.asarray(reader.get_tensor(f"values/{index}/.ATTRIBUTES/VARIABLE_VALUE"))
            for index, name in enumerate(content["variables"])
        }
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise BrokenStateError(_reason(error)) from error
    return content, values


def _manifest(content: dict[str, Any]) -> str:
    content = json.loads(json.dumps(content))  # with text for keys, as it will be read
    return json.dumps({"sha256": _sha256(content), "content": content}, indent=1)


def _read_manifest(folder: str) -> dict[str, Any]:
    try:
        with tf.io.gfile.GFile(f"{folder}/{MANIFEST}", "rb") as file:
            written = file.read()
    except tf.errors.NotFoundError as error:
        raise BrokenStateError(f"it has no {MANIFEST}, as when a save is cut short") from error
    try:
        manifest = json.loads(written)
        content, digest = manifest["content"], manifest["sha256"]
    except (ValueError, LookupError, TypeError) as error:
        raise BrokenStateError(f"{MANIFEST} is not a manifest: {error}") from error
    if _sha256(content) != digest:
        raise BrokenStateError(f"{MANIFEST} is not what was written: its SHA-256 differs")
    return content


def _number(folder: str) -> int:
    return int(folder.split("-", maxsplit=1)[0])


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _sha256(content: Any) -> str:
    return hashlib.sha256(_canonical(content)).hexdigest()


def _size_and_digest(path: str) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size += len(chunk)
            digest.update(chunk)
    return size, digest.hexdigest()


def _kind(dtype: Any, shape: Any) -> str:
    return f"{np.dtype(dtype).name} {list(shape)}"


def _reason(error: Exception) -> str:
    text = str(getattr(error, "message", None) or error) or type(error).__name__
    return _OPERATION.sub("", text)


def _sync(path: str) -> None:
    """Waits until a local file or folder is on the disk, which `tf.io.gfile` cannot."""
    if "://" in path:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: str) -> None:
    try:
        storage.remove(folder)
    except (OSError, tf.errors.OpError) as error:
        _log.warning(f"cannot remove {folder}: {_reason(error)}")
