"""The artifact that people look at."""

from tfx import v1 as tfx


class EvaluationReport(tfx.dsl.Artifact):
    """Emitted by GeneratorEvaluator; holds `report.html`, which needs nothing else."""

    TYPE_NAME = "components.EvaluationReport"
