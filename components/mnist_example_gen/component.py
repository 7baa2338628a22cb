"""MnistExampleGen: IDX files of one span in, Examples out."""

from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec
from tfx.types import component_spec
from tfx.v1.dsl.experimental import RuntimeParameter

from components.mnist_example_gen import executor


class MnistExampleGenSpec(component_spec.ComponentSpec):
    """The contract of MnistExampleGen."""

    PARAMETERS = {
        "data_dir": component_spec.ExecutionParameter(type=str),
        "span": component_spec.ExecutionParameter(type=int, optional=True),
        "eval_share": component_spec.ExecutionParameter(type=float),
        "shards": component_spec.ExecutionParameter(type=int),
        "source": component_spec.ExecutionParameter(type=str),
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}
    OUTPUTS = {
        "examples": component_spec.ChannelParameter(type=tfx.types.standard_artifacts.Examples)
    }


class MnistExampleGen(tfx.types.BaseBeamComponent):
    """Ingests one span of MNIST.

    The span is resolved in the executor, so that the component works where an orchestrator knows
    nothing of spans. The artifact records `span`, `source`, and per split the count and a
    fingerprint of the digits.
    """

    SPEC_CLASS = MnistExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        *,
        data_dir: str | RuntimeParameter,
        span: int | RuntimeParameter | None,
        eval_share: float,
        shards: int,
        source: str,
    ) -> None:
        """Describes what to ingest.

        Args:
          data_dir: folder or URI with the IDX files (span 1) or `span-<N>/` folders.
          span: which one; None or a negative number for the latest.
          eval_share: of the train files, held out where the span has no t10k- files; in (0, 1).
          shards: TFRecord files of the train split, 1 or more.
          source: one sentence on where the data is from, recorded on the artifact.
        """
        super().__init__(
            MnistExampleGenSpec(
                data_dir=data_dir,
                span=span,
                eval_share=eval_share,
                shards=shards,
                source=source,
                examples=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Examples),
            )
        )
