"""The report of one evaluation, as one HTML file that needs nothing else."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from components.generator_evaluator.report import charts
from components.generator_evaluator.settings import EvaluationSettings
from models.digit_classifier.settings import ClassifierSettings
from models.gan.settings import TrainSettings

_DEFAULTS = {
    "classifier": ClassifierSettings(),
    "train": TrainSettings(),
    "evaluation": EvaluationSettings(),
}

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
TITLES = {
    "fid": "FID",
    "fid_ratio": "FID over its floor",
    "test_fid": "FID, fixed test split",
    "test_fid_ratio": "FID, fixed test split, over its floor",
    "fid_infinity": "FID, endless samples",
    "kid": "KID",
    "classifier_score": "Classifier score",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "digit_distance": "Distance of digit shares",
    "lowest_digit_share": "Least drawn digit, of its share",
    "agreement": "Asked digit seen",
    "lowest_agreement": "Asked digit seen, worst digit",
    "lowest_class_spread": "Variety within a digit, lowest",
    "nearest_distance": "Distance to training digits",
    "near_copies": "Near-copies of training digits",
    "ink_difference": "Difference of ink",
    "sharpness_difference": "Difference of sharpness",
    "two_sample_accuracy": "Two-sample test",
    "classification_accuracy": "Classification accuracy score",
}


def render_report(
    evaluation: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    progress: Sequence[Mapping[str, Any]],
    anomalies: Sequence[str],
    run_id: str | None,
    data: Mapping[str, Any] | None = None,
) -> str:
    """Renders the page.

    Args:
      evaluation: `evaluation.json`.
      arrays: of `samples.npz`.
      progress: the lines of the training's `progress.jsonl`, oldest first.
      anomalies: what ExampleValidator found, a line each.
      run_id: of the run; None when it is not known.
      data: `data_blessing.json`; None where nothing was compared.
    """
    return _template("report.html.jinja").render(
        evaluation=evaluation,
        titles=TITLES,
        failed={check["figure"] for check in evaluation["checks"] if not check["passed"]},
        pictures=_pictures(arrays),
        charts=_charts(evaluation, progress, data),
        data=data,
        anomalies=anomalies,
        run_id=run_id,
        command=make_again(evaluation["about"], data),
        settings={key: _written(value) for key, value in _in_force(evaluation["about"])},
    )


def make_again(about: Mapping[str, Any], data: Mapping[str, Any] | None) -> str:
    """The command that repeats a run; settings that have their defaults are left out.

    Args:
      about: of `evaluation.json`.
      data: `data_blessing.json`; None where nothing was compared.
    """
    spans = [each["span"] for each in data["spans"]] if data else [about["data"]["span"]]
    defaults = dict(_in_force({name: s.model_dump(mode="json") for name, s in _DEFAULTS.items()}))
    changed = [(key, value) for key, value in _in_force(about) if value != defaults[key]]
    settings = [("data.window", "static:" + ",".join(map(str, spans))), *changed]
    options = [f"--set {shlex.quote(f'{key}={_written(value)}')}" for key, value in settings]
    return " \\\n  ".join(["python local_runner.py run --no-cache", *options])


def _in_force(about: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of classifier, training and evaluation, by dotted key."""
    for name in about if prefix else _DEFAULTS:
        value, key = about.get(name, {}), f"{prefix}{name}"
        if key == "train":
            value = value | about.get("tuned", {})
        if isinstance(value, Mapping):
            yield from _in_force(value, f"{key}.")
        else:
            yield key, value


def _written(value: Any) -> str:
    """A setting as `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def render_comparison(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Renders a page with the figures of several runs.

    Args:
      runs: (name, `evaluation.json`) each, oldest first.
    """
    measured = [(name, each["figures"]["fid"]) for name, each in runs if "fid" in each["figures"]]
    chart = charts.runs_chart(
        [name for name, _ in measured],
        [fid["value"] for _, fid in measured],
        [fid["floor"] for _, fid in measured],
    )
    return _template("comparison.html.jinja").render(
        runs=runs, titles=TITLES, names=figure_names(runs), chart=Markup(chart)
    )


def figure_names(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """The figures that any of the runs has, in the order of the table of figures."""
    return list(dict.fromkeys(name for _, each in runs for name in each["figures"]))


def number(value: float | None, digits: int = 4) -> str:
    """So many significant digits, small ones as 1.2×10⁻⁵; a dash for what is not there."""
    if value is None:
        return "–"
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return (
        f"{float(mantissa):.2g}×10{str(int(exponent)).translate(_RAISED)}" if exponent else mantissa
    )


def interval(values: Sequence[float] | None) -> str:
    """A 95 % interval in words; nothing for what is not there."""
    return "" if values is None else f"{number(values[0], 3)} to {number(values[1], 3)}"


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": number, "interval": interval}
    return environment.get_template(name)


def _pictures(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Data addresses of PNGs, a row per digit where digits were asked for."""
    pictures = {"candidate": charts.grid_png(_by_digit(arrays["images"]), 10)}
    if "baseline_images" in arrays:
        pictures["baseline"] = charts.grid_png(_by_digit(arrays["baseline_images"]), 10)
    if len(arrays["nearest"]):
        pairs = arrays["nearest"].transpose(1, 0, 2, 3, 4).reshape(-1, 28, 28, 1)
        pictures["nearest"] = charts.grid_png(pairs, len(arrays["nearest"]))
    walks = arrays["interpolation"]
    pictures["interpolation"] = charts.grid_png(walks.reshape(-1, 28, 28, 1), walks.shape[1])
    return pictures


def _by_digit(images: np.ndarray) -> np.ndarray:
    """Samples that ask for 0..9 in turn, so that a row of ten holds one digit."""
    whole = images[: len(images) // 10 * 10]
    return whole.reshape(-1, 10, *images.shape[1:]).swapaxes(0, 1).reshape(whole.shape)


def _charts(
    evaluation: Mapping[str, Any],
    progress: Sequence[Mapping[str, Any]],
    data: Mapping[str, Any] | None,
) -> dict[str, Markup]:
    digits = evaluation["digits"]
    found = {"shares": charts.shares_chart(digits["shares"], digits["real_shares"])}
    if data:
        found["histograms"] = charts.histograms_chart(data["histograms"])
    if progress:
        seconds = [line["seconds"] for line in progress]
        scalars = [line["scalars"] for line in progress]
        losses = [
            [each[f"{name}_loss"] for each in scalars] for name in ("discriminator", "generator")
        ]
        found["losses"] = charts.loss_chart(seconds, *losses)
    fids = [(line["seconds"], line["validation"]["fid"]) for line in progress if line["validation"]]
    if fids:
        found["fid"] = charts.fid_chart(*zip(*_changes(fids), strict=True))
    return {name: Markup(svg) for name, svg in found.items()}


def _changes(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points at which the value changes: each report repeats the last validation."""
    return [
        point
        for number, point in enumerate(points)
        if number == 0 or points[number - 1][1] != point[1]
    ]
