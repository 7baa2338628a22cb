"""Fixtures of the tests of models/gan."""

from collections.abc import Iterator

import pytest
import tensorflow as tf

from models.gan import averaged


@pytest.fixture
def eagerly() -> Iterator[None]:
    """The same code without the seconds that tracing a graph takes."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def quick(eagerly: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager, and images generated in small batches."""
    monkeypatch.setattr(averaged, "BATCH_SIZE", 20)
