"""The evaluator with real digits and a real classifier: what it blesses, and what it must not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from evaluating import COUNT, SETTINGS, Run, TableGenerator, blurred, export
from scipy import ndimage
from tfx.types import artifact_utils, standard_artifacts

from evaluation.baseline import Baseline, BrokenBaselineError
from evaluation.evaluate import Evaluation, evaluate
from evaluation.image_statistics import RealDigits
from evaluation.sampling import GeneratorError, Samples
from evaluation.settings import Thresholds
from models.digit_classifier.features import FeatureExtractor
from registry.layout import MODEL_CARD_TEXT
from registry.model_card import card_files


def measured(
    candidate: Samples, real: RealDigits, extractor: FeatureExtractor, served: Samples | None = None
) -> Evaluation:
    baseline = Baseline("measured", "", "1", "path", served) if served else Baseline("none", "")
    return evaluate(candidate, baseline, real, extractor, SETTINGS)


def failed(evaluation: Evaluation, kind: str = "threshold") -> set[str]:
    return {c.metric for c in evaluation.checks if not c.passed and c.kind == kind}


def test_real_digits_are_blessed_alone_and_beside_others(good, pools, real, extractor):
    alone = measured(good, real, extractor)
    assert alone.document["verdict"] == {"blessed": True, "reasons": []}
    beside = measured(Samples(*pools["second"]), real, extractor, good)
    assert beside.document["verdict"] == {"blessed": True, "reasons": []}
    assert {check.kind for check in beside.checks} == {"threshold", "baseline"}
    metrics = alone.document["metrics"]
    assert metrics["fid_ratio"]["value"] == pytest.approx(1, abs=0.5)
    assert metrics["memorization_rate"]["value"] < 0.05
    assert metrics["lowest_class_diversity"]["value"] == pytest.approx(1, abs=0.4)


def test_noise_is_rejected(good, real, extractor):
    noise = np.random.default_rng(0).integers(0, 256, good.images.shape, np.uint8)
    found = failed(measured(Samples(noise, good.labels), real, extractor))
    assert found >= {"fid_ratio", "precision", "mean_intensity_difference"}


def test_one_digit_only_is_rejected(good, real, extractor):
    sevens = np.resize(good.images[good.labels == 7], good.images.shape)
    found = failed(measured(Samples(sevens, good.labels), real, extractor))
    assert found >= {
        "class_share_distance",
        "lowest_class_share",
        "conditional_accuracy",
        "coverage",
    }


def test_one_image_per_class_is_rejected(good, real, extractor):
    """Every class is there and every image shows its label; there is one image of each."""
    ten = np.resize(good.images[:10], good.images.shape)
    found = failed(measured(Samples(ten, good.labels), real, extractor))
    assert found >= {"lowest_class_diversity", "recall", "coverage"}
    assert not found & {"class_share_distance", "memorization_rate", "mean_intensity_difference"}


def test_copies_of_training_digits_are_rejected_for_that_alone(good, pools, real, extractor):
    images, labels = (part[:COUNT] for part in pools["train"])
    assert failed(measured(Samples(images, labels), real, extractor)) == {"memorization_rate"}
    noise = np.random.default_rng(0).integers(-8, 9, images.shape)
    copies = np.clip(images + noise, 0, 255).astype(np.uint8)
    assert "memorization_rate" in failed(measured(Samples(copies, labels), real, extractor))


def test_nine_of_ten_digits_are_rejected(good, real, extractor):
    images = good.images.copy()
    images[good.labels == 4] = images[good.labels == 9]
    found = failed(measured(Samples(images, good.labels), real, extractor))
    assert found >= {"lowest_class_share", "class_share_distance", "lowest_conditional_accuracy"}
    assert not found & {"memorization_rate", "mean_intensity_difference"}
    unconditional = failed(measured(Samples(images, None), real, extractor))
    assert {"lowest_class_share", "class_share_distance"} <= unconditional


def test_a_label_that_is_ignored_is_rejected_for_that_alone(good, real, extractor):
    order = np.random.default_rng(0).permutation(COUNT)
    found = failed(measured(Samples(good.images[order], good.labels), real, extractor))
    assert found == {"conditional_accuracy", "lowest_conditional_accuracy"}


def test_a_blurred_copy_of_the_baseline_is_rejected_beside_it(good, real, extractor):
    candidate = Samples(blurred(good.images), good.labels)
    found = measured(candidate, real, extractor, good)
    assert "sharpness_difference" in failed(found, "baseline")
    [reason] = [r for r in found.document["verdict"]["reasons"] if "sharpness" in r]
    assert "above the baseline's" in reason


@pytest.mark.slow
def test_the_metrics_that_train_a_network(good, pools, real, extractor):
    settings = SETTINGS.model_copy(update={"deep": True})
    served = Baseline("measured", "", "1", "path", Samples(blurred(good.images), good.labels))
    found = evaluate(Samples(*pools["second"]), served, real, extractor, settings).document
    two_sample, score = (
        found["metrics"][name] for name in ("two_sample_accuracy", "classification_accuracy_score")
    )
    assert two_sample["value"] < 0.65
    assert two_sample["interval"][0] < two_sample["value"] < two_sample["interval"][1]
    assert two_sample["baseline"]["value"] > 0.9
    assert (score["interval"], score["difference"]) == (None, None)
    assert score["value"] == pytest.approx(score["floor"], abs=0.05)
    assert found["verdict"]["blessed"]


def test_an_interval_is_of_samples_with_the_same_labels(good, real, extractor):
    """What was fixed is fixed in each half, so the predicted labels hardly vary."""
    settings = SETTINGS.model_copy(update={"samples": 600})
    metrics = evaluate(good, Baseline("none", ""), real, extractor, settings).document["metrics"]
    low, high = metrics["class_share_distance"]["interval"]
    assert high - low < 0.02


def test_features_that_are_no_numbers_are_refused(good, real, extractor):
    def broken(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features, logits = extractor(images)
        return np.where(images.mean() == good.images.mean(), np.nan, features), logits

    with pytest.raises(ValueError, match="NaN"):
        evaluate(good, Baseline("none", ""), real, broken, SETTINGS)


def test_what_is_written_of_a_first_generator(execute, pools):
    run = execute(pools["first"][0])
    assert run.blessed
    content = run.content
    assert set(content) == {
        *("schema_version", "verdict", "checks", "metrics", "classes", "baseline", "samples"),
        *("seed", "verification", "about"),
    }
    assert content["baseline"]["status"] == "none"
    assert content["about"]["data"] == {
        "span": 7,
        "source": "bundled",
        "counts": {"train": 2000, "eval": 1000},
        "fingerprint": "abc",
    }
    for name, metric in content["metrics"].items():
        assert set(metric) == {
            *("title", "unit", "direction"),
            *("value", "interval", "floor", "baseline", "difference"),
        }
        low, high = metric["interval"]
        assert low <= metric["value"] <= high, name
        assert metric["floor"] is not None
        assert run.evaluation.get_float_custom_property(name) == metric["value"]
    assert np.shape(content["classes"]["confusion"]) == (10, 10)
    assert np.sum(content["classes"]["confusion"]) == COUNT
    beside = json.loads((Path(run.blessing.uri) / "evaluation.json").read_text())
    assert beside == content
    assert json.loads(run.blessing.get_string_custom_property("checks")) == content["checks"]
    with np.load(Path(run.evaluation.uri) / "samples.npz") as arrays:
        shapes = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
        np.testing.assert_array_equal(arrays["images"], pools["first"][0][:100])
    assert shapes == {
        "images": ("uint8", (100, 28, 28, 1)),
        "labels": ("int64", (100,)),
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
    assert run.content["metrics"]["fid"]["baseline"]["value"] > 0
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


@pytest.fixture(scope="session")
def drifted(pools):
    """A window in which strokes are bolder, with the digits of before as its fixed test split."""
    (train, train_labels), (held_out, labels) = pools["train"], pools["eval"]
    return RealDigits(bolder(train), train_labels, bolder(held_out), labels, held_out)


def bolder(images: np.ndarray, share: float = 1.0) -> np.ndarray:
    """The first of each ten rows of ten, so of every digit alike, with strokes a pixel wider."""
    chosen = (np.arange(len(images)) // 10 % 10) < 10 * share
    wider = ndimage.grey_dilation(images, (1, 2, 2, 1))
    return np.where(chosen[:, np.newaxis, np.newaxis, np.newaxis], wider, images)


def fids(evaluation: Evaluation, name: str) -> tuple[float, float]:
    metric = evaluation.document["metrics"][name]
    return metric["value"], metric["baseline"]["value"]


def test_an_older_generator_is_not_kept_on_old_evidence(good, pools, drifted, extractor):
    """The challenger is nearer to the new window, and a bit farther from the test split."""
    images, labels = pools["second"]
    challenger = Samples(bolder(images, 0.1), labels)
    found = measured(challenger, drifted, extractor, good)
    new, served = fids(found, "fid")
    assert new < served
    new, served = fids(found, "test_fid")
    assert new > served
    assert not failed(found, "baseline") & {"fid", "test_fid"}
    assert found.document["metrics"]["test_fid_ratio"]["floor"] is not None


def test_one_that_has_forgotten_what_is_old_is_rejected_for_that(good, pools, drifted, extractor):
    images, labels = pools["second"]
    found = measured(Samples(bolder(images), labels), drifted, extractor, good)
    new, served = fids(found, "fid")
    assert new < 0.5 * served
    assert "test_fid" in failed(found, "baseline")
    assert "fid" not in failed(found, "baseline")


def test_one_that_the_test_split_likes_better_does_not_win_by_that(good, pools, drifted, extractor):
    images, labels = pools["second"]
    found = measured(good, drifted, extractor, Samples(bolder(images), labels))
    new, served = fids(found, "test_fid")
    assert new < 0.5 * served
    assert "fid" in failed(found, "baseline")


def test_without_a_test_split_nothing_is_said_of_one(good, pools, real, drifted, extractor):
    second = Samples(*pools["second"])
    without = measured(good, real, extractor, second).document
    assert not {"test_fid", "test_fid_ratio"} & set(without["metrics"])
    split = RealDigits(real.train, real.train_labels, real.eval, real.eval_labels, drifted.test)
    beside = measured(good, split, extractor, second).document
    metrics = {name: found for name, found in beside["metrics"].items() if "test_" not in name}
    assert metrics == without["metrics"]
    # Here the test split is the eval split.
    for name in ("fid", "fid_ratio"):
        title = beside["metrics"][f"test_{name}"]["title"]
        assert beside["metrics"][f"test_{name}"] == metrics[name] | {"title": title}


def test_the_test_split_of_the_examples_is_read(inputs, pools, tmp_path):
    [examples] = inputs["examples"]
    copied = standard_artifacts.Examples()
    copied.uri = str(tmp_path / "examples")
    copied.split_names = artifact_utils.encode_split_names(["train", "eval", "test"])
    for split, source in (("train", "train"), ("eval", "train"), ("test", "eval")):
        shutil.copytree(f"{examples.uri}/Split-{source}", f"{copied.uri}/Split-{split}")
    export(pools["first"][0], tmp_path / "Format-Serving")
    run = Run(tmp_path, {**inputs, "examples": [copied]}, tmp_path / "serving")
    assert run.content["about"]["data"]["counts"] == {"train": 2000, "eval": 2000, "test": 1000}
    found = run.content["metrics"]["test_fid"]["value"]
    assert run.evaluation.get_float_custom_property("test_fid") == found
    assert found != run.content["metrics"]["fid"]["value"]
    assert "FID, test split" in Path(run.report.uri, "report.html").read_text()


def test_what_a_search_found_is_told_as_the_settings_of_the_training(inputs, pools, tmp_path):
    found = standard_artifacts.HyperParameters()
    found.uri = str(tmp_path / "best_hyperparameters")
    Path(found.uri).mkdir()
    values = {"latent": "uniform", "generator_channels": "8-4-2"}
    Path(found.uri, "best_hyperparameters.txt").write_text(json.dumps({"values": values}))
    export(pools["first"][0], tmp_path / "Format-Serving")
    run = Run(tmp_path, {**inputs, "hyperparameters": [found]}, tmp_path / "serving")
    about = run.content["about"]
    assert about["train"] == {"latent": "normal"}
    assert about["tuned"] == {"latent": "uniform", "generator_channels": [8, 4, 2]}
    page = Path(run.report.uri, "report.html").read_text()
    assert "--set train.latent=uniform" in page
    assert "classifier.steps: 400" in page
    card = card_files(run.content)[MODEL_CARD_TEXT].decode()
    assert "- latent: uniform" in card


def test_a_broken_baseline_fails_or_is_ignored(execute, pools, tmp_path):
    export(pools["first"][0], tmp_path / "serving" / "3")
    (tmp_path / "serving" / "3" / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(BrokenBaselineError, match=r"serving/3.*evaluation\.broken_baseline"):
        execute(pools["first"][0])
    run = execute(pools["first"][0], broken_baseline="ignore")
    assert run.content["baseline"]["status"] == "unloadable"
    assert "serving/3" in run.content["baseline"]["message"]
    assert run.blessed


def test_an_altered_version_is_no_baseline(execute, pools, tmp_path):
    (tmp_path / "serving" / "5").mkdir(parents=True)
    baseline = execute(pools["first"][0]).content["baseline"]
    assert (baseline["status"], baseline["version"]) == ("none", None)
    assert "5 was altered" in baseline["message"]
    export(pools["second"][0], tmp_path / "serving" / "4")
    baseline = execute(pools["first"][0]).content["baseline"]
    assert (baseline["status"], baseline["version"]) == ("measured", "4")


@pytest.mark.parametrize(
    ("names", "missing"),
    [(["from_latent"], "generate_pixels"), (["generate_pixels"], "from_latent")],
)
def test_a_candidate_without_a_signature_is_refused(inputs, pools, tmp_path, names, missing):
    module = TableGenerator(pools["first"][0])
    signatures = {name: getattr(module, name) for name in names}
    tf.saved_model.save(module, str(tmp_path / "Format-Serving"), signatures=signatures)
    with pytest.raises(GeneratorError) as caught:
        Run(tmp_path, inputs, tmp_path / "serving")
    assert caught.value.where == f"{tmp_path}/Format-Serving"
    assert caught.value.what.startswith(f"the signature {missing} is missing; found: {names[0]}, ")
    assert "models/gan/export.py" in caught.value.fix
    assert not any((tmp_path / "evaluation").iterdir())


def test_a_failed_threshold_is_named_with_its_number(execute, pools):
    thresholds = Thresholds.model_validate({"fid_ratio": 0.001})
    run = execute(pools["first"][0], thresholds=thresholds)
    assert not run.blessed
    assert "must be at most 0.001" in run.blessing.get_string_custom_property("failed_bounds")
    [check] = [check for check in run.content["checks"] if not check["passed"]]
    assert (check["metric"], check["bound"]) == ("fid_ratio", "at most 0.001")
    assert check["interval"][0] < check["value"] < check["interval"][1]
