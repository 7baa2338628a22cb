"""What Kubeflow's page shows of a task besides its log: a table of metrics and a web page.

It knows two types of outputs for that, `system.Metrics` and `system.HTML`
(frontend/src/components/viewers/MetricsVisualizations.tsx), and TFX knows neither. So an output of
TFX's that holds metrics or a page gets a second one beside it, of which TFX is not told; the entry
point fills it from the first.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parsing import parse_yaml

_METRICS, _WEB_PAGE = "-metrics", "-page"
_SHOWN = {
    "tfx.ModelEvaluation": (_METRICS, "system.Metrics"),
    "components.EvaluationReport": (_WEB_PAGE, "system.HTML"),
}
# Of a metric's interval and floor, which are in the report: a row each would hide the rest.
_LEFT_OUT = ("_low", "_high", "_floor")


def add_page_outputs(spec: dict[str, Any]) -> None:
    """Gives each component's metrics and pages an output that Kubeflow's page shows."""
    for component in spec["components"].values():
        outputs = component.get("outputDefinitions", {}).get("artifacts", {})
        for name, definition in list(outputs.items()):
            title = _title(definition["artifactType"])
            if title in _SHOWN:
                suffix, shown_type = _SHOWN[title]
                outputs[name + suffix] = {
                    "artifactType": {"schemaTitle": shown_type, "schemaVersion": "0.0.1"}
                }


def fill_page_outputs(
    output: dict[str, Any], paths: Mapping[str, str], page_uris: Mapping[str, str]
) -> None:
    """Fills the outputs that the page shows from those of TFX.

    Args:
      output: the ExecutorOutput, as JSON; changed in place.
      paths: local path of each output artifact, by name.
      page_uris: URI of each output of the backend's own types, by name.
    """
    artifacts = output.setdefault("artifacts", {})
    for name, uri in page_uris.items():
        if name.endswith(_METRICS):
            [source] = artifacts[name.removesuffix(_METRICS)]["artifacts"]
            metrics = _metrics(source.get("metadata", {}))
            Path(paths[name]).write_text(json.dumps(metrics))
            artifacts[name] = {"artifacts": [{"name": name, "uri": uri, "metadata": metrics}]}
        elif name.endswith(_WEB_PAGE):
            [page] = Path(paths[name.removesuffix(_WEB_PAGE)]).glob("*.html")
            shutil.copyfile(page, paths[name])


def _metrics(metadata: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: value
        for key, value in sorted(metadata.items())
        if isinstance(value, float) and not key.endswith(_LEFT_OUT)
    }


def _title(artifact_type: Mapping[str, str]) -> str | None:
    schema = parse_yaml(artifact_type.get("instanceSchema", "")) or {}
    title: str | None = artifact_type.get("schemaTitle") or schema.get("title")
    return title
