"""Where a run's files lie, and the error for a run that cannot start."""

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.local.errors import UsageError
from pipeline.local.metadata import Database
from pipeline.settings.sections import MetadataSettings, Settings
from registry.settings import PushSettings

__all__ = ["Places", "UsageError"]


@dataclass(frozen=True)
class Places:
    """Where a run's files lie, all under the output folder."""

    root: Path
    metadata: MetadataSettings = field(default_factory=MetadataSettings)
    model_name: str = PushSettings().model_name

    @classmethod
    def of(cls, settings: Settings) -> "Places":
        """Those of a run with these settings.

        Raises:
          UsageError: the output folder's path is a pattern to Beam and TensorFlow.
        """
        root = Path(settings.output_dir).absolute()
        if set("*?[]\\") & set(str(root)):
            raise UsageError(
                r"Beam and TensorFlow would read *, ?, [, ] or \ in a path as a pattern",
                f"output_dir {root}",
                "name a folder whose path has none of them",
            )
        return cls(root, settings.metadata, settings.push.model_name)

    @property
    def database(self) -> Database:
        """ML Metadata: SQLite's file in the output folder, or a server."""
        file = self.root / "metadata.sqlite"
        return Database(file, self.metadata.url)

    @property
    def artifacts(self) -> Path:
        """TFX's pipeline root."""
        return self.root / "artifacts"

    @property
    def serving(self) -> Path:
        """The models that are served, `<name>/<version>/`."""
        return self.root / "serving"

    @property
    def versions(self) -> Path:
        """The versions of this run's model: the base that `registry/` knows, and servers watch."""
        return self.serving / self.model_name

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
