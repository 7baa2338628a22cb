"""Which files make up a span, and the fingerprint of their content."""

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist import spans
from mnist.idx import IdxError
from mnist.spans import SpanError, SpanFiles

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
EVAL = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_flat_folder_is_span_one(tmp_path: Path) -> None:
    fill(tmp_path, *TRAIN, *EVAL, "README.md")
    assert spans.list_spans(str(tmp_path)) == {1: str(tmp_path)}
    for span in (None, 1):
        assert spans.resolve_span(str(tmp_path), span) == SpanFiles(
            1, str(tmp_path), *(str(tmp_path / name) for name in (*TRAIN, *EVAL))
        )


def test_span_folders_are_ordered_by_number(tmp_path: Path) -> None:
    for name in ("span-10", "span-9", "span-0", "span-002"):
        fill(tmp_path / name, *TRAIN)
    fill(tmp_path, "notes.txt")
    found = spans.open_folder(str(tmp_path))
    assert list(found.spans.items()) == [
        (0, str(tmp_path / "span-0")),
        (2, str(tmp_path / "span-002")),
        (9, str(tmp_path / "span-9")),
        (10, str(tmp_path / "span-10")),
    ]
    assert (found.is_flat, found.misnamed, found.notice()) == (False, (), "")
    assert spans.resolve_span(str(tmp_path), None).span == 10
    assert spans.resolve_span(str(tmp_path), 2).directory == str(tmp_path / "span-002")


def test_names_that_are_nearly_a_spans_are_told(tmp_path: Path) -> None:
    fill(tmp_path / "span-1", *TRAIN)
    wrong = ["Span-3", "span-2026-11-28", f"span-{2**63}", "span-٣", "span_30", "spans"]
    for name in wrong:
        fill(tmp_path / name, *TRAIN)
    fill(tmp_path, "span-4")
    os.symlink("span-5", tmp_path / "span-5")
    found = spans.open_folder(str(tmp_path))
    assert list(found.spans) == [1]
    assert found.misnamed == tuple(sorted([*wrong, "span-4", "span-5"]))
    assert all(name in found.notice() for name in found.misnamed)


def test_a_link_that_leads_to_itself_hides_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "span-1", *TRAIN)
    for folder in (tmp_path, tmp_path / "span-1"):
        os.symlink("loop", folder / "loop")
    assert spans.resolve_span(str(tmp_path), None).span == 1


@pytest.mark.parametrize("inner", ["raw", "MNIST/raw", "MNIST"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_torchvisions_folders_are_span_one(tmp_path: Path, inner: str, scheme: str) -> None:
    fill(tmp_path / inner, *TRAIN, *EVAL)
    found = spans.open_folder(f"{scheme}{tmp_path}")
    assert found == spans.DataFolder({1: f"{scheme}{tmp_path / inner}"}, is_flat=True)
    assert spans.find_test_files(f"{scheme}{tmp_path}") is None


def test_folders_of_torchvisions_names_without_digits(tmp_path: Path) -> None:
    (tmp_path / "MNIST").mkdir()
    os.symlink(".", tmp_path / "MNIST" / "raw")
    with pytest.raises(SpanError):
        spans.open_folder(str(tmp_path))


def test_a_file_beside_its_own_archive_is_taken(tmp_path: Path) -> None:
    """As torchvision leaves them."""
    fill(tmp_path, *TRAIN)
    for name in TRAIN:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    files = spans.resolve_span(str(tmp_path), None)
    assert files.paths == tuple(str(tmp_path / name) for name in TRAIN)
    content = bytearray((tmp_path / TRAIN[0]).read_bytes())
    for other in (bytes([content[0] ^ 1]) + content[1:], content[:-1], b""):
        (tmp_path / TRAIN[0]).write_bytes(other)
        with pytest.raises(SpanError):
            spans.resolve_span(str(tmp_path), None)


def test_the_evaluation_files_may_be_called_test(tmp_path: Path) -> None:
    names = [name.replace("t10k", "test") for name in EVAL]
    files = spans.resolve_span(str(fill(tmp_path, *TRAIN, *names)), None)
    assert (files.eval_images, files.eval_labels) == tuple(str(tmp_path / n) for n in names)
    fill(tmp_path, EVAL[0])
    with pytest.raises(SpanError):
        spans.resolve_span(str(tmp_path), None)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
def test_every_spelling_of_the_names(tmp_path: Path, mark: str, ending: str) -> None:
    names = [f"{name.replace('-idx', mark + 'idx')}{ending}" for name in (*TRAIN, *EVAL)]
    files = spans.resolve_span(str(fill(tmp_path, *names)), None)
    assert files == SpanFiles(1, str(tmp_path), *(str(tmp_path / name) for name in names))


@pytest.mark.parametrize("missing", [*TRAIN, *EVAL])
def test_a_missing_file_is_named_with_what_was_found(tmp_path: Path, missing: str) -> None:
    fill(tmp_path, *(name for name in (*TRAIN, *EVAL) if name != missing), "other.txt")
    with pytest.raises(SpanError, match=f"{missing}.*other.txt") as caught:
        spans.resolve_span(str(tmp_path), None)
    assert caught.value.where == str(tmp_path)


def test_an_incomplete_latest_span_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path / "span-1", *TRAIN)
    fill(tmp_path / "span-2", TRAIN[0])
    with pytest.raises(SpanError) as caught:
        spans.resolve_span(str(tmp_path), None)
    assert caught.value.where == str(tmp_path / "span-2")
    assert spans.resolve_span(str(tmp_path), 1).span == 1


def test_no_such_span(tmp_path: Path) -> None:
    for number in range(1, 16):
        fill(tmp_path / f"span-{number}", *TRAIN)
    with pytest.raises(SpanError) as caught:
        spans.resolve_span(str(tmp_path), 99)
    assert caught.value.fix == "choose one of " + ", ".join(map(str, range(1, 13))) + " and 3 more"


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(SpanError):
        spans.list_spans(str(tmp_path))
    fill(tmp_path, "photo.jpg")
    fill(tmp_path / "span-x")
    with pytest.raises(SpanError, match=r"photo\.jpg, span-x"):
        spans.list_spans(str(tmp_path))


def test_folders_that_cannot_be_listed(tmp_path: Path) -> None:
    fill(tmp_path, "file")
    file = tmp_path / "file"
    for folder in (f"{tmp_path}/none", str(file), "", "zero\0byte", "nosuchscheme://bucket"):
        with pytest.raises(SpanError) as caught:
            spans.list_spans(folder)
        assert caught.value.where == folder


def test_files_beside_span_folders_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, TRAIN[0])
    fill(tmp_path / "span-2", *TRAIN)
    with pytest.raises(SpanError, match="span-2"):
        spans.list_spans(str(tmp_path))


