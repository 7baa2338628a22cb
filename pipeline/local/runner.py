"""TFX's local runner, with events for each node and a cache that sees code and data."""

import datetime
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2
from tfx.v1.orchestration import LocalDagRunner

from pipeline.local.fingerprint import file_fingerprint, source_fingerprint
from pipeline.local.metadata import Database

_SALT = "content_fingerprint"


class NodeFailedError(Exception):
    """A node of a run raised; `__cause__` holds what."""

    def __init__(self, node_id: str, run_id: str) -> None:
        super().__init__(node_id)
        self.node_id = node_id
        self.run_id = run_id


class NodeListener(Protocol):
    """What wants to know how the run goes."""

    def node_started(self, node_id: str, position: int, total: int) -> None:
        """A node is about to run, or to be taken from the cache."""

    def node_ended(self, node_id: str, seconds: float, *, cached: bool) -> None:
        """A node has its results."""

    def node_failed(self, node_id: str, seconds: float) -> None:
        """A node raised."""


class ReportingRunner(LocalDagRunner):
    """Runs the nodes one after the other and tells a listener.

    TFX keys its cache by parameters, inputs and class paths. To these this runner adds, as one
    more parameter of each node, fingerprints of the source behind it and of the files that its
    parameters name, so that a change of either is never answered from the cache.
    """

    def __init__(
        self,
        listener: NodeListener,
        *,
        run_properties: Mapping[str, str],
        node_content: Mapping[str, Callable[[str], str]],
        uncached_nodes: Collection[str] = (),
        after_node: Mapping[str, Callable[[], None]] | None = None,
        database: Database | None = None,
    ) -> None:
        """Prepares a run.

        Args:
          listener: told of each node.
          run_properties: recorded on the run in ML Metadata.
          node_content: by node, a function of the run's id that gives a fingerprint of outside
            content that the node reads. Called just before the node runs.
          uncached_nodes: nodes to run even where the cache has an answer.
          after_node: by node, a function that is called once its result is recorded.
          database: waited for while it does not answer or is locked; None: the pipeline's, without
            waiting.
        """
        super().__init__()
        self.started = False
        self.run_id = datetime.datetime.now().isoformat(timespec="microseconds")
        self._listener = listener
        self._run_properties = run_properties
        self._node_content = node_content
        self._uncached_nodes = uncached_nodes
        self._after_node = after_node or {}
        self._database = database

    def run_with_ir(
        self, pipeline: pipeline_pb2.Pipeline, run_options: Any = None, **kwargs: Any
    ) -> None:
        """Runs a compiled pipeline; raises NodeFailedError when a node does."""
        del run_options, kwargs
        self.started = True
        runtime_parameter_utils.substitute_runtime_parameter(
            pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: self.run_id}
        )
        deployment = runner_utils.extract_local_deployment_config(pipeline)
        nodes = [node.pipeline_node for node in pipeline.nodes]
        for position, node in enumerate(nodes, start=1):
            self._prepare(node, deployment)
            self._run_node(node, pipeline, deployment, position, len(nodes))

    def _prepare(self, node: pipeline_pb2.PipelineNode, deployment: Any) -> None:
        node_id = node.node_info.id
        outside = self._node_content.get(node_id)
        content = [outside(self.run_id) if outside else "", *_sources(node, deployment)]
        node.parameters.parameters[_SALT].field_value.string_value = " ".join(content).strip()
        if node_id in self._uncached_nodes:
            node.execution_options.caching_options.enable_cache = False
        for context in node.contexts.contexts:
            if context.type.name == constants.PIPELINE_RUN_CONTEXT_TYPE_NAME:
                for key, value in self._run_properties.items():
                    context.properties[key].field_value.string_value = value

    def _run_node(
        self,
        node: pipeline_pb2.PipelineNode,
        pipeline: pipeline_pb2.Pipeline,
        deployment: Any,
        position: int,
        total: int,
    ) -> None:
        node_id = node.node_info.id
        connection = _Connection(_connection_config(deployment), self._database)
        node_launcher = launcher.Launcher(
            pipeline_node=node,
            mlmd_connection=connection,
            pipeline_info=pipeline.pipeline_info,
            pipeline_runtime_spec=pipeline.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
        )
        self._listener.node_started(node_id, position, total)
        started = time.monotonic()
        try:
            execution = node_launcher.launch()
            cached = _was_cached(connection, execution.execution_id)
        except Exception as error:
            self._listener.node_failed(node_id, time.monotonic() - started)
            raise NodeFailedError(node_id, self.run_id) from error
        if not cached and node_id in self._after_node:
            self._after_node[node_id]()
        self._listener.node_ended(node_id, time.monotonic() - started, cached=cached)


class _Connection(metadata.Metadata):
    """TFX's connection, which waits for a server, or for SQLite's file while it is locked."""

    def __init__(self, config: Any, database: Database | None) -> None:
        super().__init__(config)
        self._database = database

    def __enter__(self) -> metadata.Metadata:
        if self._database is None or not self._database.exists():
            return super().__enter__()
        self._store = self._database.open()
        self._users += 1
        return self


def _connection_config(deployment: Any) -> Any:
    config = deployment.metadata_connection_config
    return getattr(config, config.WhichOneof("connection_config"))


def _sources(node: pipeline_pb2.PipelineNode, deployment: Any) -> list[str]:
    """Fingerprints of the code and the files that a node's parameters and executor name."""
    spec = runner_utils.extract_executor_spec(deployment, node.node_info.id)
    spec = getattr(spec, "python_executor_spec", spec)
    texts = [
        parameter.field_value.string_value
        for _, parameter in sorted(node.parameters.parameters.items())
    ]
    functions = [getattr(spec, "class_path", ""), *texts]
    modules = [text.rpartition(".")[0] for text in functions if text.isascii() and " " not in text]
    project = [module for module in modules if module.split(".")[0] in ("components", "models")]
    files = [Path(text) for text in texts if text.startswith("/") and Path(text).is_file()]
    return [*map(source_fingerprint, project), *map(file_fingerprint, files)]


def _was_cached(connection: metadata.Metadata, execution_id: int) -> bool:
    with connection as handle:
        [execution] = handle.store.get_executions_by_id([execution_id])
    return execution.last_known_state == metadata_store_pb2.Execution.CACHED
