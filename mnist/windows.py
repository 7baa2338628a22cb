"""Which spans a run uses: the newest, the newest few, all, or those that are named."""

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from errors import UserError
from mnist.completeness import SpanState, examine
from mnist.quarantine import Entry
from mnist.spans import (
    MAX_SPAN,
    SpanError,
    SpanFiles,
    find_files,
    find_test_files,
    fingerprint_files,
    list_spans,
    open_folder,
)

SYNTAX = "latest, rolling:N (the newest N), all, or static:A-B (also static:1,4-6)"
_RANGE = "[0-9]{1,19}(-[0-9]{1,19})?"


class WindowError(UserError, ValueError):
    """A window is not written as it should be; a ValueError, which a pydantic validator needs."""


@dataclass(frozen=True)
class Request:
    """A parsed window.

    Attributes:
        newest: Take so many of the newest; None: all.
        named: Ranges of spans, both ends included, that are to be taken; empty: by age.
    """

    newest: int | None = None
    named: tuple[tuple[int, int], ...] = ()


def parse_window(text: str) -> Request:
    """Reads a window; see `SYNTAX`. Spaces do not count.

    Raises:
        WindowError: The text is no window.
    """
    kind, _, rest = text.replace(" ", "").partition(":")
    if kind in ("latest", "all") and text.strip() == kind:
        return Request(newest=1 if kind == "latest" else None)
    if kind == "rolling" and re.fullmatch(r"[1-9][0-9]{0,5}", rest):
        return Request(newest=int(rest))
    if kind == "static" and re.fullmatch(f"{_RANGE}(,{_RANGE})*", rest):
        ends = [part.partition("-") for part in rest.split(",")]
        named = tuple((int(first), int(last or first)) for first, _, last in ends)
        if all(first <= last <= MAX_SPAN for first, last in named):
            return Request(named=named)
    raise WindowError(f"{text!r} is no window of spans, expected {SYNTAX}")


class FixedTest(NamedTuple):
    """The fixed test split: paths of images and labels, and the fingerprint of both files."""

    paths: tuple[str, str]
    fingerprint: str


@dataclass(frozen=True)
class Window:
    """The spans that a run uses.

    Attributes:
        spans: Complete ones, ascending; one or more.
        test: The fixed test split; None where there is none.
        skipped: Why a span was passed over, by its number.
        damaged: Those among the skipped whose files can never be read: fingerprint and reason.
        misnamed: A sentence on folders whose names are nearly a span's; "" for none.
    """

    spans: tuple[SpanState, ...]
    test: FixedTest | None = None
    skipped: Mapping[int, str] = field(default_factory=dict, hash=False)
    damaged: Mapping[int, tuple[str, str]] = field(default_factory=dict, hash=False)
    misnamed: str = ""

    @property
    def newest(self) -> int:
        """The largest number among its spans."""
        return self.spans[-1].span

    @property
    def files(self) -> tuple[SpanFiles, ...]:
        """The files of each span, ascending."""
        return tuple(state.files for state in self.spans if state.files)

    @property
    def name(self) -> str:
        """The window as one that names just these spans, such as `static:2,3,5`."""
        return "static:" + ",".join(str(state.span) for state in self.spans)

    @functools.cached_property
    def content(self) -> str:
        """The fingerprints of its spans and of the test split, joined by `+`."""
        parts = [state.fingerprint for state in self.spans]
        return "+".join([*parts, f"test:{self.test.fingerprint}"] if self.test else parts)

    def notices(self) -> list[str]:
        """What to say of the spans that were passed over, a line each, newest first."""
        lines = [
            f"span {span} is left out: {why}" for span, why in sorted(self.skipped.items())[::-1]
        ]
        return [*lines, self.misnamed] if self.misnamed else lines