def test_two_folders_of_one_number_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "span-1", *TRAIN)
    fill(tmp_path / "span-01", *TRAIN)
    with pytest.raises(SpanError, match="span-01 and span-1"):
        spans.list_spans(str(tmp_path))


@pytest.mark.parametrize("twin", ["train-images-idx3-ubyte.gz", "train-images.idx3-ubyte"])
def test_a_file_that_is_there_twice_is_refused(tmp_path: Path, twin: str) -> None:
    fill(tmp_path, *TRAIN, twin)
    with pytest.raises(SpanError, match=f"{TRAIN[0]}, {twin}"):
        spans.resolve_span(str(tmp_path), None)


def test_a_folder_beside_the_file_does_not_count(tmp_path: Path) -> None:
    """Archives of MNIST exist in which each file also lies in a folder of nearly its name."""
    fill(tmp_path, "train-images.idx3-ubyte", TRAIN[1])
    fill(tmp_path / TRAIN[0], TRAIN[0])
    files = spans.resolve_span(str(tmp_path), None)
    assert files.train_images == str(tmp_path / "train-images.idx3-ubyte")


def test_addresses_go_through_tensorflow(tmp_path: Path) -> None:
    fill(tmp_path / "span-3", *TRAIN)
    fill(tmp_path / "span-4", *TRAIN, *EVAL)
    fill(tmp_path, "span-5")
    for address in (f"file://{tmp_path}", f"file://{tmp_path}/"):
        assert sorted(spans.list_spans(address)) == [3, 4]
        remote = spans.resolve_span(address, None)
        assert remote.train_images == f"file://{tmp_path}/span-4/{TRAIN[0]}"
        local = spans.resolve_span(str(tmp_path), None)
        assert spans.content_fingerprint(remote) == spans.content_fingerprint(local)
    with pytest.raises(SpanError):
        spans.list_spans(f"file://{tmp_path}/none")


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    first = spans.resolve_span(str(fill(tmp_path / "a", *TRAIN, *EVAL)), None)
    second = spans.resolve_span(str(fill(tmp_path / "b" / "span-7", *TRAIN, *EVAL).parent), 7)
    assert spans.content_fingerprint(first) == spans.content_fingerprint(second)
    os.utime(first.train_images, (0, 0))
    assert spans.content_fingerprint(first) == spans.content_fingerprint(second)


@pytest.mark.parametrize("name", [*TRAIN, *EVAL])
def test_the_fingerprint_sees_a_change_of_equal_size_and_time(tmp_path: Path, name: str) -> None:
    files = spans.resolve_span(str(fill(tmp_path, *TRAIN, *EVAL)), None)
    before = spans.content_fingerprint(files)
    times = (tmp_path / name).stat()
    (tmp_path / name).write_bytes(b"X" + (tmp_path / name).read_bytes()[1:])
    os.utime(tmp_path / name, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert spans.content_fingerprint(files) != before


def test_the_fingerprint_tells_with_eval_from_without(tmp_path: Path) -> None:
    with_eval = spans.resolve_span(str(fill(tmp_path / "a", *TRAIN, *EVAL)), None)
    without = spans.resolve_span(str(fill(tmp_path / "b", *TRAIN)), None)
    assert spans.content_fingerprint(with_eval) != spans.content_fingerprint(without)


def test_bytes_moved_between_files_change_the_fingerprint(tmp_path: Path) -> None:
    files = spans.resolve_span(str(fill(tmp_path, *TRAIN)), None)
    Path(files.train_images).write_bytes(b"ab")
    Path(files.train_labels).write_bytes(b"c")
    before = spans.content_fingerprint(files)
    Path(files.train_images).write_bytes(b"a")
    Path(files.train_labels).write_bytes(b"bc")
    assert spans.content_fingerprint(files) != before


def test_the_fingerprint_of_a_vanished_file(tmp_path: Path) -> None:
    files = spans.resolve_span(str(fill(tmp_path, *TRAIN)), None)
    Path(files.train_labels).unlink()
    with pytest.raises(IdxError) as caught:
        spans.content_fingerprint(files)
    assert caught.value.where == files.train_labels


@settings(max_examples=60, deadline=None)
@given(numbers=st.sets(st.integers(0, 2**63 - 1), min_size=1, max_size=8))
def test_any_set_of_numbers(tmp_path_factory: pytest.TempPathFactory, numbers: set[int]) -> None:
    folder = tmp_path_factory.mktemp("spans")
    for number in numbers:
        fill(folder / f"span-{number}", *TRAIN)
    assert list(spans.list_spans(str(folder))) == sorted(numbers)
    assert spans.resolve_span(str(folder), None).span == max(numbers)
