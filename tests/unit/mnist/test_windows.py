"""Which spans a run takes, which it passes over, and why."""

import gzip
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist import quarantine
from mnist.digits import forget_scans
from mnist.idx import IdxError
from mnist.spans import MAX_SPAN, SpanError, content_fingerprint, resolve_span
from mnist.splits import join_spans
from mnist.windows import (
    Request,
    Window,
    WindowError,
    parse_window,
    reopen_window,
    resolve_window,
)

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture
def spans(tmp_path, digits, write_span) -> Path:
    """A data folder with spans 1, 2 and 5 of 40 and 20 digits, written just now."""
    for number in (1, 2, 5):
        rows = slice(100 * number, 100 * number + 60)
        write_span(tmp_path / f"span-{number}", digits[0][rows], digits[1][rows], train=40)
    return tmp_path


@pytest.fixture
def set_clock(monkeypatch) -> Callable[[float], None]:
    """A function that sets the clock so many seconds ahead of the file system's."""
    true_time = time.time

    def ahead(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: true_time() + seconds)

    return ahead


@pytest.fixture(autouse=True)
def _empty_memory() -> Iterator[None]:
    yield
    forget_scans()


def numbers(found: Window) -> list[int]:
    return [state.span for state in found.spans]


@settings(deadline=None)
@given(st.integers(1, 999_999))
def test_rolling_is_read(count):
    assert parse_window(f"rolling: {count}") == Request(newest=count)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, MAX_SPAN), st.integers(0, 10**6)), min_size=1))
def test_static_is_read(pairs):
    ranges = tuple((first, min(first + more, MAX_SPAN)) for first, more in pairs)
    text = ",".join(f"{first}-{last}" for first, last in ranges)
    assert parse_window(f"static:{text}") == Request(named=ranges)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        found = parse_window(text)
    except WindowError:
        return
    assert found.named or text.strip().partition(":")[0] in ("latest", "all", "rolling")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "newest",
        "rolling",
        "rolling:0",
        "rolling:-1",
        "static:",
        "static:5-2",
        f"static:{2**63}",
        "static:٣",
        "all:3",
    ],
)
def test_what_is_no_window(text):
    with pytest.raises(WindowError):
        parse_window(text)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("latest", [5]),
        ("rolling:2", [2, 5]),
        ("rolling:9", [1, 2, 5]),
        ("all", [1, 2, 5]),
        ("static:2-5", [2, 5]),
        ("static:1,3-6", [1, 5]),
    ],
)
def test_windows_with_a_gap_in_the_numbers(spans, set_clock, window, expected):
    set_clock(3600)
    found = resolve_window(str(spans), window=window, settle_seconds=60)
    assert numbers(found) == expected
    assert found.newest == expected[-1]
    assert not found.skipped
    again = resolve_window(str(spans), window=found.name)
    assert (again.spans, again.content) == (found.spans, found.content)
    assert resolve_window(f"file://{spans}", window=window).content == found.content


@pytest.mark.parametrize("window", ["static:3", "static:1,3", "static:6-9"])
def test_a_named_span_that_is_not_there(spans, window):
    with pytest.raises(SpanError, match="1, 2, 5"):
        resolve_window(str(spans), window=window)


def test_a_young_span_waits_until_it_has_settled(spans, set_clock):
    set_clock(3600)
    os.utime(spans / "span-5" / IMAGES, (time.time(),) * 2)
    found = resolve_window(str(spans), settle_seconds=60)
    assert numbers(found) == [2]
    [line] = found.notices()
    assert "span 5 " in line
    assert "60 s" in line or "59 s" in line
    with pytest.raises(SpanError):
        resolve_window(str(spans), span=5, settle_seconds=60)
    assert numbers(resolve_window(str(spans), settle_seconds=0)) == [5]
    (spans / "span-5" / "_SUCCESS").touch()
    assert numbers(resolve_window(str(spans), settle_seconds=60)) == [5]


def test_a_copy_that_keeps_the_times_of_the_original_waits_all_the_same(spans, set_clock):
    """As `cp -a`, `rsync -a`, `unzip` and `tar x` make it."""
    for path in spans.glob("span-*/*"):
        os.utime(path, (0, 0))
    with pytest.raises(SpanError):
        resolve_window(str(spans), settle_seconds=60)
    set_clock(61)
    assert numbers(resolve_window(str(spans), settle_seconds=60)) == [5]


def test_a_folder_in_which_something_appears_has_not_settled(spans, set_clock):
    """The train- pair is whole, and the t10k- pair is on its way."""
    for path in (spans / "span-5").glob("t10k-*"):
        path.unlink()
    set_clock(3600)
    assert numbers(resolve_window(str(spans), settle_seconds=60)) == [5]
    os.utime(spans / "span-5", (time.time(),) * 2)
    assert numbers(resolve_window(str(spans), settle_seconds=60)) == [2]


