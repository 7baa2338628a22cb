"""Checkpoints of a training: only intact ones of the same training are restored.

    root/key/0000012-step-0001234/state.index     the variables, in TensorFlow's own format
                                  state.data-*
                                  manifest.json   the step, and the digests of the files above

The first number counts the saves. The manifest is written last and renamed into place, so a folder
without a manifest was left by a killed process. No folder is ever renamed, because that is not
atomic on object stores. One process at a time may save under a key.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import storage
from errors import UserError
from parsing import parse_json

_FORMAT = 3
_STATE = "state"
MANIFEST = "manifest.json"
FINISHED = "finished"  # beside the checkpoints of a training that is complete
_PARTIAL_MANIFEST = "partial-manifest.json"
_FOLDER = re.compile(r"(\d+)-step-\d+")
_OPERATION = re.compile(r"^\{\{[^}]*\}\} | \[Op:\w+\]$")  # around TensorFlow's messages
_CHUNK_BYTES = 1 << 20
_log = logging.getLogger("mnist_gan.progress")


class CheckpointError(UserError):
    """A checkpoint cannot be saved or restored."""

    exit_status = 1


class BrokenStateError(Exception):
    """A folder holds no intact state; the message says why."""


def checkpoint_key(settings: dict[str, Any], images: np.ndarray, labels: np.ndarray) -> str:
    """Identifies the training that a checkpoint belongs to.

    Args:
      settings: everything that the result depends on, as JSON values.
      images: an array of any shape and numeric type.
      labels: an array of any shape and numeric type.

    Returns:
      16 hexadecimal digits. They depend on the settings, the data, the versions of TensorFlow and
      Keras, and the format of the checkpoints.

    Raises:
      TypeError: if the settings are not JSON values.
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
      directory: the folder of the checkpoints, `root/key`.
    """

    def __init__(
        self, root: str, key: str, variables: Mapping[str, tf.Variable], keep: int = 2
    ) -> None:
        """Opens no file.

        Args:
          root: a local folder or a URI that `storage.py` reads; created by the first save.
          key: from `checkpoint_key`.
          variables: the state, by any names; of a Keras variable, its `value`.
          keep: how many checkpoints a save keeps, 1 or more.

        Raises:
          ValueError: if `keep` is less than 1, or a variable has two names.
        """
        if keep < 1:
            raise ValueError(f"keep must be 1 or more, not {keep}")
        if len({id(variable) for variable in variables.values()}) < len(variables):
            raise ValueError("a variable of the checkpoint has two names")
        self.directory = f"{root.rstrip('/')}/{key}"
        self._variables = dict(variables)
        self._keep = keep
        self._broken: set[str] = set()

    def save(self, step: int, extra: Mapping[str, Any]) -> None:
        """Saves the variables, then removes all but the `keep` newest checkpoints.

        If the save fails, the earlier checkpoints stay.

        Args:
          step: updates so far.
          extra: returned by `restore`; JSON values.

        Raises:
          CheckpointError: if a file cannot be written, for example on a full disk.
          TypeError: if `extra` is not JSON values.
        """
        try:
            folders = self._folders()
            complete = [name for name in folders if self._is_complete(name)]
            for name in folders:
                if name not in complete:
                    _remove(f"{self.directory}/{name}")
            number = _number(folders[-1]) + 1 if folders else 1
            new = f"{number:07d}-step-{step:07d}"
            self._write(f"{self.directory}/{new}", step, extra)
        except (OSError, tf.errors.OpError) as error:
            raise CheckpointError(
                f"cannot save the checkpoint of step {step}: {_reason(error)}",
                self.directory,
                "free some space or check the permissions, and start the same run again: it "
                "resumes from the newest checkpoint",
            ) from error
        for name in [*complete, new][: -self._keep]:
            _remove(f"{self.directory}/{name}")

    def restore(self) -> tuple[int, dict[str, Any]] | None:
        """Sets all variables to the newest intact checkpoint.

        Each newer checkpoint that is damaged is skipped with a warning and removed by the next
        save. If the restore fails, no variable has changed.

        Returns:
          The step and `extra` of `save`; None if there is no intact checkpoint.

        Raises:
          CheckpointError: if the folder cannot be listed or read, or the names, types or shapes of
            the variables in an intact checkpoint differ.
        """
        for name in reversed(self._listed()):
            folder = f"{self.directory}/{name}"
            try:
                with storage.local_copy(folder) as copy:
                    content, values = read_state(copy)
            except BrokenStateError as error:
                _log.warning(f"skipping the damaged checkpoint {folder}: {error}")
                self._broken.add(name)
                continue
            except OSError as error:
                raise CheckpointError(
                    f"cannot read the checkpoint: {_reason(error)}",
                    folder,
                    "make it readable and start the same run again: it resumes from there",
                ) from error
            self._check(folder, values)
            for variable_name, variable in self._variables.items():
                variable.assign(values[variable_name])
            return content["step"], content["extra"]
        return None

    def clear(self) -> None:
        """Removes this key's checkpoints, once the training is complete.

        Raises:
          CheckpointError: if the folder cannot be listed.
        """
        for name in self._listed():
            _remove(f"{self.directory}/{name}")
        _remove(self.directory)

    def mark_finished(self) -> None:
        """Marks that the training is complete, for whoever records its result and then clears."""
        try:
            storage.write(f"{self.directory}/{FINISHED}", b"")
        except OSError as error:
            _log.warning(f"cannot mark {self.directory} as finished: {_reason(error)}")

    def _folders(self) -> list[str]:
        """The checkpoints' names, oldest first; none if the directory does not exist."""
        return sorted(filter(_FOLDER.fullmatch, storage.names_in(self.directory)), key=_number)

    def _listed(self) -> list[str]:
        try:
            return self._folders()
        except (OSError, tf.errors.OpError) as error:
            raise CheckpointError(
                f"cannot list the checkpoints: {_reason(error)}",
                self.directory,
                "make it a readable folder",
            ) from error

    def _is_complete(self, name: str) -> bool:
        return name not in self._broken and storage.exists(f"{self.directory}/{name}/{MANIFEST}")

    def _write(self, folder: str, step: int, extra: Mapping[str, Any]) -> None:
        """Writes a checkpoint, or nothing if that fails."""
        try:
            with storage.new_folder(folder, last=MANIFEST) as target:
                write_state(target, self._variables, step, extra)
            _sync(self.directory)
        except BaseException:
            _remove(folder)
            raise

    def _check(self, folder: str, values: Mapping[str, np.ndarray]) -> None:
        mismatch = find_mismatch(values, self._variables)
        if mismatch:
            raise CheckpointError(
                f"the checkpoint holds {mismatch}",
                folder,
                f"remove {self.directory} to train from the start",
            )


