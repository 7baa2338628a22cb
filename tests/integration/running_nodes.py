"""Nodes of the pipeline in a DAG of their own, and the records that ingestion leaves."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tfx import v1 as tfx


def pipeline_of(root: Path, nodes: Iterable[Any], **options: Any) -> tfx.dsl.Pipeline:
    """A pipeline with its artifacts and its metadata in `root`, in the layout of a run."""
    metadata = tfx.orchestration.metadata.sqlite_metadata_connection_config(
        str(root / "metadata.sqlite")
    )
    return tfx.dsl.Pipeline(
        pipeline_name="nodes",
        pipeline_root=str(root / "artifacts"),
        components=list(nodes),
        metadata_connection_config=metadata,
        **options,
    )


def records(root: Path) -> dict[str, str]:
    """Digest of each TFRecord file by its name within the artifact."""
    [artifact] = (root / "artifacts" / "MnistExampleGen" / "examples").iterdir()
    return {
        str(path.relative_to(artifact)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(artifact.rglob("*.gz"))
    }


class Listener:
    """What a runner tells.

    Attributes:
      ended: the nodes that ended, in turn; whether the cache answered.
    """

    def __init__(self) -> None:
        self.ended: dict[str, bool] = {}

    def node_started(self, node_id: str, position: int, total: int) -> None:
        assert 0 < position == len(self.ended) + 1 <= total

    def node_ended(self, node_id: str, seconds: float, *, cached: bool) -> None:
        self.ended[node_id] = cached

    def node_failed(self, node_id: str, seconds: float) -> None:
        raise AssertionError(node_id)
