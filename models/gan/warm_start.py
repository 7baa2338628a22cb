"""Warm start: a training that starts from the final state of the served model's training.

A training writes its final state to a folder beside the model that it exports, which TensorFlow
Serving does not load (`registry/layout.py`). The state is pushed with the model, so each served
version holds the state that it came from, and a model that was not blessed leaves no state behind.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import tensorflow as tf

import storage
from errors import UserError
from models.gan.checkpoints import (
    MANIFEST,
    BrokenStateError,
    find_mismatch,
    read_state,
    write_state,
)
from parsing import parse_json

Mode = Literal["none", "served", "auto"]
_log = logging.getLogger("mnist_gan.progress")


class WarmStartError(UserError):
    """`train.warm_start` is `served`, and the served version has no state to start from."""


class _UnusableStateError(Exception):
    """A served version has no state that this training could start from."""


@dataclass(frozen=True)
class WarmStartState:
    """The final state of the served model's training.

    Attributes:
      version: the served version that holds it.
      digest: SHA-256 of the state, hexadecimal.
      values: of the variables, by name.
      cold_start_fid: relative validation FID of a cold start at its first evaluation; None if none
        was measured.
    """

    version: int
    digest: str
    values: Mapping[str, np.ndarray]
    cold_start_fid: float | None


@dataclass(frozen=True)
class TrainingLineage:
    """What a training started from.

    Attributes:
      start: a description for people, such as "cold" or "warm from version 3".
      origin: digest of the state that a warm start was given; None for none.
      is_warm: whether the training continues that state, and has not fallen back to a cold start.
      cold_start_fid: relative validation FID of a cold start at its first evaluation; None if none
        was measured.
    """

    start: str = "cold"
    origin: str | None = None
    is_warm: bool = False
    cold_start_fid: float | None = None


class WarmStart:
    """Starts a training from another one's state and, under `auto`, falls back to a cold start.

    Attributes:
      lineage: what the training started from.
    """

    def __init__(self, mode: Mode, variables: Mapping[str, tf.Variable]) -> None:
        """Describes a cold start.

        Args:
          mode: `train.warm_start`.
          variables: of the training, by name, with their initial values.
        """
        self._mode = mode
        self._variables = variables
        self._initial_values: dict[str, np.ndarray] = {}
        self.lineage = TrainingLineage()

    def begin_from(self, state: WarmStartState) -> None:
        """Sets the variables to a state that fits them, as from `find_warm_start_state`."""
        self._initial_values = {name: v.numpy() for name, v in self._variables.items()}
        self._assign(state.values)
        self.lineage = TrainingLineage(
            start=f"warm from version {state.version}",
            origin=state.digest,
            is_warm=True,
            cold_start_fid=state.cold_start_fid,
        )

    @property
    def may_fall_back(self) -> bool:
        """Whether the training is warm and `train.warm_start` is `auto`."""
        return self.lineage.is_warm and self._mode == "auto"

    def compare(self, relative_fid: float) -> str | None:
        """Compares the first evaluation of this training with that of a cold start.

        A cold start records its own evaluation in the lineage, for later warm starts.

        Args:
          relative_fid: of the first evaluation.

        Returns:
          Why a warm start should fall back; None if it should not.
        """
        lineage = self.lineage
        if not lineage.is_warm:
            self.lineage = replace(lineage, cold_start_fid=relative_fid)
        elif self.may_fall_back and lineage.cold_start_fid is not None:
            result = (
                f"a relative FID of {relative_fid:.3g} at the first evaluation, where a cold start "
                f"had {lineage.cold_start_fid:.3g}"
            )
            if relative_fid > lineage.cold_start_fid:
                return result
            _log.info(f"{lineage.start}: {result}")
        return None

    def fall_back(self, step: int, reason: str) -> None:
        """Sets the variables to their initial values and logs why.

        Args:
          step: updates so far.
          reason: what the warm start led to.
        """
        before = self.lineage.start
        self._assign(self._initial_values)
        start = f"cold at step {step}, because {before} led to {reason}"
        self.lineage = replace(self.lineage, start=start, is_warm=False, cold_start_fid=None)
        _log.warning(f"{before}: {reason}; the rest of the budget trains from a cold start")

    def _assign(self, values: Mapping[str, np.ndarray]) -> None:
        for name, variable in self._variables.items():
            variable.assign(values[name])


def write_final_state(
    folder: str, variables: Mapping[str, tf.Variable], step: int, lineage: TrainingLineage
) -> None:
    """Writes the final state of a training beside its model.

    Args:
      folder: path or URI; created.
      variables: by name.
      step: updates done.
      lineage: what the training started from.

    Raises:
      OSError, tf.errors.OpError: if a file cannot be written.
    """
    with storage.new_folder(folder, last=MANIFEST) as place:
        write_state(place, variables, step, {"lineage": asdict(lineage)})


def find_warm_start_state(
    mode: Mode, served: tuple[int, str] | None, variables: Mapping[str, tf.Variable]
) -> WarmStartState | None:
    """Finds the final state of the served model's training, if a warm start is wanted.

    Args:
      mode: `train.warm_start`.
      served: the served version, and the path or URI of its training state, which need not exist;
        None where nothing is served.
      variables: of the new training, by name, which the state has to fit.

    Returns:
      The state; None for a cold start, with the reason in the log.

    Raises:
      WarmStartError: under `served`, if the newest version has no intact state that fits.
    """
    if mode == "none":
        return None
    if served is None:
        _log.info("cold start: no model is served yet")
        return None
    version, folder = served
    try:
        return _read_final_state(folder, version, variables, needs_evaluation=mode == "auto")
    except _UnusableStateError as error:
        if mode == "auto":
            _log.warning(f"cold start, because version {version} allows no warm start: {error}")
            return None
        raise WarmStartError(
            f"train.warm_start is served, and version {version} allows no warm start: {error}",
            folder,
            "train with the settings in that version's model card, or set train.warm_start to "
            "auto, which falls back to a cold start, or to none",
        ) from None


def read_origin(folder: str) -> tuple[str, str | None]:
    """Identifies the training state in a folder.

    Returns:
      Its digest, "" if the folder has no readable state; and the digest of the state that its
      training started from, None for a cold start.
    """
    try:
        content = parse_json(storage.read(os.path.join(folder, MANIFEST)))
        return content["sha256"], content["content"]["extra"]["lineage"]["origin"]
    except (OSError, ValueError, LookupError, TypeError):
        return "", None


def _read_final_state(
    folder: str, version: int, variables: Mapping[str, tf.Variable], *, needs_evaluation: bool
) -> WarmStartState:
    try:
        if not storage.exists(os.path.join(folder, MANIFEST)):
            raise _UnusableStateError("it holds no training state")
        with storage.local_copy(folder) as copy:
            content, values = read_state(copy)
            digest = _digest(copy)
    except (BrokenStateError, OSError) as error:
        raise _UnusableStateError(f"the state in {folder} cannot be read: {error}") from error
    mismatch = find_mismatch(values, variables)
    if mismatch:
        raise _UnusableStateError(f"its networks or optimizers differ: it holds {mismatch}")
    lineage: dict[str, Any] = content["extra"]["lineage"]
    if needs_evaluation and lineage["cold_start_fid"] is None:
        raise _UnusableStateError("it was trained without evaluations to compare with")
    return WarmStartState(version, digest, values, lineage["cold_start_fid"])


def _digest(folder: str) -> str:
    return parse_json(storage.read(os.path.join(folder, MANIFEST)))["sha256"]
