"""One run as TFX sees it; importing this imports TFX, which takes seconds."""

import shutil
from collections.abc import Callable
from dataclasses import replace

from absl import logging
from tfx.utils import path_utils

from mnist.source import DataSource
from mnist.windows import Window
from models.gan.checkpoints import FINISHED
from pipeline.beam_jobs import prepare_jobs
from pipeline.beam_workers import prepare_workers
from pipeline.local import history
from pipeline.local.paths import OutputPaths
from pipeline.local.recovery import lost_push
from pipeline.local.runner import NodeListener, ReportingRunner
from pipeline.local.warm_start import training_start
from pipeline.pipeline import create_pipeline
from pipeline.settings.beam import check_addresses, check_flags
from pipeline.settings.resolution import Resolved
from registry.baselines import data_baseline, model_baseline

# Recording what a node did in an hour waits for a reader, such as a backup, to end.
_PATIENCE_SECONDS = 600.0


class Session:
    """A pipeline and the runner for it."""

    def __init__(
        self,
        resolved: Resolved,
        *,
        source: DataSource,
        paths: OutputPaths,
        window: Window,
        from_node: str | None,
        use_cache: bool,
        listener: NodeListener,
    ) -> None:
        """Builds the pipeline; see `pipeline.local.run.run`.

        Args:
          resolved: the settings.
          source: the digits.
          paths: where the run's files go.
          window: the spans of the data; the run uses just these, whatever arrives meanwhile.
          from_node: run this node and all that depend on it whatever the cache has.
          use_cache: whether the cache is used at all.
          listener: called at the start and the end of each node.

        Raises:
          BeamError: when Beam could not run with the flags of `beam.pipeline_args`.
        """
        check_flags(resolved.settings.beam)
        check_addresses(resolved.settings.beam)
        prepare_workers()
        prepare_jobs()
        self._pipeline = create_pipeline(
            resolved.settings,
            data_dir=source.directory,
            source=source.provenance,
            window=window.name,
            content=window.content,
            pipeline_root=str(paths.artifacts),
            serving_root=str(paths.serving),
            checkpoint_root=str(paths.checkpoints),
            keep_checkpoints=True,
            recipe=resolved.recipe(),
            metadata=paths.database.connection(create=True),
            beam_pipeline_args=resolved.settings.beam.arguments(),
        )
        self._runner = ReportingRunner(
            listener,
            database=replace(paths.database, retry_seconds=_PATIENCE_SECONDS),
            run_properties={"preset": resolved.preset, "data_content": window.content},
            node_content={
                "DataGate": lambda _: _data_baseline(paths, window),
                "GeneratorEvaluator": lambda run_id: _baseline(paths, run_id),
                **_start(resolved, paths),
            },
            uncached_nodes=self._uncached(paths, from_node, use_cache),
            after_node={"Trainer": lambda: _remove_finished(paths)},
        )

    @property
    def run_id(self) -> str:
        """The run's id, from before it starts."""
        return self._runner.run_id

    def run(self) -> str | None:
        """Runs the pipeline.

        Returns:
          The run's id; None when TFX's command line only compiles the pipeline.

        Raises:
          NodeFailedError: when a node fails.
        """
        logging.set_verbosity(logging.INFO)
        try:
            self._runner.run(self._pipeline)
        finally:
            # What comes later goes to the terminal, and not to the log.
            logging.set_verbosity(logging.WARNING)
        return self._runner.run_id if self._runner.started else None

    def _uncached(self, paths: OutputPaths, from_node: str | None, use_cache: bool) -> set[str]:
        followers = {
            node.id: [follower.id for follower in node.downstream_nodes]
            for node in self._pipeline.components
        }
        if not use_cache:
            return set(followers)
        start = [from_node] if from_node else []
        if lost_push(paths):
            start.append("Pusher")
        return _reachable(start, followers)


def _baseline(paths: OutputPaths, run_id: str) -> str:
    """The version that the model of a run is compared with."""
    model = history.read_run(paths.database, run_id).model_uri
    return str(model_baseline(paths.versions, path_utils.serving_model_path(model)))


def _data_baseline(paths: OutputPaths, window: Window) -> str:
    """The version whose data the data of a run are compared with."""
    return str(data_baseline(paths.versions, [state.fingerprint for state in window.spans]))


def _start(resolved: Resolved, paths: OutputPaths) -> dict[str, Callable[[str], str]]:
    """The state that a warm start takes, if the settings want one."""
    settings = resolved.settings
    if settings.train.warm_start == "none":
        return {}
    train = settings.train.model_dump(mode="json")

    def read(run_id: str) -> str:
        fingerprint = history.read_run(paths.database, run_id).train_fingerprint
        return training_start(paths.versions, train, fingerprint)

    return {"Trainer": read}


def _remove_finished(paths: OutputPaths) -> None:
    """Removes the checkpoints of complete trainings, whose results are recorded."""
    for marker in paths.checkpoints.glob(f"*/{FINISHED}"):
        shutil.rmtree(marker.parent, ignore_errors=True)


def _reachable(start: list[str], followers: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting.extend(followers[current])
    return found
