"""Where a run's files lie, and the error for a run that cannot start."""

from dataclasses import dataclass
from pathlib import Path


class UsageError(Exception):
    """The run cannot start as it was asked for."""


@dataclass(frozen=True)
class Places:
    """Where a run's files lie, all under the output folder."""

    root: Path

    @property
    def database(self) -> Path:
        """ML Metadata's SQLite file."""
        return self.root / "metadata.sqlite"

    @property
    def artifacts(self) -> Path:
        """TFX's pipeline root."""
        return self.root / "artifacts"

    @property
    def serving(self) -> Path:
        """The models that are served, `<name>/<version>/`."""
        return self.root / "serving"

    @property
    def checkpoints(self) -> Path:
        """The state of trainings that were cut off."""
        return self.root / "checkpoints"

    @property
    def reports(self) -> Path:
        """A page per run, `<run>/report.html`."""
        return self.root / "reports"

    @property
    def logs(self) -> Path:
        """A log per run."""
        return self.root / "logs"
