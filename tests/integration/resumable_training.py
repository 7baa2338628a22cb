"""One training in a process of its own, for `test_resume.py`."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np


def pixel_features(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features = images.reshape(len(images), 28, 28)[:, 4::7, 4::7].reshape(len(images), 16) / 255
    return features.astype(np.float32), features[:, :10].astype(np.float32)


def train(
    folder: str, records: str, checkpoints: str, served: str | None, recipe: dict[str, Any]
) -> None:
    """In a process of its own: `run_fn`, and beside what it writes, its state or its error."""
    from models.gan import run_fn as module

    trainings, prepare = [], module.prepare_training

    def prepare_and_keep(*args: Any, **kwargs: Any) -> Any:
        trainings.append(prepare(*args, **kwargs))
        return trainings[-1]

    module.prepare_training = prepare_and_keep
    module.FeatureExtractor = lambda model_dir: pixel_features
    try:
        module.run_fn(
            SimpleNamespace(
                custom_config={"settings": recipe, "checkpoints": checkpoints, "served": served},
                train_files=[records],
                base_model="a classifier",
                serving_model_dir=f"{folder}/model",
                model_run_dir=f"{folder}/run",
            )
        )
    except Exception as error:
        Path(folder, "error").write_text(f"{type(error).__name__}: {error}")
        raise
    [training] = trainings
    state = {name: variable.numpy() for name, variable in training.variables().items()}
    np.savez(f"{folder}/state.npz", fids=training.early_stopping.fids, **state)
