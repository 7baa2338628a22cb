"""The artifact that says that data may be trained on."""

from tfx import v1 as tfx


class DataBlessing(tfx.dsl.Artifact):
    """Emitted by DataGate when every split keeps to the schema; holds `data_blessing.json`."""

    TYPE_NAME = "components.DataBlessing"