def test_a_clock_that_was_set_back_keeps_no_span_waiting(spans, set_clock):
    set_clock(-7200)
    assert numbers(resolve_window(str(spans), settle_seconds=60)) == [5]


def test_a_plain_folder_counts_at_once(tmp_path, digits, write_span):
    write_span(tmp_path, *digits, train=700)
    found = resolve_window(str(tmp_path), window="rolling:3", settle_seconds=3600)
    assert numbers(found) == [1]
    assert found.content == content_fingerprint(resolve_span(str(tmp_path), 1))


def test_a_span_that_lacks_a_file_is_passed_over_and_named(spans):
    (spans / "span-5" / LABELS).unlink()
    found = resolve_window(str(spans))
    assert numbers(found) == [2]
    assert LABELS in found.skipped[5]
    assert not found.damaged
    with pytest.raises(SpanError, match=LABELS) as caught:
        resolve_window(str(spans), window="static:1-5")
    assert caught.value.where == str(spans / "span-5")


def test_a_settled_span_that_cannot_be_read_is_damaged(spans, set_clock):
    path = spans / "span-5" / IMAGES
    path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes())[:-9])
    path.unlink()
    set_clock(3600)
    found = resolve_window(str(spans), settle_seconds=60)
    assert numbers(found) == [2]
    [(fingerprint, _)] = found.damaged.values()
    assert fingerprint == content_fingerprint(resolve_span(str(spans), 5))
    with pytest.raises(IdxError) as caught:
        resolve_window(str(spans), span=5)
    assert caught.value.where == str(path.with_suffix(".gz"))
    assert caught.value.fix


def test_none_that_can_be_used(spans):
    for number in (1, 2, 5):
        (spans / f"span-{number}" / IMAGES).unlink()
    with pytest.raises(SpanError) as failure:
        resolve_window(str(spans), window="all")
    assert failure.value.where == str(spans)
    assert [finding[:6] for finding in failure.value.findings] == ["span 5", "span 2", "span 1"]


def test_a_quarantined_span_is_passed_over_until_released_or_changed(spans, tmp_path):
    address = str(tmp_path / "serving" / quarantine.FILE_NAME)
    fingerprint = content_fingerprint(resolve_span(str(spans), 5))
    quarantine.quarantine(address, {5: (fingerprint, "too dark")}, run="r")

    def taken() -> list[int]:
        return numbers(resolve_window(str(spans), quarantine=quarantine.read_quarantine(address)))

    assert taken() == [2]
    with pytest.raises(SpanError, match=r"too dark.*release 5"):
        resolve_window(str(spans), span=5, quarantine=quarantine.read_quarantine(address))
    before = (spans / "span-5" / LABELS).read_bytes()
    (spans / "span-5" / LABELS).write_bytes(before[:-1] + b"\0")
    assert taken() == [5]
    (spans / "span-5" / LABELS).write_bytes(before)
    assert taken() == [2]
    assert quarantine.release(address, 5).reason == "too dark"
    assert taken() == [5]
    with pytest.raises(quarantine.QuarantineError):
        quarantine.release(address, 5)


def test_a_quarantine_that_cannot_be_read(tmp_path):
    path = tmp_path / "quarantine.json"
    assert quarantine.read_quarantine(str(path)) == {}
    entry = {"fingerprint": "f", "reason": "r", "when": "w", "run": "", "released": False}
    path.write_text(json.dumps({3: entry}))
    assert quarantine.read_quarantine(str(path))[3] == quarantine.Entry("f", "r", "w", "")
    for text in (
        json.dumps({3: {"oops": 1}}),
        json.dumps({3: entry | {"reason": 5}}),
        json.dumps({"three": entry}),
        "[]",
        "null",
        "[" * 100_000,
        "\xff",
    ):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(quarantine.QuarantineError) as caught:
            quarantine.read_quarantine(str(path))
        assert caught.value.where == str(path)


