"""The look at drift before a run."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorflow_data_validation import load_schema_text

from components.data_gate.statistics import DataStatistics, Digits, class_means, describe
from mnist.completeness import examine
from mnist.features import derive_scalars
from pipeline.local.errors import UsageError
from pipeline.pipeline import SCHEMA_FILE
from pipeline.retraining.drift import find_drift
from registry.layout import DATA_STATISTICS, newest_version, version_dir
from registry.records import statistics_files

ROOT = Path(__file__).parents[4]
LIMITS = {"jensen_shannon": 0.1, "l_infinity": 0.08}


@pytest.fixture(scope="module")
def schema():
    return load_schema_text(SCHEMA_FILE)


def as_digits(images: np.ndarray, labels: np.ndarray) -> Digits:
    columns = {"label": labels.astype(np.int64), **derive_scalars(images)}
    return Digits(images.reshape(len(images), -1), columns)


def thick(images: np.ndarray) -> np.ndarray:
    return np.maximum(images, np.roll(images, 1, axis=2))


def test_the_look_does_not_import_what_is_slow():
    code = (
        "import sys, pipeline.retraining.drift\n"
        "slow = {'tensorflow', 'tensorflow_data_validation', 'tfx', 'apache_beam'}\n"
        "sys.exit(bool(slow & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.fixture
def serving(tmp_path: Path, digits, schema, push_graph) -> Callable[[str], Path]:
    """A function that pushes a version made of the first 700 digits, with their fingerprint."""

    def push(fingerprint: str) -> Path:
        part = as_digits(digits[0][:700], digits[1][:700])
        statistics = DataStatistics(
            describe(part, schema), class_means(part), [{"span": 1, "fingerprint": fingerprint}]
        )
        extra = statistics_files(statistics.as_files())
        push_graph(tmp_path / "serving", extra_files=extra)
        return tmp_path / "serving"

    return push


def look_at(folder: Path):
    return examine(2, str(folder), settle_seconds=0.0)


def test_alike_spans_have_not_drifted_and_others_have(tmp_path, digits, serving, write_span):
    images, labels = digits
    write_span(tmp_path / "alike", images[700:], labels[700:], train=200)
    write_span(tmp_path / "thick", thick(thick(images[700:])), labels[700:], train=200)
    base = serving("other data")
    # 300 digits scatter by this much around 700 others.
    wide = {"jensen_shannon": 0.12, "l_infinity": 0.12}
    found, reason = find_drift(base, [look_at(tmp_path / "alike")], wide)
    assert not found, reason
    spans = [look_at(tmp_path / "alike"), look_at(tmp_path / "thick")]
    found, reason = find_drift(base, spans, wide)
    assert found
    assert "pixel_mean" in reason
    assert not find_drift(base, spans, {"jensen_shannon": None, "l_infinity": None})[0]


def test_the_very_data_behind_the_version_are_not_measured(tmp_path, digits, serving, write_span):
    write_span(tmp_path / "same", *digits, train=700)
    state = look_at(tmp_path / "same")
    found, reason = find_drift(serving(state.fingerprint), [state], {"l_infinity": 0.0})
    assert not found
    assert "was made of these very data" in reason


def test_where_nothing_is_known_a_run_is_made(tmp_path, digits, write_span):
    write_span(tmp_path / "data", *digits, train=700)
    state = look_at(tmp_path / "data")
    assert find_drift(tmp_path / "serving", [state], LIMITS)[0]
    (tmp_path / "serving" / "7").mkdir(parents=True)
    found, reason = find_drift(tmp_path / "serving", [state], LIMITS)
    assert found
    assert "version 7 " in reason


@pytest.mark.parametrize("name", ["statistics.pb", "data.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff", json.dumps([1]).encode()])
def test_damaged_statistics_are_a_message(tmp_path, digits, serving, write_span, name, content):
    write_span(tmp_path / "data", *digits, train=700)
    base = serving("other data")
    (version_dir(base, newest_version(base)) / DATA_STATISTICS / name).write_bytes(content)
    with pytest.raises(UsageError):
        find_drift(base, [look_at(tmp_path / "data")], LIMITS)
