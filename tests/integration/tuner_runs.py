"""TFX's Tuner and Trainer on few digits, for `test_tuner_node.py`, also in a process of its own."""

from pathlib import Path
from typing import Any

from tfx import types
from tfx import v1 as tfx
from tfx.components.trainer.executor import GenericExecutor
from tfx.components.tuner.executor import Executor as TunerExecutor
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import artifact_utils, channel_utils

TRAIN: dict[str, Any] = {
    "max_seconds": None,
    "max_steps": 4,
    "steps_per_execution": 2,
    "batch_size": 4,
    "generator_channels": (4, 4, 2),
    "discriminator_channels": (2, 4, 4),
    "evaluations": 1,
    "validation_split": 0.4,
}
TUNE = {"trials": 2, "seconds": None, "steps": 4, "parameters": ("latent_dim",)}


def artifact(kind: Any, uri: Path) -> types.Artifact:
    made = kind()
    made.uri = str(uri)
    uri.mkdir(parents=True, exist_ok=True)
    return made


def inputs(root: Path) -> dict[str, list[types.Artifact]]:
    examples = artifact(tfx.types.standard_artifacts.Examples, root / "examples")
    examples.split_names = artifact_utils.encode_split_names(["train", "eval"])
    model = artifact(tfx.types.standard_artifacts.Model, root / "classifier")
    return {"examples": [examples], "base_model": [model]}


def execute(executor: type[BaseExecutor], component: Any, root: Path, given: Any) -> Path:
    """Runs a component's executor as its launcher would; returns the folder of its outputs."""
    out = root / component.id
    outputs = {
        name: [artifact(channel.type, out / name)] for name, channel in component.outputs.items()
    }
    context = BaseExecutor.Context(tmp_dir=str(root / "temporary"), unique_id="1")
    executor(context).Do(given, outputs, component.exec_properties)
    return out


def tune(root: Path) -> Path:
    given = inputs(root)
    component = tfx.components.Tuner(
        tuner_fn="models.gan.tuning.tuner_fn",
        examples=channel_utils.as_channel(given["examples"]),
        base_model=channel_utils.as_channel(given["base_model"]),
        custom_config={
            "train": TRAIN | {"latent_dim": 5},
            "tune": TUNE,
            "checkpoints": str(root / "checkpoints"),
        },
    )
    return execute(TunerExecutor, component, root, given)


def train(root: Path, tuned: Path) -> Path:
    found = artifact(tfx.types.standard_artifacts.HyperParameters, tuned / "best_hyperparameters")
    given = inputs(root) | {"hyperparameters": [found]}
    component = tfx.components.Trainer(
        run_fn="models.gan.run_fn.run_fn",
        **{name: channel_utils.as_channel(artifacts) for name, artifacts in given.items()},
        custom_config={
            "settings": TRAIN | {"latent_dim": 6},
            "checkpoints": str(root / "training"),
        },
    )
    return execute(GenericExecutor, component, root, given)
