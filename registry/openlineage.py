"""Where a version is from as an OpenLineage event, sent by OpenLineage's own client.

The client is no part of the set-up for a run, as few need it.
"""

import json
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, uuid5

from errors import mask_secrets
from registry.errors import RegistryError
from registry.lineage import Lineage

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent

_NAMESPACE = "mnist-gan-tfx"
_PRODUCER = "urn:mnist-gan-tfx:lineage"
_WEB = re.compile(r"https?://", re.IGNORECASE)


class OpenLineageError(RegistryError):
    """An event could not be made or delivered."""

    exit_status = 1


def send(found: Lineage, base: str | os.PathLike[str], target: str) -> None:
    """Sends the run that pushed a version, with its inputs and the version as its output.

    Args:
      found: where the version is from.
      base: path or URI of the folder that is watched.
      target: address of a server, to which `/api/v1/lineage` is added, or a file that gets a line.
        A server that wants a key gets `OPENLINEAGE_API_KEY`.

    Raises:
      OpenLineageError: the client is missing, the version has no push record, or the target did
        not take the event.
    """
    try:
        from openlineage.client.transport.file import FileConfig, FileTransport
        from openlineage.client.transport.http import HttpConfig, HttpTransport
    except ModuleNotFoundError as error:
        raise OpenLineageError(
            "OpenLineage's client is not installed",
            fix="`make setup`, or `pip install 'openlineage-python<1.53'`",
        ) from error

    event = make_event(found, base)
    is_web = _WEB.match(target) is not None
    try:
        if is_web:
            key = os.environ.get("OPENLINEAGE_API_KEY")
            auth = {"type": "api_key", "apiKey": key} if key else {}
            options = {"url": target, "auth": auth, "retry": {"total": 0}}
            HttpTransport(HttpConfig.from_dict(options)).emit(event)
        else:
            path = os.path.abspath(target)
            FileTransport(FileConfig(log_file_path=path, append=True)).emit(event)
    except (OSError, RuntimeError, ValueError) as error:
        fix = "check the address (without `/api/v1/lineage`) and `OPENLINEAGE_API_KEY`"
        raise OpenLineageError(
            f"the event was not taken ({error.__cause__ or error})",
            where=target,
            fix=fix if is_web else "name a file that can be written to",
        ) from error


def make_event(found: Lineage, base: str | os.PathLike[str]) -> "RunEvent":
    """Makes the event of the run that pushed a version; the same version makes the same event.

    Args:
      found: where the version is from.
      base: path or URI of the folder that is watched.

    Raises:
      OpenLineageError: the version has no push record.
    """
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState, set_producer

    if found.pushed_at is None:
        raise OpenLineageError(
            f"version {found.version} has no push record, so no run is known", os.fspath(base)
        )
    set_producer(_PRODUCER)
    run = found.run or f"versions/{found.version}"
    return RunEvent(
        eventType=RunState.COMPLETE,
        eventTime=found.pushed_at.isoformat(),
        run=Run(str(uuid5(NAMESPACE_URL, f"{_PRODUCER}/{run}")), facets=_run_facets(found)),
        job=Job(_NAMESPACE, _dataset_name(base)[1].rpartition("/")[-1], facets=_job_facets(found)),
        inputs=_inputs(found, base),
        outputs=[_output(found, base)],
    )


def _run_facets(found: Lineage) -> dict[str, Any]:
    from openlineage.client.facet_v2 import execution_parameters_run, processing_engine_run

    facets: dict[str, Any] = {}
    if found.recipe is not None:
        settings = {"preset": found.recipe.preset, **found.recipe.changed}
        facets["executionParameters"] = execution_parameters_run.ExecutionParametersRunFacet(
            [
                execution_parameters_run.ExecutionParameter(key, value=_text(value))
                for key, value in settings.items()
            ]
        )
    if found.packages and "tfx" in found.packages:
        facets["processing_engine"] = processing_engine_run.ProcessingEngineRunFacet(
            found.packages["tfx"], name="TFX"
        )
    if found.checks:
        facets["test"] = _checks(found)
    return facets


def _checks(found: Lineage) -> Any:
    from openlineage.client.facet_v2 import test_run

    values = {name: metric.value for name, metric in (found.metrics or {}).items()}
    return test_run.TestRunFacet(
        [
            test_run.TestExecution(
                check.metric,
                "pass" if check.passed else "fail",
                type=check.kind,
                expected=check.bound,
                actual=_text(values.get(check.metric)),
            )
            for check in found.checks or []
        ]
    )


def _job_facets(found: Lineage) -> dict[str, Any]:
    from openlineage.client.facet_v2 import job_type_job, source_code_location_job

    facets: dict[str, Any] = {
        "jobType": job_type_job.JobTypeJobFacet("BATCH", integration="TFX", jobType="DAG")
    }
    if found.commit is not None:
        # No record names a repository, and a Software Heritage ID needs none.
        facets["sourceCodeLocation"] = source_code_location_job.SourceCodeLocationJobFacet(
            "git", f"swh:1:rev:{found.commit[:40]}", version=found.commit
        )
    return facets


def _inputs(found: Lineage, base: str | os.PathLike[str]) -> list["InputDataset"]:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import documentation_dataset, input_statistics_input_dataset

    inputs = []
    for span in found.spans or []:
        facets = _version(span.fingerprint)
        if found.data.source is not None:
            facets["documentation"] = documentation_dataset.DocumentationDatasetFacet(
                found.data.source
            )
        count = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
            rowCount=(span.train or 0) + (span.eval or 0)
        )
        inputs.append(
            InputDataset(
                _NAMESPACE,
                f"span-{span.span}",
                facets=facets,
                inputFacets={"inputStatistics": count},
            )
        )
    if found.provenance.schema_sha256 is not None:
        facets = _version(found.provenance.schema_sha256)
        inputs.append(InputDataset(_NAMESPACE, "schema", facets=facets))
    if found.parent is not None:
        inputs.append(InputDataset(*_dataset_name(base), facets=_version(str(found.parent))))
    return inputs


def _output(found: Lineage, base: str | os.PathLike[str]) -> "OutputDataset":
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import tags_dataset

    facets = _version(str(found.version))
    tags: dict[str, float | str | None] = {
        name: metric.value for name, metric in (found.metrics or {}).items()
    }
    tags["model_fingerprint"] = found.model_fingerprint
    facets["tags"] = tags_dataset.TagsDatasetFacet(
        [
            tags_dataset.TagsDatasetFacetFields(name, _text(value), source=_NAMESPACE)
            for name, value in tags.items()
            if value is not None
        ]
    )
    return OutputDataset(*_dataset_name(base), facets=facets)


def _version(number: str) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset

    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(number)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _dataset_name(base: str | os.PathLike[str]) -> tuple[str, str]:
    """Namespace and name of a folder, as OpenLineage's naming has them."""
    address = mask_secrets(os.fspath(base))
    scheme, bucket, path, *_ = urlsplit(address)
    if bucket:
        return f"{scheme}://{bucket}", path.strip("/")
    return "file", os.path.abspath(address)
