"""MnistExampleGen: IDX files of a window of spans in, Examples out."""

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
        "window": component_spec.ExecutionParameter(type=str, optional=True),
        "content": component_spec.ExecutionParameter(type=str, optional=True),
        "quarantine": component_spec.ExecutionParameter(type=str, optional=True),
        "settings": component_spec.ExecutionParameter(type=str),
        "source": component_spec.ExecutionParameter(type=str),
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}
    OUTPUTS = {
        "examples": component_spec.ChannelParameter(type=tfx.types.standard_artifacts.Examples)
    }


class MnistExampleGen(tfx.types.BaseBeamComponent):
    """Ingests one span of MNIST or several.

    The spans are found in the executor where the run has not found them before, so that the
    component works where an orchestrator knows nothing of spans. The artifact records `span`, the
    newest; `spans`, as `spans.json` in its folder does; `source`; and per split the count and a
    fingerprint of the digits.
    """

    SPEC_CLASS = MnistExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        *,
        data_dir: str | RuntimeParameter,
        span: int | RuntimeParameter | None,
        settings: str,
        source: str,
        window: str | RuntimeParameter = "latest",
        content: str = "",
        quarantine: str = "",
    ) -> None:
        """Describes what to ingest.

        Args:
          data_dir: folder or URI with the IDX files (span 1) or `span-<N>/` folders.
          span: which one; None or a negative number for those of `window`.
          settings: DataSettings as JSON, of which `settle_seconds` and `eval_share` are read.
          source: one sentence on where the data is from, recorded on the artifact.
          window: which spans; see `mnist.windows.SYNTAX`.
          content: the fingerprints that the spans of `window` must have, as `Window.content` gives
            them, where the run has resolved its window; "" to resolve it in the executor.
          quarantine: path or URI of the record of quarantined spans; "" for none.
        """
        super().__init__(
            MnistExampleGenSpec(
                data_dir=data_dir,
                span=span,
                window=window,
                content=content or None,
                quarantine=quarantine,
                settings=settings,
                source=source,
                examples=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Examples),
            )
        )
