"""Copies a blessed model beside its destination, verifies it, and renames it into place."""

import datetime
import hashlib
import json
import os
import shutil
import tempfile
import time
from typing import Any

from absl import logging
from google.protobuf import json_format
from tfx.components.pusher import executor as tfx_pusher
from tfx.types import artifact_utils
from tfx.v1 import proto

_RECORD = os.path.join("assets.extra", "push.json")
_STAGING_PREFIX = ".incoming-"


class PushError(RuntimeError):
    """The copy of a model is not what was to be pushed."""


class Executor(tfx_pusher.Executor):
    """Pushes into `<base_directory>/<version>/`, on local file systems.

    TensorFlow Serving watches `base_directory` for folders whose names are numbers. A version is
    copied under a name that is none, verified, and renamed, so it appears whole or not at all.
    """

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model when all its blessings say so.

        A model that is the newest version already is not pushed again, so a push that was killed
        before it was recorded is not repeated.

        Args:
          input_dict: `model`, and optionally `model_blessing` and `infra_blessing`.
          output_dict: `pushed_model`, one PushedModel.
          exec_properties: `push_destination`, a PushDestination as JSON.

        Raises:
          PushError: when the copy differs from the model.
        """
        pushed_model = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed_model)
            return
        destination = proto.PushDestination()
        json_format.Parse(exec_properties["push_destination"], destination)
        model_dir = self.GetModelPath(input_dict)
        version = push(model_dir, destination.filesystem.base_directory)
        shutil.copytree(model_dir, pushed_model.uri, dirs_exist_ok=True)
        path = os.path.join(destination.filesystem.base_directory, str(version))
        self._MarkPushed(pushed_model, pushed_destination=path, pushed_version=str(version))
        logging.info("Pushed version %d to %s", version, path)


def push(model_dir: str, base_directory: str) -> int:
    """Makes a model the newest version, unless it is that already.

    Args:
      model_dir: a SavedModel.
      base_directory: the folder that TensorFlow Serving watches; created when missing.

    Returns:
      The version: seconds since 1970, or one more than the newest version if that is later.

    Raises:
      PushError: when the copy differs from the model.
    """
    os.makedirs(base_directory, exist_ok=True)
    _remove_leftovers(base_directory)
    fingerprint = _fingerprint(model_dir)
    newest = max(list_versions(base_directory), default=0)
    if newest and _pushed_fingerprint(base_directory, newest) == fingerprint:
        logging.info("Version %d is this model already", newest)
        return newest
    version = max(int(time.time()), newest + 1)
    staging = tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=base_directory)
    os.chmod(staging, 0o755)
    shutil.copytree(model_dir, staging, dirs_exist_ok=True)
    if _fingerprint(staging) != fingerprint:
        raise PushError(f"the copy of {model_dir} in {staging} differs from it; is the disk sound?")
    _write_record(staging, fingerprint)
    os.rename(staging, os.path.join(base_directory, str(version)))
    return version


def list_versions(base_directory: str) -> list[int]:
    """The versions that TensorFlow Serving would see, ascending."""
    if not os.path.isdir(base_directory):
        return []
    return sorted(int(name) for name in os.listdir(base_directory) if name.isdecimal())


def _fingerprint(directory: str) -> str:
    """SHA-256 over the relative path and the bytes of every file."""
    digest = hashlib.sha256()
    paths = [os.path.join(root, name) for root, _, names in os.walk(directory) for name in names]
    for path in sorted(paths):
        with open(path, "rb") as file:
            content = file.read()
        digest.update(f"{os.path.relpath(path, directory)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _write_record(staging: str, fingerprint: str) -> None:
    path = os.path.join(staging, _RECORD)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    with open(path, "w") as file:
        json.dump({"model_fingerprint": fingerprint, "pushed_at": now}, file, indent=2)


def _pushed_fingerprint(base_directory: str, version: int) -> str | None:
    try:
        with open(os.path.join(base_directory, str(version), _RECORD)) as file:
            return json.load(file)["model_fingerprint"]
    except FileNotFoundError:
        return None


def _remove_leftovers(base_directory: str) -> None:
    for name in os.listdir(base_directory):
        if name.startswith(_STAGING_PREFIX):
            shutil.rmtree(os.path.join(base_directory, name))
