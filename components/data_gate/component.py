"""DataGate: anomalies in, a blessing out or a stopped run."""

from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec
from tfx.types import component_spec

from components.data_blessing import DataBlessing
from components.data_gate import executor

_types = tfx.types.standard_artifacts


class DataGateSpec(component_spec.ComponentSpec):
    """The contract of DataGate."""

    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
        "serving_dir": component_spec.ExecutionParameter(type=str),
        "quarantine": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=_types.Examples),
        "schema": component_spec.ChannelParameter(type=_types.Schema),
        "statistics": component_spec.ChannelParameter(type=_types.ExampleStatistics),
        "anomalies": component_spec.ChannelParameter(type=_types.ExampleAnomalies),
    }
    OUTPUTS = {"blessing": component_spec.ChannelParameter(type=DataBlessing)}


class DataGate(tfx.types.BaseComponent):
    """Fails when ExampleValidator found anomalies, which by itself lets the run go on.

    It fails too when a span that is new is too far from the data behind the generator that is
    served, or its labels do not fit its images; such a span is quarantined. What must not see bad
    data is put behind it with `add_upstream_node`.
    """

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        *,
        examples: tfx.types.BaseChannel,
        statistics: tfx.types.BaseChannel,
        schema: tfx.types.BaseChannel,
        anomalies: tfx.types.BaseChannel,
        settings: str,
        serving_dir: str,
        quarantine: str,
    ) -> None:
        """Takes what is to be checked and by what.

        Args:
          examples: of MnistExampleGen.
          statistics: of the examples.
          schema: of the examples.
          anomalies: what ExampleValidator found in them.
          settings: GateSettings as JSON.
          serving_dir: folder or URI of the versions that are served; "" for none. Read when the
            node runs: an orchestrator that keeps a cache has to know when it changes.
          quarantine: path or URI of the record of quarantined spans; "" for none.
        """
        super().__init__(
            DataGateSpec(
                examples=examples,
                statistics=statistics,
                schema=schema,
                anomalies=anomalies,
                settings=settings,
                serving_dir=serving_dir,
                quarantine=quarantine,
                blessing=tfx.dsl.Channel(type=DataBlessing),
            )
        )
