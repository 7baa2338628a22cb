"""The IDX reader: known bytes, every kind of bad file, and fuzzing."""

import gzip
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist import idx
from mnist.digits import scan
from mnist.idx import IdxError

REPOSITORY = Path(__file__).parents[3]
FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def images_bytes(count: int = 3, rows: int = 28, columns: int = 28) -> bytes:
    pixels = bytes(i % 251 for i in range(count * rows * columns))
    return struct.pack(">4B3I", 0, 0, 8, 3, count, rows, columns) + pixels


def labels_bytes(labels: bytes = b"\x05\x00\x04") -> bytes:
    return struct.pack(">4BI", 0, 0, 8, 1, len(labels)) + labels


def put(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def test_known_label_bytes(tmp_path: Path) -> None:
    path = put(tmp_path / "labels", bytes.fromhex("00000801 00000004 07020109"))
    labels = idx.read_labels(path)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [7, 2, 1, 9]


def test_known_image_bytes_are_read_row_by_row(tmp_path: Path) -> None:
    pixels = bytearray(2 * 784)
    pixels[1] = 10
    pixels[28] = 20
    pixels[784 + 783] = 255
    header = bytes.fromhex("00000803 00000002 0000001c 0000001c")
    images = idx.read_images(put(tmp_path / "images", header + pixels))
    assert images.shape == (2, 28, 28)
    assert images.dtype == np.uint8
    assert {tuple(place): int(images[tuple(place)]) for place in np.argwhere(images)} == {
        (0, 0, 1): 10,
        (0, 1, 0): 20,
        (1, 27, 27): 255,
    }


def test_the_real_digits(mnist_dir: Path) -> None:
    def read(split: str) -> tuple[idx.Uint8Array, idx.Uint8Array]:
        names = (f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte")
        plain_or_gz = [next(mnist_dir.glob(f"{name}*")) for name in names]
        return idx.read_images(str(plain_or_gz[0])), idx.read_labels(str(plain_or_gz[1]))

    images, labels = read("train")
    assert images.shape == (60_000, 28, 28)
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert (int(images[0].sum()), int(images.sum())) == (27_525, 1_567_298_545)
    assert np.bincount(labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
    images, labels = read("t10k")
    assert images.shape == (10_000, 28, 28)
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert int(images.sum()) == 264_923_200


def test_compression_is_told_by_content_and_not_by_name(tmp_path: Path) -> None:
    plain_called_gz = put(tmp_path / "a.gz", labels_bytes())
    gz_called_plain = put(tmp_path / "b", gzip.compress(labels_bytes()))
    assert idx.read_labels(plain_called_gz).tolist() == [5, 0, 4]
    assert idx.read_labels(gz_called_plain).tolist() == [5, 0, 4]


def test_gzip_in_several_members(tmp_path: Path) -> None:
    content = images_bytes()
    path = put(tmp_path / "images", gzip.compress(content[:100]) + gzip.compress(content[100:]))
    assert idx.read_images(path).tobytes() == content[16:]


def test_addresses_go_through_tensorflow(tmp_path: Path) -> None:
    put(tmp_path / "images.gz", gzip.compress(images_bytes()))
    put(tmp_path / "plain", images_bytes())
    base = f"file://{tmp_path}"
    assert idx.read_images(f"{base}/images.gz").tobytes() == images_bytes()[16:]
    assert idx.read_images(f"{base}/plain").tobytes() == images_bytes()[16:]
    for address in (
        f"{base}/none",
        base,
        "nosuchscheme://bucket/file",
        "file:///zero\0byte",
        "file:///\udc80",
    ):
        with pytest.raises(IdxError) as caught:
            idx.read_images(address)
        assert caught.value.where == address


def test_importing_does_not_import_tensorflow() -> None:
    script = "import sys, mnist.idx, mnist.spans\nsys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True)


def header(count: int) -> bytes:
    return struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28)


BAD_IMAGES = {
    "empty": b"",
    "cut in the magic": b"\0\0\x08",
    "cut in the header": images_bytes()[:13],
    "cut in the pixels": images_bytes()[:-1],
    "wrong magic": b"\x89PNG\r\n\x1a\n" + bytes(99),
    "a web page": b"<!doctype html><html>",
    "floats": b"\0\0\x0d\x03" + images_bytes()[4:],
    "labels": labels_bytes(),
    "32x32": images_bytes(2, 32, 32),
    "28x0": images_bytes(2, 28, 0),
    "none": images_bytes(0),
    "trailing": images_bytes() + b"\0",
    "lying": header(9_999_999) + bytes(784),
    "absurd": header(2**32 - 1) + bytes(784),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_bad_files(tmp_path: Path, kind: str, pack: Callable[[bytes], bytes]) -> None:
    path = put(tmp_path / "images", pack(BAD_IMAGES[kind]))
    with pytest.raises(IdxError) as caught:
        idx.read_images(path)
    assert_helpful(caught.value, path)


@pytest.mark.parametrize("kept", [2, 5, 9, 30, -8, -1])
def test_truncated_gzip(tmp_path: Path, kept: int) -> None:
    path = put(tmp_path / "images.gz", gzip.compress(images_bytes())[:kept])
    with pytest.raises(IdxError) as caught:
        idx.read_images(path)
    assert_helpful(caught.value, path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:],
        lambda packed: packed[:2] + b"\x07" + packed[3:],
        lambda packed: packed[:12] + bytes(20) + packed[32:],
        lambda packed: packed + b"junk",
    ],
    ids=["checksum", "method", "data", "junk"],
)
def test_corrupt_gzip(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = put(tmp_path / "images.gz", spoil(gzip.compress(images_bytes(), mtime=0)))
    with pytest.raises(IdxError) as caught:
        idx.read_images(path)
    assert_helpful(caught.value, path)


def test_a_label_above_nine_is_named_with_its_row(tmp_path: Path) -> None:
    path = put(tmp_path / "labels", labels_bytes(bytes([1, 9, 10, 3, 255])))
    with pytest.raises(IdxError, match="label 10 in row 2") as caught:
        idx.read_labels(path)
    assert_helpful(caught.value, path)


def test_different_counts(tmp_path: Path) -> None:
    images_path = put(tmp_path / "images", images_bytes(2))
    labels_path = put(tmp_path / "labels", labels_bytes())
    with pytest.raises(IdxError) as caught:
        scan([images_path, labels_path])
    assert_helpful(caught.value, images_path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("rows", [range(3), range(1, 3), range(2, 3)])
def test_some_rows(tmp_path: Path, pack: Callable[[bytes], bytes], rows: range) -> None:
    images = put(tmp_path / "images", pack(images_bytes()))
    labels = put(tmp_path / "labels", pack(labels_bytes()))
    [found] = idx.read_rows(images, labels, rows)
    np.testing.assert_array_equal(found[0], idx.read_images(images)[rows.start : rows.stop])
    np.testing.assert_array_equal(found[1], idx.read_labels(labels)[rows.start : rows.stop])


def test_rows_that_the_file_no_longer_has(tmp_path: Path) -> None:
    images = put(tmp_path / "images", images_bytes())
    labels = put(tmp_path / "labels", labels_bytes())
    with pytest.raises(IdxError) as caught:
        list(idx.read_rows(images, labels, range(2, 5)))
    assert_helpful(caught.value, images)


def test_what_a_compressed_file_holds(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192
    path = put(tmp_path / "images.gz", gzip.compress(content))
    assert idx.is_compressed(path)
    chunks = list(idx.unpacked_chunks(path))
    assert (b"".join(chunks), max(map(len, chunks))) == (content, 1 << 20)
    assert not idx.is_compressed(put(tmp_path / "plain", content))
    with pytest.raises(IdxError):
        list(idx.unpacked_chunks(put(tmp_path / "cut.gz", gzip.compress(content)[:-9])))


def test_what_is_no_file(tmp_path: Path) -> None:
    put(tmp_path / "file", b"")
    os.mkfifo(tmp_path / "pipe")  # whose opening would hang
    for name in ("none", "file/below", "pipe", "."):
        with pytest.raises(IdxError) as caught:
            idx.read_images(str(tmp_path / name))
        assert_helpful(caught.value, str(tmp_path / name))
    for path in ("", "zero\0byte"):
        with pytest.raises(IdxError):
            idx.read_images(path)


def test_unreadable_permissions(tmp_path: Path) -> None:
    path = put(tmp_path / "images", images_bytes())
    os.chmod(path, 0o000)
    with without_root(), pytest.raises(IdxError) as caught:
        idx.read_images(path)
    assert_helpful(caught.value, path)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_a_file_that_fails_while_it_is_read() -> None:
    with pytest.raises(IdxError) as caught:
        idx.read_images("/proc/self/mem")
    assert_helpful(caught.value, "/proc/self/mem")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_lying_header_costs_no_memory(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = put(tmp_path / "images", pack(BAD_IMAGES["lying"]))
    with peak_memory_below(1 << 20), pytest.raises(IdxError):
        idx.read_images(path)


def test_a_gzip_bomb_is_read_no_further_than_it_claims(tmp_path: Path) -> None:
    packer = zlib.compressobj(level=9, wbits=31)
    bomb = [packer.compress(images_bytes())]
    bomb += [packer.compress(bytes(1 << 22)) for _ in range(64)]
    path = put(tmp_path / "images.gz", b"".join([*bomb, packer.flush()]))
    with peak_memory_below(32 << 20), pytest.raises(IdxError):
        idx.read_images(path)


@FUZZ
@given(
    images=hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.just(28), st.just(28))),
    labels=st.lists(st.integers(0, 9), min_size=1, max_size=50),
)
def test_what_is_written_is_read_back(
    tmp_path: Path, images: idx.Uint8Array, labels: list[int]
) -> None:
    paths = [str(tmp_path / name) for name in ("images", "labels")]
    label_array = np.array(labels, np.uint8)
    idx.write_images(paths[0], images)
    idx.write_labels(paths[1], label_array)
    assert np.array_equal(idx.read_images(paths[0]), images)
    assert np.array_equal(idx.read_labels(paths[1]), label_array)
    assert sorted(os.listdir(tmp_path)) == ["images", "labels"]


def test_written_bytes_are_the_formats_own(tmp_path: Path) -> None:
    reversed_view = np.arange(10, dtype=np.uint8)[::-1]
    idx.write_labels(str(tmp_path / "labels"), reversed_view)
    assert (tmp_path / "labels").read_bytes() == labels_bytes(bytes(range(9, -1, -1)))


@pytest.mark.parametrize(
    ("write", "array"),
    [
        (idx.write_images, np.zeros((2, 28, 28), np.float32)),
        (idx.write_images, np.zeros((2, 28, 27), np.uint8)),
        (idx.write_images, np.zeros((28, 28), np.uint8)),
        (idx.write_images, np.zeros((0, 28, 28), np.uint8)),
        (idx.write_labels, np.array([0, 10], np.uint8)),
        (idx.write_labels, np.array([1, 2], np.int64)),
        (idx.write_labels, np.array(3, np.uint8)),
        (idx.write_labels, np.array([], np.uint8)),
    ],
)
def test_only_images_and_labels_are_written(
    tmp_path: Path, write: Callable[[str, idx.Uint8Array], None], array: idx.Uint8Array
) -> None:
    with pytest.raises(IdxError):
        write(str(tmp_path / "file"), array)
    assert not os.listdir(tmp_path)


@FUZZ
@given(content=st.binary(max_size=2_000))
def test_random_bytes(tmp_path: Path, content: bytes) -> None:
    assert_array_or_idx_error(put(tmp_path / "file", content))
    assert_array_or_idx_error(put(tmp_path / "file", b"\x1f\x8b" + content))
    assert_array_or_idx_error(put(tmp_path / "file", gzip.compress(content)))


@FUZZ
@given(
    magic=st.sampled_from([b"\0\0\x08\x01", b"\0\0\x08\x03", b"\0\0\x09\x03", b"\0\1\x08\x03"]),
    sizes=st.lists(st.sampled_from([0, 1, 2, 27, 28, 2**31, 2**32 - 1]), max_size=4),
    tail=st.sampled_from([0, 1, 783, 784, 785, 1568]),
    packed=st.booleans(),
)
def test_random_headers(
    tmp_path: Path, magic: bytes, sizes: list[int], tail: int, packed: bool
) -> None:
    content = magic + b"".join(struct.pack(">I", size) for size in sizes) + bytes(tail)
    path = put(tmp_path / "file", gzip.compress(content) if packed else content)
    assert_array_or_idx_error(path)


@FUZZ
@given(
    good=st.sampled_from(
        [
            images_bytes(),
            labels_bytes(),
            gzip.compress(images_bytes(), mtime=0),
            gzip.compress(labels_bytes(), mtime=0),
        ]
    ),
    data=st.data(),
)
def test_mutated_files(tmp_path: Path, good: bytes, data: st.DataObject) -> None:
    content = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4), "mutations")):
        start = data.draw(st.integers(0, len(content)) | st.integers(0, 20), "place")
        removed = data.draw(st.integers(0, 40), "removed")
        content[start : start + removed] = data.draw(st.binary(max_size=40), "inserted")
    assert_array_or_idx_error(put(tmp_path / "file", bytes(content)))


def assert_array_or_idx_error(path: str) -> None:
    for read, item_shape in ((idx.read_images, (28, 28)), (idx.read_labels, ())):
        try:
            values = read(path)
        except IdxError as error:
            assert_helpful(error, path)
        else:
            assert values.dtype == np.uint8
            assert values.shape == (len(values), *item_shape)
            assert len(values) > 0


def assert_helpful(error: IdxError, path: str) -> None:
    """Whether an error names the file, says what was expected, and what to do."""
    assert error.where == path
    assert ", expected " in error.what
    assert error.fix


@contextmanager
def without_root() -> Iterator[None]:
    """Gives up root's power to read everything, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(65_534)
    except OSError as error:
        pytest.skip(f"root cannot become another user here: {error}")
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def peak_memory_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()
