"""What several tests of runs need."""

from collections.abc import Callable
from pathlib import Path

import pytest

from registry.push import push


@pytest.fixture
def push_graph(tmp_path: Path) -> Callable[..., int]:
    """A function that pushes a model of one file, with this content; returns the version."""

    def pushed(base: Path, graph: str = "graph", **options: object) -> int:
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "saved_model.pb").write_text(graph)
        return push(tmp_path / "model", base, **options)

    return pushed
