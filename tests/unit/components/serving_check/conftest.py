"""Exported generators for the tests of ServingCheck."""

import shutil
from pathlib import Path

import pytest

from models.gan.export import export_generator
from models.gan.networks import build_generator
from models.gan.settings import TrainSettings


@pytest.fixture(scope="session")
def settings() -> TrainSettings:
    return TrainSettings(
        generator_channels=(4, 4, 4), discriminator_channels=(4, 4, 4), latent_dim=8
    )


@pytest.fixture(scope="session")
def _exported_once(tmp_path_factory: pytest.TempPathFactory, settings: TrainSettings) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_generator(build_generator(settings), settings, str(folder))
    return folder


@pytest.fixture
def exported(tmp_path: Path, _exported_once: Path) -> Path:
    """A SavedModel that a test may damage."""
    return shutil.copytree(_exported_once, tmp_path / "model")
