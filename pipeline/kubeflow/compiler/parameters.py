"""What may change from run to run without compiling again: the runtime parameters of the spec.

A parameter that is a whole property of a component is TFX's own `RuntimeParameter`. A setting
inside a property that holds JSON is one more input parameter of the task, whose name is the
property and the path inside it, such as `custom_config.settings.max_seconds`; `entrypoint.py` puts
the value there before the node sees it. A placeholder written into the JSON would do on today's
open-source backend, whose launcher fills placeholders in whatever text there is. But it escapes
nothing, cannot leave a null, and Vertex AI need not do the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mnist.windows import SYNTAX
from pipeline.kubeflow import NULL_NUMBER
from pipeline.settings.sections import Settings

# Where the JSON of a section stands: the node, its property, and the path inside the property.
SECTION_PLACES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "train": (
        ("Trainer", "custom_config.settings"),
        ("Tuner", "custom_config.train"),
        ("GeneratorEvaluator", "train"),
    ),
    "evaluation": (("GeneratorEvaluator", "settings"),),
}


@dataclass(frozen=True)
class SettingParameter:
    """A setting that a run may change. `setting` is its dotted key; its first part the section."""

    name: str
    setting: str
    description: str

    def default(self, settings: Settings) -> float:
        """Its value, `NULL_NUMBER` for null."""
        value: Any = settings
        for part in self.setting.split("."):
            value = getattr(value, part)
        return NULL_NUMBER if value is None else float(value)

    def places(self) -> Iterator[tuple[str, str]]:
        """Yields the nodes that read the setting, and the name of its input parameter there."""
        section, _, rest = self.setting.partition(".")
        for node, place in SECTION_PLACES[section]:
            yield node, f"{place}.{rest}"


SETTING_PARAMETERS = (
    SettingParameter(
        "train_seconds",
        "train.max_seconds",
        "Seconds of GAN training; -1 for no bound, where there is a bound on steps.",
    ),
    SettingParameter(
        "max_fid_ratio",
        "evaluation.thresholds.fid_ratio",
        "Highest FID of a blessed generator, as a multiple of real images'; -1 for no bound.",
    ),
)
DATA_DIR = "data_dir"
DATA_DIR_DESCRIPTION = "Folder, gs:// or s3:// URI with the IDX files or span-<N>/ folders."
SPAN = "span"
SPAN_DESCRIPTION = "Span to ingest, whatever the window; -1 for those of the window."
WINDOW = "window"
WINDOW_DESCRIPTION = f"Spans to ingest where span is -1: {SYNTAX}."
