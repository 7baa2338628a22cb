"""Renders the report of an evaluation as one self-contained HTML file."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from evaluation.metric_table import METRICS
from evaluation.report import charts
from evaluation.settings import EvaluationSettings
from models.digit_classifier.settings import ClassifierSettings
from models.gan.settings import TrainSettings

_DEFAULTS = {
    "classifier": ClassifierSettings(),
    "train": TrainSettings(),
    "evaluation": EvaluationSettings(),
}

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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
      evaluation: content of `evaluation.json`.
      arrays: content of `samples.npz`.
      progress: lines of the training's `progress.jsonl`, oldest first.
      anomalies: findings of ExampleValidator, a line each.
      run_id: id of the run; None if it is not known.
      data: content of `data_blessing.json`; None without one.
    """
    return _template("report.html.jinja").render(
        evaluation=evaluation,
        descriptions={name: metric.description for name, metric in METRICS.items()},
        images=_images(arrays),
        charts=_charts(evaluation, progress, data),
        data=data,
        anomalies=anomalies,
        run_id=run_id,
        lineage=list(_lineage(evaluation, data)),
        command=reproduction_command(evaluation["about"], data),
        settings={key: _as_text(value) for key, value in _in_force(evaluation["about"])},
    )


def _lineage(
    evaluation: Mapping[str, Any], data: Mapping[str, Any] | None
) -> Iterator[tuple[str, str]]:
    """Yields what is known before the push; `local_runner.py lineage` shows all of it."""
    about, unknown = evaluation["about"], "not recorded"
    for span in data["spans"] if data else []:
        yield f"span {span['span']}", span["fingerprint"]
    yield "train split", about["data"]["fingerprint"]
    provenance = about.get("provenance", {})
    yield "schema", provenance.get("schema_sha256") or unknown
    yield "classifier", provenance.get("classifier_sha256") or unknown
    yield "started", provenance.get("start") or unknown
    yield "commit", about["commit"] or unknown
    compared = evaluation["baseline"]["version"]
    yield "compared with", "no version" if compared is None else f"version {compared}"


def reproduction_command(about: Mapping[str, Any], data: Mapping[str, Any] | None) -> str:
    """Returns the command that repeats a run, without settings that have their default.

    Args:
      about: `about` of `evaluation.json`.
      data: content of `data_blessing.json`; None without one.
    """
    spans = [each["span"] for each in data["spans"]] if data else [about["data"]["span"]]
    defaults = dict(_in_force({name: s.model_dump(mode="json") for name, s in _DEFAULTS.items()}))
    changed = [(key, value) for key, value in _in_force(about) if value != defaults[key]]
    settings = [("data.window", "static:" + ",".join(map(str, spans))), *changed]
    options = [f"--set {shlex.quote(f'{key}={_as_text(value)}')}" for key, value in settings]
    return " \\\n  ".join(["python local_runner.py run --no-cache", *options])


def _in_force(about: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the settings of classifier, training and evaluation, by dotted key."""
    for name in about if prefix else _DEFAULTS:
        value, key = about.get(name, {}), f"{prefix}{name}"
        if key == "train":
            value = value | about.get("tuned", {})
        if isinstance(value, Mapping):
            yield from _in_force(value, f"{key}.")
        else:
            yield key, value


def _as_text(value: Any) -> str:
    """Returns a setting as `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def render_comparison(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Renders a page with the metrics of several runs.

    Args:
      runs: name and content of `evaluation.json` of each run, oldest first.
    """
    measured = [(name, each["metrics"]["fid"]) for name, each in runs if "fid" in each["metrics"]]
    chart = charts.runs_chart(
        [name for name, _ in measured],
        [fid["value"] for _, fid in measured],
        [fid["floor"] for _, fid in measured],
    )
    return _template("comparison.html.jinja").render(
        runs=runs, titles=metric_titles(runs), chart=Markup(chart)
    )


def metric_titles(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Returns the title of each metric that any of the runs has, by name."""
    return {name: metric["title"] for _, each in runs for name, metric in each["metrics"].items()}


def number(value: float | None, digits: int = 4) -> str:
    """Returns so many significant digits, small numbers as 1.2×10⁻⁵; a dash for None."""
    if value is None:
        return "–"
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return (
        f"{float(mantissa):.2g}×10{str(int(exponent)).translate(_RAISED)}" if exponent else mantissa
    )


def interval(values: Sequence[float] | None) -> str:
    """Returns a 95 % interval in words; "" for None."""
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


def _images(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns data URLs of PNGs; for a conditional generator a row holds images of one label."""
    images = {"candidate": charts.grid_png(_by_digit(arrays["images"]), 10)}
    if "baseline_images" in arrays:
        images["baseline"] = charts.grid_png(_by_digit(arrays["baseline_images"]), 10)
    if len(arrays["nearest"]):
        pairs = arrays["nearest"].transpose(1, 0, 2, 3, 4).reshape(-1, 28, 28, 1)
        images["nearest"] = charts.grid_png(pairs, len(arrays["nearest"]))
    paths = arrays["interpolation"]
    images["interpolation"] = charts.grid_png(paths.reshape(-1, 28, 28, 1), paths.shape[1])
    return images


def _by_digit(images: np.ndarray) -> np.ndarray:
    """Reorders images whose labels are 0 to 9 in turn, so that a row of ten has one label."""
    whole = images[: len(images) // 10 * 10]
    return whole.reshape(-1, 10, *images.shape[1:]).swapaxes(0, 1).reshape(whole.shape)


def _charts(
    evaluation: Mapping[str, Any],
    progress: Sequence[Mapping[str, Any]],
    data: Mapping[str, Any] | None,
) -> dict[str, Markup]:
    classes = evaluation["classes"]
    found = {"shares": charts.shares_chart(classes["shares"], classes["real_shares"])}
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
    """Returns the points at which the value changes: a line repeats the last validation FID."""
    return [
        point
        for number, point in enumerate(points)
        if number == 0 or points[number - 1][1] != point[1]
    ]
