"""Whether one span may be trained on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.anomalies import describe_anomalies
from components.data_gate.drift import Distance, measure
from components.data_gate.labels import agrees, by_class
from components.data_gate.settings import GateSettings
from components.data_gate.statistics import DataStatistics, Digits, describe, join

_LEAST_OF_ONE_LABEL = 0.35  # some digits have no mean of their own to be near to


@dataclass
class Verdict:
    """What was found of a span.

    Attributes:
      span: its number.
      anomalies: what the schema does not allow, in words.
      faults: what else keeps it from being trained on, unless somebody releases it.
      warnings: what is odd about it.
      distances: from the data behind what is served; empty where there is none.
      agreement: by split, the share of labels that fit their images.
      features: its statistics.
    """

    span: int
    anomalies: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    distances: list[Distance] = field(default_factory=list)
    agreement: dict[str, float] = field(default_factory=dict)
    features: statistics_pb2.DatasetFeatureStatisticsList | None = None

    def as_json(self) -> dict[str, Any]:
        """For the record."""
        return {
            "span": self.span,
            "warnings": self.warnings,
            "distances": [vars(distance) for distance in self.distances],
            "label_agreement": self.agreement,
        }


def check_span(
    span: int,
    parts: Mapping[str, Digits],
    schema: schema_pb2.Schema,
    served: DataStatistics | None,
    settings: GateSettings,
) -> Verdict:
    """Checks a span by itself: its values, its distance from what is served, its labels.

    Args:
      span: its number.
      parts: its digits by split, one or more.
      schema: what a digit may be; how many a data set needs does not count for a span.
      served: of the data behind the generator that is served; None: no distances are measured.
      settings: the bounds.
    """
    verdict = Verdict(span)
    digits = join(list(parts.values()))
    features = verdict.features = describe(digits, schema)
    lenient = schema_pb2.Schema()
    lenient.CopyFrom(schema)
    lenient.ClearField("dataset_constraints")
    report = tfdv.validate_statistics(features, lenient)
    verdict.anomalies += describe_anomalies(report, f"span {span}")
    if served is not None:
        verdict.distances = measure(digits.columns, served.features.datasets[0])
        _bound_distances(verdict, settings)
    _bound_labels(verdict, parts, served, settings)
    return verdict


def _bound_distances(verdict: Verdict, settings: GateSettings) -> None:
    for distance in verdict.distances:
        stop = getattr(settings.drift.stop, distance.kind)
        warn = getattr(settings.drift.warn, distance.kind)
        name = distance.kind.replace("_", " ")
        found = (
            f"span {verdict.span}: {distance.feature}: {name} distance {distance.value:.3f} from "
            "the data behind what is served"
        )
        if stop is not None and distance.value > stop:
            verdict.faults.append(f"{found}; more than {stop:g} (gate.drift.stop.{distance.kind})")
        elif warn is not None and distance.value > warn:
            verdict.warnings.append(
                f"{found}; more than {warn:g} (gate.drift.warn.{distance.kind})"
            )


def _bound_labels(
    verdict: Verdict,
    parts: Mapping[str, Digits],
    served: DataStatistics | None,
    settings: GateSettings,
) -> None:
    means = served.class_means if served else None
    against = "the served data's" if served else "its own"
    # Of the digits themselves, all splits together: a small one has no good means of its own.
    all_agreed = agrees(join(list(parts.values())), means)
    ends = np.cumsum([len(digits) for digits in parts.values()])[:-1]
    for (split, digits), agreed in zip(parts.items(), np.split(all_agreed, ends), strict=True):
        share = verdict.agreement[split] = float(agreed.mean())
        least = settings.label_agreement
        if least is None:
            continue
        shares = [("the labels", share, len(digits), least)]
        shares += [
            (f"the labels {digit}", *found, min(least, _LEAST_OF_ONE_LABEL))
            for digit, found in by_class(digits, agreed).items()
        ]
        for what, share, count, least in shares:
            if share < least - _slack(count, least):
                verdict.faults.append(
                    f"span {verdict.span}: {what} of {split} do not fit the images: {share:.0%} "
                    f"of {count:,} are those of the nearest of {against} class means; expected "
                    f"{least:.0%} or more (gate.label_agreement)"
                )


def _slack(count: int, share: float) -> float:
    """Three standard deviations of a share of so few digits, 0..0.5."""
    return min(0.5, 3 * math.sqrt(share * (1 - share) / count))