def write_state(
    folder: str, variables: Mapping[str, tf.Variable], step: int, extra: Mapping[str, Any]
) -> None:
    """Writes variables into an existing, empty folder, the manifest last.

    Args:
      folder: a folder that TensorFlow can write.
      variables: by name.
      step: updates so far.
      extra: returned by `read_state`; JSON values.

    Raises:
      OSError, tf.errors.OpError: if a file cannot be written.
      TypeError: if `extra` is not JSON values.
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


def find_mismatch(
    values: Mapping[str, np.ndarray], variables: Mapping[str, tf.Variable]
) -> str | None:
    """Describes a variable that differs from a state in type or shape; None if all are equal."""
    for name in sorted(values.keys() | variables.keys()):
        found = _signature(values[name].dtype, values[name].shape) if name in values else "nothing"
        variable = variables.get(name)
        expected = "nothing"
        if variable is not None:
            expected = _signature(variable.dtype.as_numpy_dtype, variable.shape)
        if found != expected:
            return f"{found} for the variable {name}, where this training has {expected}"
    return None


def read_state(folder: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads a folder that `write_state` wrote.

    Args:
      folder: a folder that TensorFlow can read.

    Returns:
      The manifest's content, with `step` and `extra`; and the variables' values by name.

    Raises:
      BrokenStateError: if a file is missing or has changed.
    """
    try:
        content = _read_manifest(folder)
        for name, (size, digest) in content["files"].items():
            found = _size_and_digest(f"{folder}/{name}")
            if found[0] != size:
                raise BrokenStateError(f"{name} has {found[0]} bytes of {size}")
            if found[1] != digest:
                raise BrokenStateError(f"{name} has changed: its SHA-256 differs")
        reader = tf.train.load_checkpoint(f"{folder}/{_STATE}")
        values = {
            name: np.asarray(reader.get_tensor(f"values/{index}/.ATTRIBUTES/VARIABLE_VALUE"))
            for index, name in enumerate(content["variables"])
        }
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise BrokenStateError(_reason(error)) from error
    return content, values


def _manifest(content: dict[str, Any]) -> str:
    content = json.loads(json.dumps(content))  # with text as keys, as it will be read
    return json.dumps({"sha256": _sha256(content), "content": content}, indent=1)


def _read_manifest(folder: str) -> dict[str, Any]:
    try:
        with tf.io.gfile.GFile(f"{folder}/{MANIFEST}", "rb") as file:
            written = file.read()
    except tf.errors.NotFoundError as error:
        raise BrokenStateError(f"it has no {MANIFEST}: the save was interrupted") from error
    try:
        manifest = parse_json(written)
        content, digest = manifest["content"], manifest["sha256"]
    except (ValueError, LookupError, TypeError) as error:
        raise BrokenStateError(f"{MANIFEST} is not a manifest: {error}") from error
    if _sha256(content) != digest:
        raise BrokenStateError(f"{MANIFEST} has changed: its SHA-256 differs")
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


def _signature(dtype: Any, shape: Any) -> str:
    return f"{np.dtype(dtype).name} {list(shape)}"


def _reason(error: Exception) -> str:
    text = str(getattr(error, "message", None) or error) or type(error).__name__
    return _OPERATION.sub("", text)


def _sync(path: str) -> None:
    """Waits until a local file or folder is on the disk."""
    if storage.is_local(path):
        storage.sync(path)


def _remove(folder: str) -> None:
    try:
        storage.remove(folder)
    except (OSError, tf.errors.OpError) as error:
        _log.warning(f"cannot remove {folder}: {_reason(error)}")
