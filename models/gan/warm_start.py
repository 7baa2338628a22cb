"""Where a training begins: with weights drawn by the seed, or with the served training's.

A training leaves its last state beside the model that it exports, in `assets.extra/training/`,
which TensorFlow Serving does not load. It goes wherever the model goes: so each version that is
served holds it, on a disk or on a store, for as long as the version is there, and a training that
was not blessed leaves none where it could be found.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from models import storage
from models.gan.checkpoints import (
    MANIFEST,
    BrokenStateError,
    find_misfit,
    read_state,
    write_state,
)
from models.versions import newest_version

STATE = os.path.join("assets.extra", "training")
_log = logging.getLogger("mnist_gan.progress")


class WarmStartError(RuntimeError):
    """The training that is being served cannot be gone on from, and `train.warm_start` insists."""


class _UnfitError(Exception):
    """Why a served version cannot be gone on from."""


@dataclass(frozen=True)
class Start:
    """The state of the training that is being served.

    Attributes:
      version: that holds it.
      digest: of the state, hexadecimal.
      values: of the variables, by name.
      cold: how far, relative to the variance, a cold start was from held-out digits at its first
        evaluation; None when none was made.
    """

    version: str
    digest: str
    values: Mapping[str, np.ndarray]
    cold: float | None


@dataclass(frozen=True)
class Course:
    """How a training began.

    Attributes:
      start: in words.
      origin: the digest of the state that it was given; None where there was none.
      is_warm: whether it goes on from that, and has not been given up for a cold start.
      cold: as of `Start`.
    """

    start: str = "cold"
    origin: str | None = None
    is_warm: bool = False
    cold: float | None = None


def leave_state(
    model_dir: str, variables: Mapping[str, tf.Variable], step: int, course: Course
) -> None:
    """Writes the state of a training that ended beside its model.

    Args:
      model_dir: an exported SavedModel.
      variables: by name.
      step: updates done.
      course: how it began.

    Raises:
      OSError, tf.errors.OpError: when that fails.
    """
    with storage.new_folder(os.path.join(model_dir, STATE), last=MANIFEST) as place:
        write_state(place, variables, step, {"course": asdict(course)})


def find_start(
    wanted: Literal["none", "served", "auto"],
    serving_dir: str | None,
    variables: Mapping[str, tf.Variable],
) -> Start | None:
    """The state of the training whose model is served, if it is wanted and there is one.

    Args:
      wanted: `train.warm_start`.
      serving_dir: folder or URI with a folder per version; it need not exist.
      variables: of the training that is to begin, which the state has to fit.

    Returns:
      The state of the newest version; None for a cold start, the reason of which is logged.

    Raises:
      WarmStartError: under `served`, when that version has none that is whole and fits.
    """
    version = newest_version(serving_dir or "") if wanted != "none" else None
    if version is None:
        if wanted != "none":
            _log.info("cold start: no model is served yet")
        return None
    place = os.path.join(serving_dir or "", version, STATE)
    try:
        return _read_start(place, version, variables, judged=wanted == "auto")
    except _UnfitError as error:
        if wanted == "auto":
            _log.warning(f"cold start, since version {version} cannot be gone on from: {error}")
            return None
        raise WarmStartError(
            f"train.warm_start=served, and version {version} in {serving_dir} cannot be gone on "
            f"from: {error}. Train with the settings that its model card names, or set "
            "train.warm_start to auto, which begins anew then, or to none."
        ) from None


def read_origin(serving_dir: str, version: str) -> tuple[str, str | None]:
    """Names the state of a version.

    Returns:
      Its digest, "" where the version has no state that can be read; and the digest of the state
      that its training was given, None where there was none.
    """
    try:
        content = json.loads(storage.read(os.path.join(serving_dir, version, STATE, MANIFEST)))
        return content["sha256"], content["content"]["extra"]["course"]["origin"]
    except (OSError, ValueError, LookupError, TypeError, tf.errors.OpError):
        return "", None


def _read_start(
    place: str, version: str, variables: Mapping[str, tf.Variable], *, judged: bool
) -> Start:
    try:
        if not storage.exists(os.path.join(place, MANIFEST)):
            raise _UnfitError("it holds no state of a training")
        with storage.local_copy(place) as folder:
            content, values = read_state(folder)
            digest = _digest(folder)
    except (BrokenStateError, OSError, tf.errors.OpError) as error:
        raise _UnfitError(f"the state in {place} cannot be read: {error}") from error
    misfit = find_misfit(values, variables)
    if misfit:
        raise _UnfitError(f"its networks or optimizers are others: it holds {misfit}")
    course: dict[str, Any] = content["extra"]["course"]
    if judged and course["cold"] is None:
        raise _UnfitError("it was trained without evaluations, so there is nothing to hold it to")
    return Start(version, digest, values, course["cold"])


def _digest(folder: str) -> str:
    return json.loads(storage.read(os.path.join(folder, MANIFEST)))["sha256"]
