"""ServingCheck: a model in, an InfraBlessing or a stopped run out."""

from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec
from tfx.types import component_spec

from components.serving_check import executor

_types = tfx.types.standard_artifacts


class ServingCheckSpec(component_spec.ComponentSpec):
    """The contract of ServingCheck."""

    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {"model": component_spec.ChannelParameter(type=_types.Model)}
    OUTPUTS = {"blessing": component_spec.ChannelParameter(type=_types.InfraBlessing)}


class ServingCheck(tfx.types.BaseComponent):
    """Stands in for TFX's InfraValidator, which Kubeflow Pipelines v2 does not run."""

    SPEC_CLASS = ServingCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(self, *, model: tfx.types.BaseChannel, settings: str) -> None:
        """Connects the component.

        Args:
          model: the Trainer's model.
          settings: ServingCheckSettings as JSON.
        """
        super().__init__(
            ServingCheckSpec(
                model=model,
                settings=settings,
                blessing=tfx.dsl.Channel(type=_types.InfraBlessing),
            )
        )
