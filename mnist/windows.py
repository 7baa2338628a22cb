"""Which spans a run uses: the newest, the newest few, all, or those that are named."""

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mnist.completeness import SpanState, examine
from mnist.idx import IdxError
from mnist.quarantine import Entry
from mnist.spans import (
    SpanError,
    SpanFiles,
    find_test_files,
    fingerprint_files,
    list_spans,
)

SYNTAX = "latest, rolling:N (the newest N), all, or static:A-B (also static:1,4-6)"
_RELEASE = "`python local_runner.py release {span}` lets it through"


class WindowError(ValueError):
    """A window is not written as it should be."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
      newest: take so many of the newest; None: all.
      named: ranges of spans, both ends included, that are to be taken; empty: by age.
    """

    newest: int | None = None
    named: tuple[tuple[int, int], ...] = ()


def parse_window(text: str) -> Request:
    """Reads a window; see `SYNTAX`. Spaces do not count.

    Raises:
      WindowError: it is not one.
    """
    kind, _, rest = text.replace(" ", "").partition(":")
    if kind in ("latest", "all") and text.strip() == kind:
        return Request(newest=1 if kind == "latest" else None)
    if kind == "rolling" and re.fullmatch(r"[1-9][0-9]{0,5}", rest):
        return Request(newest=int(rest))
    if kind == "static" and re.fullmatch(
        r"[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*", rest
    ):
        ends = [part.partition("-") for part in rest.split(",")]
        named = tuple((int(first), int(last or first)) for first, _, last in ends)
        if all(first <= last for first, last in named):
            return Request(named=named)
    raise WindowError(f"{text!r} is no window of spans. Expected {SYNTAX}")


@dataclass(frozen=True)
class Window:
    """The spans that a run uses.

    Attributes:
      spans: complete ones, ascending; one or more.
      test: paths of images and labels of the fixed test split; None where there is none.
      skipped: why a span was passed over, by its number.
      damaged: those among them whose files can never be read: fingerprint and reason.
    """

    spans: tuple[SpanState, ...]
    test: tuple[str, str] | None = None
    skipped: Mapping[int, str] = field(default_factory=dict)
    damaged: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def newest(self) -> int:
        """The largest number among its spans."""
        return self.spans[-1].span

    @property
    def files(self) -> tuple[SpanFiles, ...]:
        """Those of each span, ascending."""
        return tuple(state.files for state in self.spans if state.files)

    @property
    def name(self) -> str:
        """The window as one that names just these spans, such as `static:2,3,5`."""
        return "static:" + ",".join(str(state.span) for state in self.spans)

    @functools.cached_property
    def content(self) -> str:
        """The fingerprints of its spans and of the test split, joined by `+`."""
        parts = [state.fingerprint for state in self.spans]
        if self.test:
            parts.append(
                hashlib.sha256(f"test {fingerprint_files(self.test)}".encode()).hexdigest()
            )
        return "+".join(parts)

    def notices(self) -> list[str]:
        """What to say of the spans that were passed over, a line each, newest first."""
        return [
            f"span {span} is left out: {why}" for span, why in sorted(self.skipped.items())[::-1]
        ]


def resolve_window(
    data_dir: str,
    *,
    span: int | None = None,
    window: str = "latest",
    settle_seconds: float = 0.0,
    quarantine: Mapping[int, Entry] | None = None,
) -> Window:
    """Finds the spans that a run uses, and reads their files once.

    Spans that are taken by age (`latest`, `rolling`, `all`) pass over those that are not complete,
    damaged or quarantined. A span that is named has to be usable. Numbers may be missing.

    Args:
      data_dir: as for `list_spans`.
      span: one by its number, in place of a window.
      window: see `SYNTAX`.
      settle_seconds: see `completeness.py`; does not count for files in the data folder itself.
      quarantine: entries by span.

    Raises:
      WindowError: `window` is none, or both a span and a window are given.
      SpanError: the folder holds no spans, a span that is named cannot be used, or none can.
      IdxError: the files of the only span, or of one that is named, are damaged.
    """
    if span is not None and window != "latest":
        raise WindowError(f"span {span} and window {window!r} are both given. Expected one of them")
    request = Request(named=((span, span),)) if span is not None else parse_window(window)
    folders = list_spans(data_dir)
    is_flat = folders == {1: data_dir}
    quarantine = quarantine or {}
    named = _named(data_dir, request, list(folders))
    chosen: list[SpanState] = []
    refused: list[SpanState] = []
    for number in sorted(named or folders, reverse=True):
        state = examine(
            number,
            folders[number],
            settle_seconds=0.0 if is_flat else settle_seconds,
            held=quarantine.get(number),
        )
        if state.state == "complete":
            chosen.append(state)
        elif named or is_flat:
            raise _unusable(state)
        else:
            refused.append(state)
        if len(chosen) == request.newest:
            break
    if not chosen:
        lines = "\n".join(
            f"  - span {state.span} is {state.state}: {state.why}" for state in refused
        )
        raise SpanError(f"{data_dir!r} has no span that can be used:\n{lines}")
    return Window(
        tuple(reversed(chosen)),
        find_test_files(data_dir),
        {state.span: f"{state.state}: {state.why}" for state in refused},
        {s.span: (s.fingerprint, s.why) for s in refused if s.state == "damaged"},
    )


def _named(data_dir: str, request: Request, known: list[int]) -> list[int]:
    """The spans that are asked for by number; a range may have gaps, a single number may not."""
    found: set[int] = set()
    for first, last in request.named:
        inside = {number for number in known if first <= number <= last}
        if not inside:
            wanted = f"span {first}" if first == last else f"span from {first} to {last}"
            there = ", ".join(map(str, known[-12:]))
            raise SpanError(f"{data_dir!r} has no {wanted}. Expected one of: {there}.")
        found |= inside
    return sorted(found)


def _unusable(state: SpanState) -> Exception:
    if state.state == "damaged":
        return IdxError(state.why)
    if state.state == "incomplete":
        return SpanError(f"span {state.span} is not complete: {state.why}")
    remedy = _RELEASE.format(span=state.span)
    return SpanError(f"span {state.span} is quarantined: {state.why}. {remedy}.")
