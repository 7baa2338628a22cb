"""Pushes a blessed model so that a server never sees half of it."""

import json
import os
import tempfile
from typing import Any

from absl import logging
from google.protobuf import json_format
from tfx.components.pusher import executor as tfx_pusher
from tfx.types import artifact_utils
from tfx.utils import io_utils
from tfx.v1 import proto
from tfx.v1.dsl.io import fileio

from components.data_blessing import statistics_files
from components.pusher.model_card import card_files
from components.pusher.object_store import is_object_store, push_objects
from components.pusher.versions import RolledBackError, push_files


class Executor(tfx_pusher.Executor):
    """Pushes into `<base_directory>/<version>/`; see `versions.py` and `object_store.py`."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model when all its blessings say so.

        A model that is the newest version already is not pushed again, so a push that was killed
        before it was recorded is not repeated. Nor is one that was rolled back from.

        Args:
          input_dict: `model`, and optionally `model_blessing`, `infra_blessing` and
            `data_blessing`.
          output_dict: `pushed_model`, one PushedModel.
          exec_properties: `push_destination`, a PushDestination as JSON; optionally
            `custom_config`, JSON with `keep_versions`.

        Raises:
          PushError: when the copy differs from the model.
        """
        pushed_model = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed_model)
            return
        destination = proto.PushDestination()
        json_format.Parse(exec_properties["push_destination"], destination)
        base = destination.filesystem.base_directory
        options = json.loads(exec_properties.get("custom_config") or "null") or {}
        extra = card_files(_read_evaluation(input_dict)) | _data_statistics(input_dict)
        with tempfile.TemporaryDirectory() as folder:
            model_dir = _local(self.GetModelPath(input_dict), folder)
            try:
                if is_object_store(base):
                    version = push_objects(model_dir, base, extra)
                else:
                    keep = options.get("keep_versions")
                    version = push_files(model_dir, base, extra_files=extra, keep_versions=keep)
            except RolledBackError as error:
                logging.warning("Not pushed: %s", error)
                pushed_model.set_string_custom_property("not_pushed_because", str(error))
                self._MarkNotPushed(pushed_model)
                return
            path = os.path.join(base, str(version))
            # With its record, so that a version that is lost can be restored.
            io_utils.copy_dir(model_dir if is_object_store(base) else path, pushed_model.uri)
        self._MarkPushed(pushed_model, pushed_destination=path, pushed_version=str(version))
        logging.info("Pushed version %d to %s", version, path)


def _local(model_dir: str, folder: str) -> str:
    """The model's folder, downloaded where it is a URI."""
    if not is_object_store(model_dir):
        return model_dir
    target = os.path.join(folder, "model")
    io_utils.copy_dir(model_dir, target)
    return target


def _data_statistics(input_dict: dict[str, list[Any]]) -> dict[str, bytes]:
    """The statistics of the model's data, by path relative to the version."""
    return {
        f"assets.extra/{path}": content
        for blessing in input_dict.get("data_blessing") or []
        for path, content in statistics_files(blessing).items()
    }


def _read_evaluation(input_dict: dict[str, list[Any]]) -> dict[str, Any] | None:
    """The evaluation that the blessing carries, if it does."""
    for blessing in input_dict.get("model_blessing") or []:
        path = os.path.join(blessing.uri, "evaluation.json")
        if fileio.exists(path):
            with fileio.open(path) as file:
                return json.load(file)
    return None
