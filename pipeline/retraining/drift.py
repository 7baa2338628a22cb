"""Looks, before a run, how far new spans are from the data behind the served version.

It imports no TFX. Within the run `DataGate` measures the same distances on all digits.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.data_gate.drift import LABEL, measure
from mnist.completeness import SpanState
from mnist.digits import scan
from mnist.features import derive_scalars
from mnist.splits import Split
from pipeline.local.errors import UsageError
from registry.layout import STATISTICS_FILES, newest_version, version_dir
from registry.records import data_fingerprints, read_statistics

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
    version = newest_version(serving_dir)
    if version is None:
        return True, "nothing is served yet"
    served = _read_served(version_dir(serving_dir, version))
    if served is None:
        return True, f"version {version} does not say what data it was made of"
    known, statistics = served
    new = [state for state in spans if state.fingerprint not in known]
    if not new:
        return False, f"version {version} was made of these very data"
    for state in new:
        over = [
            f"{each.feature} by {each.value:.3f} (let pass: {limit:g})"
            for each in measure(_read_columns(state), statistics)
            if (limit := limits[each.kind]) is not None and each.value > limit
        ]
        if over:
            return True, f"span {state.span} has drifted in {', '.join(over)}"
    names = ", ".join(str(state.span) for state in new)
    return False, f"span {names} has not drifted from the data behind version {version}"


def _read_served(
    version: Path,
) -> tuple[list[str], statistics_pb2.DatasetFeatureStatistics] | None:
    """The fingerprints of the spans behind a version, and their statistics; None where missing."""
    contents, known = read_statistics(version), data_fingerprints(version)
    if contents is None:
        return None
    try:
        found = statistics_pb2.DatasetFeatureStatisticsList()
        found.ParseFromString(contents[STATISTICS_FILES[0]])
        if known is None or not found.datasets:
            raise ValueError("spans or features are missing")
        return known, found.datasets[0]
    except (DecodeError, ValueError) as error:
        raise UsageError(
            f"the data statistics cannot be read ({error}), expected what was pushed with the "
            "version",
            str(version),
            "take another condition than drift, or roll back to an intact version",
        ) from error


def _read_columns(state: SpanState) -> dict[str, np.ndarray]:
    """Reads all labels of a span, and derives the scalars of evenly spaced images."""
    if state.files is None:
        raise ValueError(f"span {state.span} is not complete")
    pairs = scan(state.files.paths, state.fingerprint)
    labels = np.concatenate([pair.labels for pair in pairs])
    kept = np.zeros(len(labels), bool)
    kept[np.linspace(0, len(labels) - 1, min(len(labels), _MOST_IMAGES)).astype(np.int64)] = True
    ends = np.cumsum([len(pair) for pair in pairs])
    sample = Split(tuple(zip(pairs, np.split(kept, ends[:-1]), strict=True))).read()
    return {LABEL: labels, **derive_scalars(sample.images)}
