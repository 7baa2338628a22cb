"""Statistics of digits that can be compared, and kept beside a served generator."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.data_gate.drift import CLASSES, LABEL
from parsing import parse_json
from registry.layout import STATISTICS_FILES

_FLOAT_BINS = 30


@dataclass(frozen=True)
class Digits:
    """Digits with the scalars derived from them.

    Attributes:
      images: uint8 [n, 784].
      columns: int64 or float32 [n] by feature, the label among them.
    """

    images: np.ndarray
    columns: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> np.ndarray:
        """int64 [n], 0..9."""
        return self.columns[LABEL]

    def rows(self, start: int, stop: int) -> "Digits":
        """Those from `start` up to `stop`."""
        return Digits(
            self.images[start:stop],
            {name: values[start:stop] for name, values in self.columns.items()},
        )


def join(parts: list[Digits]) -> Digits:
    """One after the other; at least one."""
    names = parts[0].columns
    return Digits(
        np.concatenate([part.images for part in parts]),
        {name: np.concatenate([part.columns[name] for part in parts]) for name in names},
    )


@dataclass(frozen=True)
class DataStatistics:
    """What is kept of the data behind a generator.

    Attributes:
      features: TFDV's statistics, with histograms over the schema's domains.
      class_means: float32 [10, 784], 0..255; a row of NaN for a class without digits.
      spans: as in `spans.json`, the newest last.
    """

    features: statistics_pb2.DatasetFeatureStatisticsList
    class_means: np.ndarray
    spans: list[dict[str, Any]]

    @property
    def fingerprints(self) -> list[str]:
        """Of the spans."""
        return [span["fingerprint"] for span in self.spans]

    def as_files(self) -> dict[str, bytes]:
        """Content by the names in `STATISTICS_FILES`."""
        means = io.BytesIO()
        np.save(means, self.class_means)
        contents = (
            self.features.SerializeToString(deterministic=True),
            means.getvalue(),
            json.dumps({"spans": self.spans}, indent=2).encode(),
        )
        return dict(zip(STATISTICS_FILES, contents, strict=True))

    @classmethod
    def of_files(cls, contents: Mapping[str, bytes]) -> "DataStatistics":
        """The inverse of `as_files`; raises ValueError for content that is something else."""
        features, means, about = (contents[name] for name in STATISTICS_FILES)
        try:
            found = cls(
                statistics_pb2.DatasetFeatureStatisticsList.FromString(features),
                np.load(io.BytesIO(means), allow_pickle=False),
                parse_json(about)["spans"],
            )
            if found.class_means.shape[0] != CLASSES or not all(found.fingerprints):
                raise ValueError("class means or fingerprints are missing")
            return found
        except Exception as error:  # protobuf, NumPy and JSON each raise their own
            raise ValueError(f"the statistics cannot be read: {error}") from error


def describe(
    digits: Digits, schema: schema_pb2.Schema
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """TFDV's statistics of the scalars and the label.

    TFDV draws a histogram from the smallest to the largest value there is, so that one outlier
    moves every bin, and the divergence of two random halves of MNIST is 0.05. These are drawn over
    the schema's domain.
    """
    found = tfdv.generate_statistics_from_dataframe(
        pd.DataFrame(digits.columns), tfdv.StatsOptions(schema=schema)
    )
    edges = {feature.name: bin_edges(feature) for feature in schema.feature}
    for feature in found.datasets[0].features:
        [name] = feature.path.step
        bins = edges.get(name)
        if feature.HasField("num_stats") and bins is not None:
            _draw(feature.num_stats, digits.columns[name], bins)
    return found


def bin_edges(feature: schema_pb2.Feature) -> np.ndarray | None:
    """The edges of a feature's histogram; None where the schema bounds no numbers."""
    kind = feature.WhichOneof("domain_info")
    if kind == "int_domain":
        return np.arange(feature.int_domain.min, feature.int_domain.max + 2) - 0.5
    if kind == "float_domain":
        return np.linspace(feature.float_domain.min, feature.float_domain.max, _FLOAT_BINS + 1)
    return None


def class_means(digits: Digits) -> np.ndarray:
    """The mean image of each class, float32 [10, 784]; NaN for a class without digits."""
    means = np.full((CLASSES, digits.images.shape[1]), np.nan, np.float32)
    for digit in np.unique(digits.labels):
        means[digit] = digits.images[digits.labels == digit].mean(axis=0)
    return means


def _draw(
    statistics: statistics_pb2.NumericStatistics, values: np.ndarray, edges: np.ndarray
) -> None:
    """Replaces the plain histogram; what is outside the edges counts in the outermost bins."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    for histogram in statistics.histograms:
        if histogram.type == statistics_pb2.Histogram.STANDARD:
            del histogram.buckets[:]
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
                histogram.buckets.add(low_value=low, high_value=high, sample_count=float(count))
