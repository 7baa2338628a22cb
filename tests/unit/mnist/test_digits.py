"""The scan of a span's files, and what it keeps of each digit."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from mnist.digits import Fingerprint, forget_scans, image_keys, keep_scan, scan
from mnist.idx import IdxError
from mnist.spans import fingerprint_files, resolve_span


def fingerprint(*parts: tuple[np.ndarray, np.ndarray]) -> str:
    found = Fingerprint()
    for images, labels in parts:
        found.add(image_keys(images), labels)
    return found.hexdigest()


def test_the_fingerprint_follows_pixels_labels_and_order(digits: tuple) -> None:
    images, labels = digits[0][:10], digits[1][:10]
    whole = fingerprint((images, labels))
    assert whole == fingerprint((images[:3], labels[:3]), (images[3:], labels[3:]))
    others = [(images[::-1], labels), (images, (labels + 1) % 10), (images[:9], labels[:9])]
    assert len({whole, *map(fingerprint, others)}) == 4


def test_a_scan_keeps_labels_and_keys(span_dir: Path, digits: tuple) -> None:
    paths = resolve_span(str(span_dir), 1).paths
    train, held_out = scan(paths, fingerprint_files(paths))
    assert (train.images_path, train.labels_path) == paths[:2]
    np.testing.assert_array_equal(np.concatenate([train.labels, held_out.labels]), digits[1])
    first = hashlib.blake2b(digits[0][0].tobytes(), digest_size=8).digest()
    assert train.keys[0] == int.from_bytes(first, "little")
    np.testing.assert_array_equal(held_out.keys, image_keys(digits[0][700:]))


def test_a_kept_scan_answers_for_files_that_are_gone(span_dir: Path) -> None:
    paths = resolve_span(str(span_dir), 1).paths
    known = fingerprint_files(paths)
    keep_scan(paths, known)
    for path in paths:
        Path(path).unlink()
    assert len(scan(paths, known)[0]) == 700
    forget_scans()
    with pytest.raises(IdxError):
        scan(paths, known)


def test_a_kept_scan_does_not_answer_for_a_copy_in_another_folder(
    span_dir: Path, tmp_path: Path
) -> None:
    kept = resolve_span(str(span_dir), 1).paths
    keep_scan(kept, fingerprint_files(kept))
    copy = resolve_span(str(shutil.copytree(span_dir, tmp_path / "copy")), 1).paths
    assert scan(copy, fingerprint_files(copy))[0].images_path == copy[0]
    forget_scans()
