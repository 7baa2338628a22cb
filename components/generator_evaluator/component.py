"""GeneratorEvaluator: a generator in, its figures and a blessing out."""

from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec
from tfx.types import component_spec

from components.generator_evaluator import executor

_types = tfx.types.standard_artifacts


class GeneratorEvaluatorSpec(component_spec.ComponentSpec):
    """The contract of GeneratorEvaluator."""

    PARAMETERS = {"settings": component_spec.ExecutionParameter(type=str)}
    INPUTS = {
        "model": component_spec.ChannelParameter(type=_types.Model),
        "classifier": component_spec.ChannelParameter(type=_types.Model),
        "examples": component_spec.ChannelParameter(type=_types.Examples),
    }
    OUTPUTS = {
        "evaluation": component_spec.ChannelParameter(type=_types.ModelEvaluation),
        "blessing": component_spec.ChannelParameter(type=_types.ModelBlessing),
    }


class GeneratorEvaluator(tfx.types.BaseComponent):
    """Measures a generator against the eval split and blesses it when every bound holds.

    A generator that is not blessed does not fail the run: the blessing says so, and the figures
    that decided are on it.
    """

    SPEC_CLASS = GeneratorEvaluatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        *,
        model: tfx.types.BaseChannel,
        classifier: tfx.types.BaseChannel,
        examples: tfx.types.BaseChannel,
        settings: str,
    ) -> None:
        """Takes the generator, the classifier, the digits and EvaluationSettings as JSON."""
        super().__init__(
            GeneratorEvaluatorSpec(
                model=model,
                classifier=classifier,
                examples=examples,
                settings=settings,
                evaluation=tfx.dsl.Channel(type=_types.ModelEvaluation),
                blessing=tfx.dsl.Channel(type=_types.ModelBlessing),
            )
        )
