"""Typed settings of the evaluation."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Figures that not every generator has, or not every run.
CONDITIONAL_FIGURES = ("agreement", "lowest_agreement", "classification_accuracy")
DEEP_FIGURES = ("two_sample_accuracy", "classification_accuracy")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bounds(_Section):
    """The values a figure may take; null: no bound on that side."""

    # Not infinite nor NaN either: as JSON they would be null, which is no bound.
    min: float | None = Field(None, allow_inf_nan=False, description="lowest value that passes")
    max: float | None = Field(None, allow_inf_nan=False, description="highest value that passes")

    @model_validator(mode="after")
    def _refuse_what_nothing_passes(self) -> "Bounds":
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: nothing would pass")
        return self

    def holds(self, value: float) -> bool:
        """Whether a value keeps to both bounds; NaN never does."""
        above = self.min is None or value >= self.min
        below = self.max is None or value <= self.max
        return above and below and value == value

    def __str__(self) -> str:
        bounds = [("at least", self.min), ("at most", self.max)]
        return " and ".join(f"{word} {value:g}" for word, value in bounds if value is not None)


def _at_least(value: float | None, description: str) -> Bounds:
    return Field(Bounds(min=value), description=description)


def _at_most(value: float | None, description: str) -> Bounds:
    return Field(Bounds(max=value), description=description)


class Thresholds(_Section):
    """Bounds that a generator must keep to be blessed, by figure; `docs/evaluation.md` has them."""

    fid: Bounds = _at_most(None, "Frechet distance to the eval split")
    fid_ratio: Bounds = _at_most(10.0, "that as a multiple of real training digits' own")
    test_fid: Bounds = _at_most(None, "Frechet distance to the test split, where there is one")
    test_fid_ratio: Bounds = _at_most(None, "that as a multiple of real training digits' own")
    fid_infinity: Bounds = _at_most(None, "that distance, extrapolated to endless samples")
    kid: Bounds = _at_most(None, "kernel distance to the eval split")
    classifier_score: Bounds = _at_least(None, "how sure the classifier is, and of how many, 1..10")
    precision: Bounds = _at_least(0.5, "share of samples among real digits")
    recall: Bounds = _at_least(0.3, "share of real digits among samples")
    density: Bounds = _at_least(None, "how deep among real digits samples lie")
    coverage: Bounds = _at_least(0.3, "share of real digits with a sample near")
    digit_distance: Bounds = _at_most(0.08, "share of samples of another digit than in the data")
    lowest_digit_share: Bounds = _at_least(
        0.5, "of the digit drawn least: its share of samples over that of the data"
    )
    agreement: Bounds = _at_least(0.95, "share of samples seen as the digit that was asked for")
    lowest_agreement: Bounds = _at_least(0.85, "that of the digit least often seen when asked for")
    lowest_class_spread: Bounds = _at_least(0.3, "variety of the digit that varies least")
    nearest_distance: Bounds = _at_least(None, "how far samples lie from training digits")
    near_copies: Bounds = _at_most(0.1, "share of samples that are nearly training digits")
    ink_difference: Bounds = _at_most(0.3, "relative difference of the mean grey level")
    sharpness_difference: Bounds = _at_most(0.5, "relative difference of edges per ink")
    two_sample_accuracy: Bounds = _at_most(None, "how well samples are told from real digits; deep")
    classification_accuracy: Bounds = _at_least(None, "of a classifier taught by samples; deep")


def _tolerance(value: float | None, description: str) -> float | None:
    return Field(value, ge=0, description=description)


class Tolerances(_Section):
    """By how much a figure may be worse than that of the model being served; null: by anything."""

    fid: float | None = _tolerance(0.03, "as a share of the served model's")
    test_fid: float | None = _tolerance(0.2, "as a share of the served model's")
    kid: float | None = _tolerance(None, "as a share of the served model's")
    classifier_score: float | None = _tolerance(0.1, "digits, of 10")
    precision: float | None = _tolerance(0.03, "share of samples")
    recall: float | None = _tolerance(0.03, "share of real digits")
    density: float | None = _tolerance(0.1, "as the figure")
    coverage: float | None = _tolerance(0.03, "share of real digits")
    digit_distance: float | None = _tolerance(0.01, "share of samples")
    lowest_digit_share: float | None = _tolerance(0.1, "of that quotient")
    agreement: float | None = _tolerance(0.01, "share of samples")
    lowest_agreement: float | None = _tolerance(0.03, "share of samples")
    lowest_class_spread: float | None = _tolerance(0.1, "as the figure, a multiple")
    near_copies: float | None = _tolerance(0.02, "share of samples")
    ink_difference: float | None = _tolerance(0.05, "as the figure, a share")
    sharpness_difference: float | None = _tolerance(0.05, "as the figure, a share")


class EvaluationSettings(_Section):
    """How a generator is measured and what it must keep to."""

    samples: int = Field(10_000, ge=100, le=1_000_000, description="generated digits measured")
    fid_samples: int = Field(
        20_000, ge=100, le=1_000_000, description="those the Frechet distance uses, if more"
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="first seed of the samples")
    resamples: int = Field(50, ge=2, le=10_000, description="half-samples behind an interval")
    deep: bool = Field(
        False, description="also the figures that train a network, minutes for each generator"
    )
    thresholds: Thresholds = Thresholds()
    tolerances: Tolerances = Tolerances()
    broken_baseline: Literal["fail", "ignore"] = Field(
        "fail", description="when the model being served cannot be loaded"
    )
