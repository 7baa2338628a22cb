"""Reads the anomalies of every split and stops the run on the first sight of one."""

import json
import os
from typing import Any

import tensorflow_data_validation as tfdv
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.v1.dsl.io import fileio

from components.anomalies import find_anomalies

_STATISTICS_FILE = "FeatureStats.pb"


class DataRejectedError(ValueError):
    """The data is not what the schema says; nothing may be trained on it."""


class Executor(base_executor.BaseExecutor):
    """Writes a DataBlessing, or fails and names what is wrong."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Judges from the files: a property set by an executor does not survive every backend.

        Args:
          input_dict: `statistics` and `anomalies`, one artifact each.
          output_dict: `blessing`, one DataBlessing.
          exec_properties: empty.

        Raises:
          DataRejectedError: when a split has an anomaly; the message names split, feature, what
            was seen, what was expected, and how to look closer.
        """
        anomalies = artifact_utils.get_single_instance(input_dict["anomalies"])
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        counts: dict[str, int] = {}
        for split in artifact_utils.decode_split_names(anomalies.split_names):
            counts[split] = _count_examples(artifact_utils.get_split_uri([statistics], split))
        found = find_anomalies(anomalies)
        if found:
            raise DataRejectedError(_rejection(found, statistics, anomalies))
        blessing.set_int_custom_property("blessed", 1)
        with fileio.open(os.path.join(blessing.uri, "data_blessing.json"), "w") as file:
            json.dump({"span": int(statistics.span), "examples": counts}, file, indent=2)


def _rejection(found: list[str], statistics: Any, anomalies: Any) -> str:
    lines = "\n".join(f"  - {line}" for line in found)
    return (
        f"the data of span {statistics.span} is not what the schema says; "
        f"the run stops before training on it.\n{lines}\n"
        "To look closer: tfdv.visualize_statistics on the statistics in "
        f"{statistics.uri}, tfdv.display_anomalies on {anomalies.uri}. If the data is right, "
        "change pipeline/schema/schema.pbtxt."
    )


def _count_examples(directory: str) -> int:
    statistics = tfdv.load_stats_binary(os.path.join(directory, _STATISTICS_FILE))
    return int(statistics.datasets[0].num_examples)
