"""`local_runner.py lineage`: where a version of the generator is from."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import OutputDir, resolve_options

if TYPE_CHECKING:
    from registry.lineage import Check, Lineage, Metric

_UNKNOWN = "not recorded"


def lineage(
    version: Annotated[
        int | None, typer.Argument(show_default="the one being served", min=0)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    open_lineage: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="Also send it as an OpenLineage event: a line of FILE, or to the server at URL.",
        ),
    ] = None,
    output_dir: OutputDir = None,
) -> None:
    """Show where a version is from: data, schema, code, settings, parent, verdict, push.

    Reads the version's folder and the history; ML Metadata is not needed.

    Example: python local_runner.py lineage --json
    """
    from pipeline.local.paths import OutputPaths
    from registry.lineage import read_lineage

    base = OutputPaths.of(resolve_options(output_dir=output_dir).settings).versions
    found = read_lineage(base, version)
    if open_lineage is not None:
        from registry.openlineage import send

        send(found, base, open_lineage)
    typer.echo(found.model_dump_json(indent=2) if as_json else "\n".join(_lines(found)))


def _lines(found: "Lineage") -> Iterator[str]:
    yield f"Version {found.version}"
    for name, value in _rows(found):
        yield f"  {name:<12} {_printable(value)}"
    if found.metrics is not None:
        yield "  metrics"
    for name, metric in (found.metrics or {}).items():
        checks = [each for each in found.checks or [] if each.metric == name]
        yield f"    {_printable(_metric_line(metric, checks))}"


def _rows(found: "Lineage") -> Iterator[tuple[str, str]]:
    pushed_at = f"{found.pushed_at:%Y-%m-%d %H:%M} UTC" if found.pushed_at else _UNKNOWN
    yield "pushed", f"{pushed_at} by {_known(found.user)}, run {_known(found.run)}"
    if found.copy_of is not None:
        yield "copy of", f"{found.copy_of}: {found.reason or 'no reason given'}"
    yield "model", f"{_known(found.model_fingerprint)}, files {_known(found.state)}"
    for span in found.spans or []:
        images = (span.train or 0) + (span.eval or 0)
        yield f"span {span.span}", f"{span.fingerprint}, {images:,} images"
    if found.spans is None:
        yield "spans", _UNKNOWN
    yield "source", _known(found.data.source)
    yield "train split", _known(found.data.fingerprint)
    yield "schema", _known(found.provenance.schema_sha256)
    yield "classifier", _known(found.provenance.classifier_sha256)
    yield "code", _code(found)
    yield "settings", _settings(found)
    yield "started", _start(found)
    yield "evaluated", _known(found.evaluated_at)
    yield "verdict", _verdict(found)
    for event in found.events:
        yield "history", f"{event.at:%Y-%m-%d %H:%M} UTC {event.event}: {event.reason}"


def _known(value: Any) -> str:
    return _UNKNOWN if value is None else str(value)


def _code(found: "Lineage") -> str:
    packages = ", ".join(f"{name} {number}" for name, number in (found.packages or {}).items())
    return f"commit {_known(found.commit)}; {packages or 'packages ' + _UNKNOWN}"


def _settings(found: "Lineage") -> str:
    if found.recipe is None:
        return _UNKNOWN
    changed = ", ".join(f"{key}={value}" for key, value in found.recipe.changed.items())
    return f"preset {found.recipe.preset}, changed: {changed or 'none'}"


def _start(found: "Lineage") -> str:
    if found.start is None:
        return _UNKNOWN
    if found.start.origin is None:
        return found.start.start
    parent = "no longer in the registry" if found.parent is None else f"version {found.parent}"
    return f"{found.start.start} (parent: {parent})"


def _verdict(found: "Lineage") -> str:
    if found.verdict is None:
        return _UNKNOWN
    return (
        "blessed" if found.verdict.blessed else "; ".join(["not blessed", *found.verdict.reasons])
    )


def _metric_line(metric: "Metric", checks: list["Check"]) -> str:
    value = _UNKNOWN if metric.value is None else f"{metric.value:.4g}"
    low, high = metric.interval or (None, None)
    between = "" if low is None or high is None else f" ({low:.4g} to {high:.4g})"
    bounds = [f"{check.bound}: {'passed' if check.passed else 'failed'}" for check in checks]
    return f"{metric.title} {value}{between}" + "".join(f"; {bound}" for bound in bounds)


def _printable(text: str) -> str:
    """Files of others may hold control characters, which a terminal obeys."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
