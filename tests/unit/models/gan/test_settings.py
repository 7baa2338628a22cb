"""Combinations of settings that cannot work, and their neighbors that can."""

from typing import Any

import pytest
from gan_helpers import TINY, WGAN_GP
from pydantic import ValidationError

from models.gan.settings import _CONFLICTS, TrainSettings

REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"max_steps": None}, ["max_seconds", "max_steps", "null"]),
    ({"deterministic": True, "max_seconds": 9.0}, ["deterministic", "max_seconds=null"]),
    ({"generator_channels": (8, 0, 4)}, ["generator_channels", "1 or more"]),
    ({"label_smoothing": 0.1, "loss": "hinge"}, ["label_smoothing", "loss=hinge"]),
    ({"loss": "wasserstein"}, ["loss=wasserstein", "gradient_penalty_weight", "spectral"]),
    (
        {"discriminator_normalization": "batch", "r1_weight": 0, "r2_weight": 0.1},
        ["discriminator_normalization=batch", "r1_weight", "r2_weight", "gradient_penalty_weight"],
    ),
    (
        {"tie_projection": True, "discriminator_normalization": "spectral"},
        ["tie_projection", "discriminator_normalization=spectral"],
    ),
    ({"patience": 1, "evaluations": 0}, ["patience", "evaluations=0"]),
    ({"warm_start": "auto", "evaluations": 1}, ["warm_start=auto", "evaluations=1"]),
]


@pytest.mark.parametrize("place", range(len(_CONFLICTS)))
def test_each_conflict_is_reached_and_says_which_settings(place: int) -> None:
    changed, words = REFUSED[place]
    drafted = TrainSettings.model_construct(**(TINY | changed))
    assert [is_wrong(drafted) for is_wrong, _ in _CONFLICTS].index(True) == place
    with pytest.raises(ValidationError) as caught:
        TrainSettings(**(TINY | changed))
    (error,) = caught.value.errors()
    for word in words:
        assert word in error["msg"]
    assert "{" not in error["msg"]


def test_settings_beside_a_conflict_are_accepted() -> None:
    for changed in (
        {"max_steps": 2, "max_seconds": None, "deterministic": True},
        {"label_smoothing": 0.1, "loss": "minimax"},
        WGAN_GP,
        {"discriminator_normalization": "batch", "r1_weight": 0},
        {"tie_projection": True, "discriminator_normalization": "batch", "r1_weight": 0},
        {"auxiliary_loss_weight": 0.1, "conditional": False},
        {"patience": 1, "evaluations": 1},
    ):
        TrainSettings(**(TINY | changed))
    assert len(REFUSED) == len(_CONFLICTS)