def resolve_window(
    data_dir: str,
    *,
    span: int | None = None,
    window: str = "latest",
    settle_seconds: float = 0.0,
    quarantine: Mapping[int, Entry] | None = None,
    known: Collection[str] = (),
) -> Window:
    """Finds the spans that a run uses.

    Spans that are taken by age (`latest`, `rolling`, `all`) pass over those that are not complete,
    damaged or quarantined. A span that is named has to be usable. Numbers may be missing.

    Args:
        data_dir: As for `open_folder`.
        span: One by its number, in place of a window.
        window: See `SYNTAX`.
        settle_seconds: See `completeness.py`; does not count for files in the data folder itself.
        quarantine: Entries by span.
        known: Fingerprints of spans that an earlier run ingested. Other spans are scanned: see
            `mnist.digits`.

    Raises:
        WindowError: `window` is none, or both a span and a window are given.
        SpanError: The folder holds no spans, a span that is named cannot be used, or none can.
        IdxError: The files of the only span, or of a span that is named, are damaged; or a file of
            the test split cannot be read.
    """
    if span is not None and window != "latest":
        raise WindowError(f"span {span} and window {window!r} are both given, expected one of them")
    request = Request(named=((span, span),)) if span is not None else parse_window(window)
    folder = open_folder(data_dir)
    named = _named(data_dir, request, list(folder.spans))
    chosen: list[SpanState] = []
    refused: list[SpanState] = []
    for number in sorted(named or folder.spans, reverse=True):
        state = examine(
            number,
            folder.spans[number],
            settle_seconds=0.0 if folder.is_flat else settle_seconds,
            held=(quarantine or {}).get(number),
            known=known,
        )
        if state.error is None:
            chosen.append(state)
        elif named or folder.is_flat:
            raise state.error
        else:
            refused.append(state)
        if len(chosen) == request.newest:
            break
    if not chosen:
        raise SpanError(
            "the folder has no span that can be used",
            data_dir,
            "`python local_runner.py data` shows the state of each",
            [f"span {state.span} is {state.state}: {state.why}" for state in refused],
        )
    return Window(
        tuple(reversed(chosen)),
        _find_test(data_dir),
        {state.span: f"{state.state}: {state.why}" for state in refused},
        {s.span: (s.fingerprint, s.why) for s in refused if s.state == "damaged"},
        folder.notice(),
    )


def reopen_window(data_dir: str, name: str, content: str) -> Window:
    """Finds the files of a window that a run resolved before.

    No file is read: whoever reads one compares it with its fingerprint.

    Args:
        data_dir: The data folder in which the window was resolved.
        name: `Window.name`.
        content: `Window.content`.

    Raises:
        SpanError: A span is gone, or the test split has come or gone.
    """
    folders = list_spans(data_dir)
    numbers = _named(data_dir, parse_window(name), list(folders))
    *fingerprints, last = content.split("+")
    tests = find_test_files(data_dir)
    test = FixedTest(tests, last.removeprefix("test:")) if tests else None
    if not last.startswith("test:"):
        fingerprints.append(last)
    if last.startswith("test:") != (test is not None) or len(numbers) != len(fingerprints):
        raise SpanError(
            f"the folder no longer holds the spans with which the run began: {name}, and the "
            "test split as it was",
            data_dir,
            "run again",
        )
    return Window(
        tuple(
            SpanState(number, "complete", None, find_files(number, folders[number]), fingerprint)
            for number, fingerprint in zip(numbers, fingerprints, strict=True)
        ),
        test,
    )


def _find_test(data_dir: str) -> FixedTest | None:
    paths = find_test_files(data_dir)
    return FixedTest(paths, fingerprint_files(paths)) if paths else None


def _named(data_dir: str, request: Request, known: list[int]) -> list[int]:
    """The spans that are requested by number; a range may have gaps, a single number may not."""
    found: set[int] = set()
    for first, last in request.named:
        inside = {number for number in known if first <= number <= last}
        if not inside:
            wanted = f"span {first}" if first == last else f"span from {first} to {last}"
            there = ", ".join(map(str, known[-12:]))
            raise SpanError(f"the folder has no {wanted}", data_dir, f"choose one of {there}")
        found |= inside
    return sorted(found)
