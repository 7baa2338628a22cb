"""A distance between data and the data before it, without TFX, for the look before a run too."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Distance:
    """How far a feature has moved.

    Attributes:
      feature: its name.
      kind: `l_infinity`, the largest change of a digit's share, for the label; else
        `jensen_shannon`, the divergence of the histograms in bits.
      value: 0..1.
    """

    feature: str
    kind: str
    value: float
