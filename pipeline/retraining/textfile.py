"""Metrics in Prometheus' text format, for the textfile collector of its node_exporter."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from mnist.quarantine import QuarantineError, read_quarantine
from mnist.spans import SpanError, list_spans
from pipeline.local import history
from pipeline.local.paths import OutputPaths
from pipeline.local.window import quarantine_file
from pipeline.retraining.records import (
    AS_BLESSED,
    NOT_STARTED,
    NOTHING_TO_DO,
    STOPPED,
    VERIFICATIONS,
    read_passes,
)
from pipeline.settings.sections import Settings
from pipeline.side_work import run_aside
from registry.layout import newest_version, version_dir
from registry.records import read_card, read_record

OUTCOMES = ("pushed", "not blessed", NOTHING_TO_DO, "failed", NOT_STARTED, STOPPED)
_BAD = ("failed", NOT_STARTED)
_PREFIX = "mnist_gan_"


def export_metrics(settings: Settings) -> None:
    """Writes what is known of passes, versions, verifications and data to `metrics.textfile`.

    Does nothing where that is not set. The file is whole at every moment. What is not known is left
    out, so that no alert takes a 0 for it. A failure is reported and raises nothing.
    """
    path = settings.metrics.textfile
    if path is not None:
        run_aside("metrics.textfile is not written", lambda: _write(Path(path), settings), 90.0)


def _write(path: Path, settings: Settings) -> None:
    # Only here, for a tenth of a second.
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()
    for name, meaning, value in _gauges(settings):
        Gauge(_PREFIX + name, meaning, registry=registry).set(value)
    outcomes = Gauge(
        f"{_PREFIX}last_pass_outcome",
        "1 for the outcome of the last pass of retraining, 0 for the others",
        ["outcome"],
        registry=registry,
    )
    passes = read_passes(_output_paths(settings).root)
    for outcome in OUTCOMES if passes else ():
        outcomes.labels(outcome).set(passes[-1].report.outcome == outcome)
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)


def _gauges(settings: Settings) -> Iterator[tuple[str, str, float]]:
    yield from _pass_gauges(_output_paths(settings).root)
    yield from _served_gauges(_output_paths(settings).versions)
    yield from _verification_gauges(_output_paths(settings).root)
    yield from _span_gauges(settings)


def _pass_gauges(root: Path) -> Iterator[tuple[str, str, float]]:
    passes = [each for each in read_passes(root) if each.report.outcome != STOPPED]
    if not passes:
        return
    last, good = passes[-1], [each for each in passes if each.report.outcome not in _BAD]
    failed = itertools.takewhile(lambda each: each.report.outcome in _BAD, reversed(passes))
    yield "last_pass_timestamp_seconds", "When the last pass ended", last.ended.timestamp()
    yield "last_pass_duration_seconds", "How long the last pass took", last.report.seconds or 0.0
    yield "failed_passes", "Passes since the last one that did not fail", len(list(failed))
    if good:
        yield (
            "last_success_timestamp_seconds",
            "When the last pass that did not fail ended",
            good[-1].ended.timestamp(),
        )
    ran = [each.report for each in passes if each.report.fid is not None]
    if ran and ran[-1].fid is not None:
        yield (
            "last_run_fid",
            "FID against the eval split of the last generator that a pass trained",
            ran[-1].fid,
        )


def _served_gauges(base: Path) -> Iterator[tuple[str, str, float]]:
    version = newest_version(base)
    if version is None:
        return
    record, card = read_record(version_dir(base, version)), read_card(version_dir(base, version))
    yield "served_version", "The version that is served", version
    if record:
        pushed = record.pushed_at.timestamp()
        yield "served_version_pushed_timestamp_seconds", "When that version was pushed", pushed
    fid = card.metric("fid")
    if fid is not None:
        yield (
            "served_version_fid",
            "FID against the eval split of the served version when it was pushed",
            fid,
        )
    if card.data.span is not None:
        yield "served_version_span", "Newest span that version was trained on", card.data.span


def _verification_gauges(root: Path) -> Iterator[tuple[str, str, float]]:
    verifications = read_passes(root, VERIFICATIONS)
    if not verifications:
        return
    last, report = verifications[-1].ended, verifications[-1].report
    yield "last_verification_timestamp_seconds", "When `verify` ended last", last.timestamp()
    yield (
        "last_verification_as_blessed",
        "1 if the endpoint served what was blessed, 0 if not, or if that is not known",
        report.outcome == AS_BLESSED,
    )
    if report.fid is not None:
        yield "last_verification_fid", "FID of the images that the endpoint drew", report.fid


def _span_gauges(settings: Settings) -> Iterator[tuple[str, str, float]]:
    paths = _output_paths(settings)
    with contextlib.suppress(QuarantineError, SpanError):
        entries = read_quarantine(quarantine_file(paths)).items()
        held = [span for span, entry in entries if not entry.released]
        yield "spans_quarantined", "Spans that stopped a run and are not released", len(held)
        last = history.last_verdict(paths.database)
        newest = -1 if last is None or last.span is None else last.span
        spans = list_spans(settings.data.dir) if settings.data.dir else {}
        waiting = [span for span in spans if span > newest and span not in held]
        yield "spans_waiting", "Spans newer than the last with a verdict", len(waiting)


def _output_paths(settings: Settings) -> OutputPaths:
    return OutputPaths.of(settings)
