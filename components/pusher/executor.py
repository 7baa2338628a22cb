"""Pushes a blessed model so that a server never sees half of it."""

import json
import os
from typing import Any

from absl import logging
from google.protobuf import json_format
from tfx.components.pusher import executor as tfx_pusher
from tfx.types import artifact_utils
from tfx.v1 import proto

import storage
from components.data_blessing import statistics_contents
from components.run_id import run_id
from evaluation.verification import FOLDER
from registry.errors import RolledBackError
from registry.layout import VERIFICATION, list_versions, version_address
from registry.model_card import card_files
from registry.push import copy_version, push
from registry.records import statistics_files
from registry.settings import PushSettings


class Executor(tfx_pusher.Executor):
    """Pushes into `<base_directory>/<version>/`; `registry/push.py` does the work."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model when all its blessings say so.

        A model that is the newest version already is not pushed again, so a push that was killed
        before it was recorded is not repeated. Neither is a model with the weights and signatures
        of the served version, nor one that was rolled back from: `not_pushed_because` has the
        reason and `unchanged_version` the served version.

        Args:
          input_dict: `model`, and optionally `model_blessing`, `infra_blessing` and
            `data_blessing`.
          output_dict: `pushed_model`, one PushedModel, which receives a copy of the version.
          exec_properties: `push_destination`, a PushDestination as JSON; optionally
            `custom_config`, JSON with `settings`, the fields of PushSettings, and `run_id`, by
            default the orchestrator's.

        Raises:
          RegistryError: when the version differs from the model.
          OSError: when the model cannot be read or the version not be written.
        """
        pushed_model = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed_model)
            return
        destination = proto.PushDestination()
        json_format.Parse(exec_properties["push_destination"], destination)
        base = destination.filesystem.base_directory
        evaluation = _read_evaluation(input_dict)
        unchanged = _unchanged_version(evaluation, base)
        if unchanged is not None:
            reason = f"version {unchanged} is this model already"
            pushed_model.set_string_custom_property("unchanged_version", str(unchanged))
            self._refuse(pushed_model, reason)
            return
        custom_config = json.loads(exec_properties.get("custom_config") or "null") or {}
        settings = PushSettings.model_validate(custom_config.get("settings", {}))
        try:
            version = push(
                self.GetModelPath(input_dict),
                base,
                extra_files=card_files(evaluation, custom_config.get("recipe"))
                | _verification(input_dict)
                | _data_statistics(input_dict),
                keep_versions=settings.keep_versions,
                run=run_id(self, exec_properties) or "",
            )
        except RolledBackError as error:
            self._refuse(pushed_model, str(error))
            return
        # A version that is lost can be restored from the copy.
        copy_version(base, version, pushed_model.uri)
        path = version_address(base, version)
        self._MarkPushed(pushed_model, pushed_destination=path, pushed_version=str(version))
        logging.info("Pushed version %d to %s", version, path)

    def _refuse(self, pushed_model: Any, reason: str) -> None:
        logging.warning("Not pushed: %s", reason)
        pushed_model.set_string_custom_property("not_pushed_because", reason)
        self._MarkNotPushed(pushed_model)


def _unchanged_version(evaluation: dict[str, Any] | None, base: str) -> int | None:
    """The version that is the model, as its evaluation found; None where it is served no more."""
    baseline = (evaluation or {}).get("baseline", {})
    if baseline.get("status") != "unchanged":
        return None
    version = int(baseline["version"])
    return version if version in list_versions(base) else None


def _data_statistics(input_dict: dict[str, list[Any]]) -> dict[str, bytes]:
    """The statistics of the model's data, by path relative to the version."""
    return {
        path: content
        for blessing in input_dict.get("data_blessing") or []
        for path, content in statistics_files(statistics_contents(blessing)).items()
    }


def _verification(input_dict: dict[str, list[Any]]) -> dict[str, bytes]:
    """What the version is verified with, by path relative to the version."""
    folders = [os.path.join(each.uri, FOLDER) for each in input_dict.get("model_blessing") or []]
    return {
        os.path.join(VERIFICATION, path): storage.read(os.path.join(folder, path))
        for folder in filter(storage.is_folder, folders)
        for path in storage.files_in(folder)
    }


def _read_evaluation(input_dict: dict[str, list[Any]]) -> dict[str, Any] | None:
    """The evaluation that the blessing carries, if it does."""
    for blessing in input_dict.get("model_blessing") or []:
        content = storage.read_if_there(os.path.join(blessing.uri, "evaluation.json"))
        if content is not None:
            return json.loads(content)
    return None
