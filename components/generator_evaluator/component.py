"""GeneratorEvaluator: takes a generator; emits its metrics, a blessing and a report."""

from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec
from tfx.types import component_spec

from components.data_blessing import DataBlessing
from components.generator_evaluator import executor
from components.generator_evaluator.artifacts import EvaluationReport

_types = tfx.types.standard_artifacts


class GeneratorEvaluatorSpec(component_spec.ComponentSpec):
    """The contract of GeneratorEvaluator."""

    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
        "serving_dir": component_spec.ExecutionParameter(type=str),
        "train": component_spec.ExecutionParameter(type=str),
        "classifier_settings": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "model": component_spec.ChannelParameter(type=_types.Model),
        "classifier": component_spec.ChannelParameter(type=_types.Model),
        "examples": component_spec.ChannelParameter(type=_types.Examples),
        "anomalies": component_spec.ChannelParameter(type=_types.ExampleAnomalies),
        "model_run": component_spec.ChannelParameter(type=_types.ModelRun),
        "data_blessing": component_spec.ChannelParameter(type=DataBlessing, optional=True),
        "hyperparameters": component_spec.ChannelParameter(
            type=_types.HyperParameters, optional=True
        ),
    }
    OUTPUTS = {
        "evaluation": component_spec.ChannelParameter(type=_types.ModelEvaluation),
        "blessing": component_spec.ChannelParameter(type=_types.ModelBlessing),
        "report": component_spec.ChannelParameter(type=EvaluationReport),
    }


class GeneratorEvaluator(tfx.types.BaseComponent):
    """Blesses a generator that is within every bound and no worse than the served one.

    Both are measured against the eval split, with one classifier and from the same seeds. A
    generator that is not blessed does not fail the run: the blessing records the decision and the
    metrics behind it.
    """

    SPEC_CLASS = GeneratorEvaluatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        *,
        model: tfx.types.BaseChannel,
        classifier: tfx.types.BaseChannel,
        examples: tfx.types.BaseChannel,
        anomalies: tfx.types.BaseChannel,
        model_run: tfx.types.BaseChannel,
        settings: str,
        serving_dir: str,
        train: str,
        classifier_settings: str,
        data_blessing: tfx.types.BaseChannel | None = None,
        hyperparameters: tfx.types.BaseChannel | None = None,
    ) -> None:
        """Connects the component.

        Args:
          model: the generator.
          classifier: the classifier whose features measure the generator.
          examples: the real images, train and eval split.
          anomalies: findings of ExampleValidator, for the report.
          model_run: log of the training, for the report.
          settings: EvaluationSettings as JSON.
          serving_dir: folder or URI of the served versions, `<number>/` each. It is read when the
            node runs: an orchestrator that keeps a cache has to know when it changes.
          train: TrainSettings as JSON, for the record.
          classifier_settings: ClassifierSettings as JSON, for the record.
          data_blessing: comparison by DataGate, for the report.
          hyperparameters: result of a search, which replaced some of the training settings.
        """
        super().__init__(
            GeneratorEvaluatorSpec(
                model=model,
                classifier=classifier,
                examples=examples,
                anomalies=anomalies,
                model_run=model_run,
                data_blessing=data_blessing,
                hyperparameters=hyperparameters,
                settings=settings,
                serving_dir=serving_dir,
                train=train,
                classifier_settings=classifier_settings,
                evaluation=tfx.dsl.Channel(type=_types.ModelEvaluation),
                blessing=tfx.dsl.Channel(type=_types.ModelBlessing),
                report=tfx.dsl.Channel(type=EvaluationReport),
            )
        )
