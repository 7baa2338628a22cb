"""Early stopping by the validation FID."""

from collections.abc import Sequence

import numpy as np


class EarlyStopping:
    """Stops a training that has not improved its FID for `patience` evaluations.

    Attributes:
      fids: of all evaluations so far, in order.
    """

    def __init__(self, patience: int | None) -> None:
        """Starts without an evaluation.

        Args:
          patience: evaluations without a lower FID before the training stops; None for no stop.
        """
        self._patience = patience
        self.fids: list[float] = []

    def add(self, fid: float) -> bool:
        """Adds an evaluation; returns whether no FID before was lower."""
        self.fids.append(fid)
        return fid <= min(self.fids)

    def reset(self, fids: Sequence[float] = ()) -> None:
        """Replaces the evaluations so far, for example by those before an interruption."""
        self.fids = list(fids)

    @property
    def should_stop(self) -> bool:
        """Whether the last `patience` evaluations brought no lower FID."""
        if self._patience is None or not self.fids:
            return False
        return len(self.fids) - 1 - int(np.argmin(self.fids)) >= self._patience
