"""Charts as inline SVG in the colors of the page, and images as inline PNG."""

import base64
import io
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from models.gan.samples import encode_grid

# Placeholders that `_svg` replaces by variables of the style sheet, so that one SVG serves both
# themes.
_TEXT, _FIRST, _SECOND = "#010101", "#020202", "#030303"
_VARIABLES = {_TEXT: "currentColor", _FIRST: "var(--first)", _SECOND: "var(--second)"}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mnist-gan",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _TEXT,
    "axes.edgecolor": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
}


def fid_chart(seconds: Sequence[float], fids: Sequence[float]) -> str:
    """Draws the validation FID over the seconds of the training."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        axes.plot(seconds, fids, "o-", color=_FIRST)
        axes.set(xlabel="seconds of training", ylabel="validation FID")
        _logarithmic(axes)
        return _svg(figure)


def loss_chart(
    seconds: Sequence[float], discriminator: Sequence[float], generator: Sequence[float]
) -> str:
    """Draws both losses over the seconds of the training."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        axes.plot(seconds, discriminator, color=_FIRST, label="discriminator")
        axes.plot(seconds, generator, color=_SECOND, linestyle="--", label="generator")
        axes.set(xlabel="seconds of training", ylabel="loss")
        axes.legend(frameon=False)
        return _svg(figure)


def shares_chart(generated: Sequence[float], real: Sequence[float]) -> str:
    """Draws the share of each class, 0 to 1, among generated and among real images."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        digits = np.arange(10)
        axes.bar(digits - 0.2, np.multiply(generated, 100), 0.4, color=_FIRST, label="generated")
        axes.bar(
            digits + 0.2,
            np.multiply(real, 100),
            0.4,
            facecolor="none",
            edgecolor=_SECOND,
            hatch="///",
            label="real",
        )
        axes.set(xlabel="label", ylabel="share, %", xticks=digits)
        axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return _svg(figure)


def histograms_chart(histograms: Mapping[str, Mapping[str, Any]]) -> str:
    """Draws the histograms of each feature, of the new data and of the served model's data.

    Args:
      histograms: by feature, `edges` or `classes`, `new` and `served`, the latter possibly None.
    """
    with matplotlib.rc_context(_STYLE | {"font.size": 9}):
        figure = Figure(figsize=(9.0, 1.8 * -(-len(histograms) // 4)), layout="constrained")
        panels = figure.subplots(-(-len(histograms) // 4), 4, squeeze=False).ravel()
        for axes, (name, each) in zip(panels, histograms.items(), strict=False):
            edges = each.get("edges") or [digit - 0.5 for digit in [*each["classes"], 10]]
            axes.stairs(np.multiply(each["new"], 100), edges, color=_FIRST, label="new")
            if each["served"]:
                served = np.multiply(each["served"], 100)
                axes.stairs(served, edges, color=_SECOND, linestyle="--", label="served")
            axes.set_title(name.replace("_", " "), fontsize=9)
            if "classes" in each:
                axes.set_xticks(each["classes"])
        for axes in panels[len(histograms) :]:
            axes.set_visible(False)
        figure.supylabel("share, %", fontsize=9)
        lines = panels[0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside upper right", ncols=2, frameon=False)
        return _svg(figure)


def runs_chart(names: Sequence[str], fids: Sequence[float], floors: Sequence[float]) -> str:
    """Draws the FID of several runs, each with its floor."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        places = np.arange(len(names))
        axes.plot(places, fids, "o-", color=_FIRST, label="generator")
        axes.plot(places, floors, "s--", color=_SECOND, label="real training images (floor)")
        axes.set(ylabel="FID", xticks=places)
        _logarithmic(axes)
        axes.set_xticklabels(names, rotation=30, ha="right")
        axes.legend(frameon=False)
        return _svg(figure)


def grid_png(images: np.ndarray, columns: int) -> str:
    """Returns a data URL of a PNG with images uint8 [n, 28, 28, 1], row by row."""
    return "data:image/png;base64," + base64.b64encode(encode_grid(images, columns)).decode()


def _axes() -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.0, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.25, color=_TEXT, linewidth=0.5)
    axes.set_axisbelow(True)
    return figure, axes


def _logarithmic(axes: Any) -> None:
    """Makes the y axis logarithmic, with plain numbers at 1, 2 and 5 times each power of ten."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 aria-hidden="true"', svg, count=1)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    return _with_own_names(svg)


def _with_own_names(svg: str) -> str:
    """Prefixes ids by a hash of the content, since several SVGs share a page."""
    own = f"c{zlib.crc32(svg.encode())}-"
    svg = re.sub(r'\bid="', f'id="{own}', svg)
    svg = re.sub(r'href="#', f'href="#{own}', svg)
    return re.sub(r"url\(#", f"url(#{own}", svg)
