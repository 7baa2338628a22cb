"""Ingestion, statistics, schema, validation and gate as TFX runs them, on real digits."""

import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_metadata.proto import metadata_store_pb2
from running_nodes import pipeline_of, records
from tfx import v1 as tfx

from components.data_gate.executor import DataRejectedError
from mnist import idx
from mnist.digits import forget_scans
from mnist.idx import IdxError
from mnist.records import load_split
from mnist.spans import SpanError, resolve_span
from mnist.splits import SplitError
from mnist.windows import resolve_window
from pipeline.local import history
from pipeline.pipeline import create_data_nodes
from pipeline.settings.resolution import resolve


def run_data_nodes(data_dir: Path, root: Path, *assignments: str, **window: str) -> None:
    """Runs the data nodes of the pipeline with TFX's own local runner."""
    nodes = create_data_nodes(
        resolve(environ={}, assignments=assignments).settings,
        data_dir=str(data_dir),
        source="a test",
        serving_root=str(root / "serving"),
        **window,
    )
    tfx.orchestration.LocalDagRunner().run(pipeline_of(root, nodes))


_opened: list[str] = []


def _note_opened(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(args[0], str) and "-ubyte" in args[0]:
        _opened.append(args[0])


@pytest.fixture(scope="module")
def _watched() -> None:
    sys.addaudithook(_note_opened)  # for good: Python has no way to take it away


@pytest.fixture
def opened(_watched: None) -> Iterator[list[str]]:
    """The IDX files that this process opens, each as often as it does."""
    _opened.clear()
    yield _opened
    forget_scans()


def test_each_file_is_hashed_once_and_scanned_once(tmp_path, span_dir, opened):
    """Opened to be hashed and to be scanned when the window is resolved, by the run or by
    ingestion; to see whether it is compressed; and for the shards, four of the train split.
    """
    files = resolve_span(str(span_dir), 1).paths
    times = dict(zip(files, (3 + 4, 3 + 4, 3 + 2, 3 + 2), strict=True))
    window = resolve_window(str(span_dir))
    run_data_nodes(span_dir, tmp_path, window=window.name, content=window.content)
    assert Counter(opened) == times
    opened.clear()
    (tmp_path / "cluster").mkdir()
    run_data_nodes(span_dir, tmp_path / "cluster")
    assert Counter(opened) == times
    opened.clear()
    again = resolve_window(str(span_dir), known=window.content.split("+"))
    assert again == window
    assert Counter(opened) == dict.fromkeys(files, 1)


def test_files_that_changed_since_the_window_was_resolved_are_refused(tmp_path, span_dir, digits):
    window = resolve_window(str(span_dir))
    forget_scans()
    idx.write_labels(str(span_dir / "train-labels-idx1-ubyte"), digits[1][300:])
    with pytest.raises(SpanError):
        run_data_nodes(span_dir, tmp_path, window=window.name, content=window.content)
    assert not list((tmp_path / "artifacts").rglob("*.gz"))


def test_good_data_passes_and_is_described(tmp_path, span_dir, digits):
    run_data_nodes(span_dir, tmp_path)
    store = history.open_store(tmp_path / "metadata.sqlite")
    [examples] = store.get_artifacts_by_type("Examples")
    properties = examples.custom_properties
    assert examples.properties["span"].int_value == 1
    assert properties["train_count"].int_value == 700
    assert properties["eval_count"].int_value == 300
    assert properties["source"].string_value == "a test"
    [blessing] = store.get_artifacts_by_type("components.DataBlessing")
    blessed = json.loads((Path(blessing.uri) / "data_blessing.json").read_text())
    assert (blessed["span"], blessed["examples"]) == (1, {"train": 700, "eval": 300})
    [span] = json.loads(properties["spans"].string_value)
    assert span == blessed["spans"][0]
    assert (span["train"], span["eval"], span["dropped"]) == (700, 300, 0)
    images, labels = load_split([f"{examples.uri}/Split-train/*"])
    np.testing.assert_array_equal(images[..., 0], digits[0][:700])
    np.testing.assert_array_equal(labels, digits[1][:700])


def test_same_data_gives_the_same_bytes(tmp_path, span_dir):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run_data_nodes(span_dir, tmp_path / name)
    first, second = records(tmp_path / "one"), records(tmp_path / "two")
    assert len(first) == 4 + 2
    assert first == second


def test_compressed_files_give_the_same_bytes_and_their_copies_are_removed(tmp_path, span_dir):
    run_data_nodes(span_dir, tmp_path)
    for path in span_dir.iterdir():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    (tmp_path / "again").mkdir()
    run_data_nodes(span_dir, tmp_path / "again")
    assert records(tmp_path / "again") == records(tmp_path)
    [artifact] = (tmp_path / "again" / "artifacts" / "MnistExampleGen" / "examples").iterdir()
    assert sorted(path.name for path in artifact.iterdir()) == [
        "Split-eval",
        "Split-train",
        "spans.json",
    ]


def noise(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(0).normal(128, 60, images.shape)
    return np.clip(drawn, 0, 255).astype(np.uint8), labels


def inverted(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 255 - images, labels


def one_blank(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([images[:-1], np.zeros_like(images[:1])]), labels


@pytest.mark.parametrize(
    ("spoil", "feature", "split"),
    [
        (noise, "box_height", "train"),
        (inverted, "pixel_mean", "train"),
        (one_blank, "box_height", "eval"),
    ],
)
def test_gate_stops_the_run_and_names_the_feature(
    tmp_path, digits, write_span, spoil, feature, split
):
    write_span(tmp_path / "data", *spoil(*digits), train=700)
    with pytest.raises(DataRejectedError) as failure:
        run_data_nodes(tmp_path / "data", tmp_path)
    assert any(f"{split}: {feature}: " in finding for finding in failure.value.findings)
    store = history.open_store(tmp_path / "metadata.sqlite")
    states = [execution.last_known_state for execution in store.get_executions()]
    assert states.count(metadata_store_pb2.Execution.FAILED) == 1
    assert not store.get_artifacts_by_type("components.DataBlessing")
    [entry] = json.loads((tmp_path / "serving" / "quarantine.json").read_text()).values()
    assert f"{split}: {feature}: " in entry["reason"]


def test_too_few_examples_are_an_anomaly_of_the_data_set(tmp_path, digits, write_span):
    images, labels = digits
    write_span(tmp_path / "data", images[:150], labels[:150], train=80)
    with pytest.raises(DataRejectedError) as failure:
        run_data_nodes(tmp_path / "data", tmp_path)
    assert any("train: the data set: " in finding for finding in failure.value.findings)


def test_bad_files_fail_ingestion_and_leave_no_record(tmp_path, span_dir):
    path = span_dir / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IdxError) as failure:
        run_data_nodes(span_dir, tmp_path)
    assert failure.value.where == str(path)
    assert not list((tmp_path / "artifacts").rglob("*.gz"))


def test_a_span_that_leaves_a_split_empty_stops_one_run_and_is_left_out(
    tmp_path, digits, write_span
):
    images, labels = digits
    data = tmp_path / "data"
    write_span(data / "span-1", images, labels, train=700)
    # Too few to hold any out; and one whose training digits are all held out.
    write_span(data / "span-2", images[:2], labels[:2], train=1)
    write_span(data / "span-3", images[:50].repeat(2, 0), labels[:50].repeat(2), train=50)
    for kind in ("images-idx3", "labels-idx1"):
        (data / "span-2" / f"t10k-{kind}-ubyte").unlink()
        content = (data / "span-3" / f"train-{kind}-ubyte").read_bytes()
        (data / "span-3" / f"t10k-{kind}-ubyte").write_bytes(content)
    held = tmp_path / "serving" / "quarantine.json"
    for _ in range(2):
        with pytest.raises(SplitError):
            run_data_nodes(data, tmp_path, "data.settle_seconds=0")
    assert sorted(json.loads(held.read_text())) == ["2", "3"]
    run_data_nodes(data, tmp_path, "data.settle_seconds=0")
    [examples] = history.open_store(tmp_path / "metadata.sqlite").get_artifacts_by_type("Examples")[
        -1:
    ]
    assert examples.properties["span"].int_value == 1


def test_digits_are_held_out_where_there_are_no_eval_files(tmp_path, span_dir):
    for path in span_dir.glob("t10k-*"):
        path.unlink()
    run_data_nodes(span_dir, tmp_path, "data.eval_share=0.3")
    [examples] = history.open_store(tmp_path / "metadata.sqlite").get_artifacts_by_type("Examples")
    counts = [examples.custom_properties[f"{split}_count"].int_value for split in ("train", "eval")]
    assert sum(counts) == 700
    assert 160 <= counts[1] <= 260


def test_a_window_with_a_fixed_test_split(tmp_path, digits, write_span):
    images, labels = digits
    data = tmp_path / "data"
    for span in (1, 2):
        rows = slice(400 * span - 400, 400 * span)
        write_span(data / f"span-{span}", images[rows], labels[rows], train=300)
    write_span(tmp_path / "test", images[790:], labels[790:], train=5)
    for path in (tmp_path / "test").glob("t10k-*"):
        path.rename(data / path.name)
    run_data_nodes(data, tmp_path, "data.window=rolling:2", "data.settle_seconds=0")
    store = history.open_store(tmp_path / "metadata.sqlite")
    [examples] = store.get_artifacts_by_type("Examples")
    assert examples.properties["split_names"].string_value == '["train", "eval", "test"]'
    assert examples.properties["span"].int_value == 2
    counts = {
        split: examples.custom_properties[f"{split}_count"].int_value
        for split in ("train", "eval", "test")
    }
    assert counts == {"train": 600, "eval": 200, "test": 205}
    blessing = store.get_artifacts_by_type("components.DataBlessing")[0]
    blessed = json.loads((Path(blessing.uri) / "data_blessing.json").read_text())
    assert blessed["examples"] == counts
    test_images, _ = load_split([f"{examples.uri}/Split-test/*"])
    np.testing.assert_array_equal(test_images[..., 0], images[795:])
