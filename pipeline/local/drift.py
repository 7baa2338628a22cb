"""Looks, before a run, how far new spans are from the data behind the served version.

It imports no TFX. Within the run `DataGate` measures the same distances on all digits.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.data_gate.drift import LABEL, measure
from components.mnist_example_gen.completeness import SpanState
from components.mnist_example_gen.features import derive_scalars
from components.mnist_example_gen.idx import read_pair
from components.mnist_example_gen.spans import SpanFiles
from components.pusher.versions import list_versions
from pipeline.local.places import UsageError

# What goes with a pushed version; `components/data_blessing.py` names the same, and imports TFX.
FOLDER = Path("assets.extra", "data_statistics")
STATISTICS_FILE, ABOUT_FILE = "statistics.pb", "data.json"

# More images of a span change a divergence by a hundredth, and cost time.
_MOST_IMAGES = 5_000


def find_drift(
    serving_dir: Path, spans: Sequence[SpanState], limits: Mapping[str, float | None]
) -> tuple[bool, str]:
    """Whether a span that the served version was not made of lies too far from those it was.

    Args:
      serving_dir: with a folder per version.
      spans: complete ones.
      limits: by kind of distance; None: any distance will do.

    Returns:
      Whether there is such a span; and which, how far and in what, or why there is none. It holds
      too where nothing is served, or a version that does not say what it was made of.

    Raises:
      UsageError: what the version says of its data cannot be read.
    """
    versions = list_versions(str(serving_dir))
    if not versions:
        return True, "nothing is served yet"
    folder = serving_dir / str(versions[-1]) / FOLDER
    if not (folder / STATISTICS_FILE).exists():
        return True, f"version {versions[-1]} does not say what data it was made of"
    known, statistics = _read_served(folder)
    new = [state for state in spans if state.fingerprint not in known]
    if not new:
        return False, f"version {versions[-1]} was made of these very data"
    for state in new:
        over = [
            f"{each.feature} by {each.value:.3f} (let pass: {limit:g})"
            for each in measure(_read_columns(state.files), statistics)
            if (limit := limits[each.kind]) is not None and each.value > limit
        ]
        if over:
            return True, f"span {state.span} has drifted in {', '.join(over)}"
    names = ", ".join(str(state.span) for state in new)
    return False, f"span {names} has not drifted from the data behind version {versions[-1]}"


def _read_served(folder: Path) -> tuple[set[str], statistics_pb2.DatasetFeatureStatistics]:
    """The fingerprints of the spans behind a version, and their statistics."""
    try:
        found = statistics_pb2.DatasetFeatureStatisticsList()
        found.ParseFromString((folder / STATISTICS_FILE).read_bytes())
        spans = json.loads((folder / ABOUT_FILE).read_text())["spans"]
        return {span["fingerprint"] for span in spans}, found.datasets[0]
    except (OSError, DecodeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"{folder} cannot be read ({error}). Expected the statistics that were pushed with the "
            "version: take another condition than drift, or roll back to an intact version."
        ) from error


def _read_columns(files: SpanFiles | None) -> dict[str, np.ndarray]:
    """Reads all labels of a span, and derives the scalars of evenly spaced images."""
    if files is None:
        raise ValueError("the span is not complete")
    pairs = [(files.train_images, files.train_labels)]
    if files.eval_images and files.eval_labels:
        pairs.append((files.eval_images, files.eval_labels))
    parts = zip(*(read_pair(*pair) for pair in pairs), strict=True)
    images, labels = (np.concatenate(part) for part in parts)
    rows = np.linspace(0, len(images) - 1, min(len(images), _MOST_IMAGES)).astype(np.int64)
    return {LABEL: labels, **derive_scalars(images[rows])}
