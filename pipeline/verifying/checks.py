"""Compares what an endpoint draws with the version that it should serve."""

import datetime
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL.PngImagePlugin import PngImageFile

import storage
from errors import UserError
from evaluation.evaluate import SEED
from evaluation.metric_table import METRICS
from evaluation.sampling import ANY_DIGIT, GRID_LABELS, Generator
from evaluation.verification import CLASSIFIER, MOST_SAMPLES, VerificationSet
from models.digit_classifier.features import FeatureExtractor
from pipeline.verifying.endpoint import Endpoint
from registry.integrity import is_intact
from registry.layout import VERIFICATION, newest_version, version_address
from registry.records import read_card, read_record

# How far an image may be from the version's own, root mean square of its pixels. A generator of the
# preset `smoke` comes to 0.2 in float16 and 0.7 in bfloat16; images two levels brighter are at 1.9.
_GRAY_LEVELS = 1.5
_SIZE = (28, 28)
_BROKEN = (OSError, SyntaxError, ValueError, struct.error, zlib.error)


class Finding(NamedTuple):
    """One comparison.

    Attributes:
      name: of what was compared, or of a metric.
      text: what was found and what was expected.
      passed: whether it is as it should be.
    """

    name: str
    text: str
    passed: bool


class _Images(NamedTuple):
    """PNG files, decoded.

    Attributes:
      pixels: uint8 [n, 28, 28, 1]; black where a file is no such image.
      readable: bool [n].
      marks: the text chunks of each file, by keyword.
    """

    pixels: np.ndarray
    readable: np.ndarray
    marks: list[dict[str, str]]


@dataclass(frozen=True)
class Blessed:
    """The newest version of a registry.

    Attributes:
      version: its number.
      pushed_at: when it was pushed, in UTC; None where that is not known.
      digits: int64 [n], what is requested, beside consecutive seeds from `SEED`.
      images: what the version's own files draw here.
      metrics: those that the version's card has of these digits and seeds, by name.
      measure: computes them for images uint8 [n, 28, 28, 1]; None of a version that was pushed
        without an evaluation.
    """

    version: int
    pushed_at: datetime.datetime | None
    digits: np.ndarray
    images: _Images
    metrics: Mapping[str, float]
    measure: Callable[[np.ndarray], dict[str, float]] | None


def load_newest(base: str) -> Blessed:
    """Loads the version that should be served, and draws its digits.

    Args:
      base: path or URI of the folder of versions.

    Raises:
      UserError: there is no version, it was altered, or it does not load here.
      OSError: the versions cannot be read.
    """
    version = newest_version(base)
    if version is None:
        raise UserError("there is no version", base, "push one with `local_runner.py run`")
    address = version_address(base, version)
    if not is_intact(address):
        raise UserError(
            "the files are not those that were pushed",
            address,
            "`local_runner.py run` replaces the version; then verify again",
        )
    record, own = read_record(address), None
    with storage.local_copy(address) as place:
        generator, folder = Generator(place), os.path.join(place, VERIFICATION)
        digits = np.resize(GRID_LABELS if generator.conditional else ANY_DIGIT, MOST_SAMPLES)
        if storage.is_folder(folder):
            own = VerificationSet.read(folder)
            digits = own.digits
            extractor = FeatureExtractor(os.path.join(folder, CLASSIFIER))
    return Blessed(
        version,
        record.pushed_at if record else None,
        digits,
        _decode(generator.draw(digits, SEED)),
        read_card(address).verification.metrics,
        (lambda pixels: own.measure(*extractor(pixels))) if own else None,
    )


def compare(endpoint: Endpoint, blessed: Blessed) -> tuple[list[Finding], dict[str, float]]:
    """Draws a version's digits through an endpoint, and compares images, marks and metrics.

    Nothing is drawn if another version is in service.

    Returns:
      The comparisons, and the metrics of the images, by name; none where the version has no
      classifier.

    Raises:
      NoAnswerError: the endpoint does not answer.
    """
    served = endpoint.version()
    if served != blessed.version:
        return [_compare_version(served, blessed.version)], {}
    drawn = endpoint.draw(blessed.digits, SEED)
    images = _decode(drawn.files)
    metrics = blessed.measure(images.pixels) if blessed.measure else {}
    findings = [
        _compare_version(endpoint.version(), blessed.version),
        _compare_images(images, blessed.images),
        _compare_digits(drawn.digits, blessed.digits),
        _compare_marks(images.marks, blessed.images.marks),
        *_compare_metrics(metrics, blessed.metrics),
    ]
    return findings, metrics


def _compare_version(served: int, expected: int) -> Finding:
    text = f"{served} is served, the newest is {expected}"
    return Finding("version", text, served == expected)


def _compare_images(images: _Images, expected: _Images) -> Finding:
    total, readable = len(images.pixels), int(images.readable.sum())
    squares = (images.pixels - expected.pixels.astype(float)) ** 2
    apart = np.sqrt(squares.mean(axis=(1, 2, 3)))
    same = int(((apart <= _GRAY_LEVELS) & images.readable).sum())
    text = f"{same} of {total} within {_GRAY_LEVELS} gray levels of the version's own"
    if readable < total:
        text += f"; {total - readable} are no gray PNG of 28x28 pixels"
    return Finding("images", text, same == total)


def _compare_digits(found: list[int], requested: np.ndarray) -> Finding:
    right = int((np.array(found) == requested).sum())
    return Finding("digits", f"{right} of {len(found)} as requested", right == len(found))


def _compare_marks(found: list[dict[str, str]], expected: list[dict[str, str]]) -> Finding:
    wrong = [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]]
    text = f"{len(found) - len(wrong)} of {len(found)} have the version's marks"
    if wrong:
        first, own = wrong[0]
        names = [name for name in own | first if first.get(name) != own.get(name)]
        text += f"; the first other image differs in {', '.join(names)}"
    return Finding("marks", text, not wrong)


def _compare_metrics(found: Mapping[str, float], card: Mapping[str, float]) -> Iterator[Finding]:
    """Compares metrics of equal digits and seeds, within the tolerance of the metric table."""
    if not found:
        yield Finding("metrics", "not compared: the version was pushed without a classifier", True)
    for name, value in found.items():
        if name not in card:
            continue
        metric, blessed = METRICS[name], card[name]
        allowed = (metric.tolerance or 0.0) * (blessed if metric.in_feature_units else 1.0)
        is_higher = metric.direction == "higher"
        bound = blessed - allowed if is_higher else blessed + allowed
        word = "at least" if is_higher else "at most"
        text = f"{value:.4g}, the card's is {blessed:.4g}, must be {word} {bound:.4g}"
        yield Finding(name, text, metric.accepts(value, bound))


def _decode(files: list[bytes]) -> _Images:
    decoded = [_decode_one(file) for file in files]
    blank = np.zeros(_SIZE, np.uint8), dict[str, str]()
    pixels, marks = zip(*(each or blank for each in decoded), strict=True)
    readable = np.array([each is not None for each in decoded])
    return _Images(np.stack(pixels)[..., np.newaxis], readable, list(marks))


def _decode_one(file: bytes) -> tuple[np.ndarray, dict[str, str]] | None:
    try:
        image = PngImageFile(io.BytesIO(file))
        if (image.mode, image.size) != ("L", _SIZE):
            return None
        return np.asarray(image), {name: str(text) for name, text in image.text.items()}
    except _BROKEN:
        return None
