"""DataGate: anomalies in, a blessing out or a stopped run."""

from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec
from tfx.types import component_spec

from components.data_gate import executor
from components.data_gate.artifacts import DataBlessing

_types = tfx.types.standard_artifacts


class DataGateSpec(component_spec.ComponentSpec):
    """The contract of DataGate."""

    PARAMETERS: dict[str, component_spec.ExecutionParameter] = {}
    INPUTS = {
        "statistics": component_spec.ChannelParameter(type=_types.ExampleStatistics),
        "anomalies": component_spec.ChannelParameter(type=_types.ExampleAnomalies),
    }
    OUTPUTS = {"blessing": component_spec.ChannelParameter(type=DataBlessing)}


class DataGate(tfx.types.BaseComponent):
    """Fails when ExampleValidator found anomalies, which by itself lets the run go on.

    What must not see bad data is put behind it with `add_upstream_node`.
    """

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(self, *, statistics: tfx.types.BaseChannel, anomalies: tfx.types.BaseChannel):
        """Takes the outputs of StatisticsGen and ExampleValidator."""
        super().__init__(
            DataGateSpec(
                statistics=statistics,
                anomalies=anomalies,
                blessing=tfx.dsl.Channel(type=DataBlessing),
            )
        )