def test_the_fixed_test_split(spans, digits, write_span):
    without = resolve_window(str(spans))
    write_span(spans / "elsewhere", digits[0][:50], digits[1][:50], train=25)
    for path in (spans / "elsewhere").glob("t10k-*"):
        path.rename(spans / path.name)
    found = resolve_window(str(spans))
    assert found.test is not None
    assert found.test.paths == tuple(
        str(spans / f"t10k-{name}") for name in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    assert found.content.startswith(without.content + "+")
    assert reopen_window(str(spans), found.name, found.content) == found
    with pytest.raises(SpanError):
        reopen_window(str(spans), found.name, without.content)
    (spans / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(SpanError, match="t10k-labels"):
        resolve_window(str(spans))


def test_a_window_is_opened_again_without_reading_it(spans):
    found = resolve_window(str(spans), window="all")
    (spans / "span-7").mkdir()
    for path in spans.glob("span-*/*"):
        path.write_bytes(b"")
    assert reopen_window(str(spans), found.name, found.content) == found
    (spans / "span-2" / LABELS).unlink()
    with pytest.raises(SpanError):
        reopen_window(str(spans), found.name, found.content)


def test_digits_that_changed_since_the_window_was_resolved_are_refused(spans):
    found = resolve_window(str(spans))
    forget_scans()
    assert len(join_spans(found, 0.1).splits["train"]) == 40
    labels = (spans / "span-5" / LABELS).read_bytes()
    (spans / "span-5" / LABELS).write_bytes(labels[:-1] + bytes([9 - labels[-1]]))
    with pytest.raises(SpanError):
        join_spans(found, 0.1)


def test_a_span_that_was_ingested_before_is_not_read_again(spans):
    damaged = spans / "span-5" / IMAGES
    damaged.write_bytes(damaged.read_bytes()[:-1])
    fingerprint = content_fingerprint(resolve_span(str(spans), 5))
    assert numbers(resolve_window(str(spans))) == [2]
    assert numbers(resolve_window(str(spans), known=[fingerprint])) == [5]


def test_names_that_are_nearly_a_spans_are_told(spans):
    (spans / "span-2026-11-28").mkdir()
    [line] = resolve_window(str(spans)).notices()
    assert "span-2026-11-28" in line


def test_a_span_and_a_window_are_one_too_many(spans):
    with pytest.raises(WindowError):
        resolve_window(str(spans), span=1, window="all")


def test_on_an_object_store(spans, s3_bucket):
    import s3fs

    options = {"key": "k", "secret": "s", "endpoint_url": os.environ["FSSPEC_S3_ENDPOINT_URL"]}
    s3fs.S3FileSystem(**options).put(f"{spans}/", f"{s3_bucket}/data/", recursive=True)
    address = f"{s3_bucket}/data"
    with pytest.raises(SpanError):
        resolve_window(address, settle_seconds=600)
    found = resolve_window(address, window="rolling:2")
    local = resolve_window(str(spans), window="rolling:2")
    assert found.content == local.content
    train, same = (join_spans(window, 0.1).splits["train"] for window in (found, local))
    np.testing.assert_array_equal(train.read().images, same.read().images)
    record = f"{s3_bucket}/serving/quarantine.json"
    quarantine.quarantine(record, {5: (found.spans[-1].fingerprint, "dark")}, run="r")
    assert numbers(resolve_window(address, quarantine=quarantine.read_quarantine(record))) == [2]


def test_the_order_of_digits_follows_the_spans(spans, digits):
    joined = join_spans(resolve_window(str(spans), window="all"), 0.1)
    rows = np.concatenate([np.arange(100 * n, 100 * n + 40) for n in (1, 2, 5)])
    train = joined.splits["train"].read()
    np.testing.assert_array_equal(train.images, digits[0][rows])
    np.testing.assert_array_equal(train.labels, digits[1][rows])
    assert [(each.span, each.train, each.eval) for each in joined.counts] == [
        (1, 40, 20),
        (2, 40, 20),
        (5, 40, 20),
    ]


def test_each_picture_is_trained_on_once_and_never_where_it_is_held_out(
    tmp_path, digits, write_span
):
    images, labels = digits
    # Span 2 repeats ten training digits of span 1, and has three that span 1 holds out.
    write_span(tmp_path / "span-1", images[:100], labels[:100], train=80)
    rows = np.r_[100:160, 0:10, 80:83, 200:220]
    write_span(tmp_path / "span-2", images[rows], labels[rows], train=73)
    test = images[100:105], labels[100:105]
    write_span(tmp_path / "t", *test, train=1)
    for path in (tmp_path / "t").glob("t10k-*"):
        path.rename(tmp_path / path.name)
    window = resolve_window(str(tmp_path), window="all")
    joined = join_spans(window, 0.1)
    assert [each.dropped for each in joined.counts] == [0, 13 + 4]
    splits = {
        name: {i.tobytes() for i in part.read().images} for name, part in joined.splits.items()
    }
    assert len(splits["train"]) == len(joined.splits["train"]) == 80 + 56
    assert not splits["train"] & (splits["eval"] | splits["test"])
    assert sum(sum(each.labels) for each in joined.counts) == 80 + 56 + 20 + 20
