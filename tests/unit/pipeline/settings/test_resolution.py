"""Where settings come from, what they refuse, and what they say about it."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models.digit_classifier.settings import ClassifierSettings
from models.gan.settings import TrainSettings
from pipeline.cli.config import settings_lines
from pipeline.settings.resolution import (
    PRESETS_DIR,
    ConfigError,
    allowed,
    known_keys,
    preset_names,
    resolve,
)
from pipeline.settings.sections import Settings

KEY = "train.batch_size"  # the preset `gpu` sets it to 256
CONDITIONAL = "evaluation.thresholds.conditional_accuracy"
LOWEST = "evaluation.thresholds.lowest_conditional_accuracy"
DEEP = "evaluation.thresholds.two_sample_accuracy"
NOT_CONTROL = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1)


UNKNOWN = {
    "train.max_stepz": "train.max_steps",
    "trian.loss": "train.loss",
    "evaluation.thresholds.percision": "evaluation.thresholds.precision",
    "train.seed.x": "train.seed",
    "kubeflow.resources.Trainer.gpus": "kubeflow.resources.<name>.gpu",
}
REFUSED = {
    "no key": "=3",
    "section given a value": "serving_check=3",
    "section given a mapping": "push={model_name: a}",
    "text for a number": "train.max_seconds=soon",
    "fraction for an integer": "train.seed=1.5",
    "text for true or false": "train.conditional=maybe",
    "number for text": "output_dir=3",
    "mapping for a number": "train.seed={a: 1}",
    "list member": "train.generator_channels=[1, 2, wide]",
    "zero in a list": "train.generator_channels=[4, 0, 4]",
    "too low": "data.shards=0",
    "too high": "data.shards=10001",
    "bound not included": "data.eval_share=1",
    "NaN": "train.dropout=.nan",
    "NaN as a bound": "evaluation.thresholds.density=.nan",
    "infinite bound": "evaluation.thresholds.density=.inf",
    "infinite negative bound": "evaluation.thresholds.density=-.inf",
    "null": "train.seed=null",
    "empty text": "output_dir=''",
    "pattern": "pipeline_name=My Pipe",
    "bad literal": "train.optimizer=adamw",
    "not YAML": "train.seed=[",
    "impossible date": "output_dir=2024-13-45",
    "no equals sign": "train.seed",
    "no budget": "train.max_seconds=null",
    "no window": "data.window=newest",
    "row of a table": "kubeflow.resources.Pusher.cpu=0",
}


def refusal(
    *assignments: str, preset: str = "default", environ: Mapping[str, str] | None = None
) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        resolve(preset, environ=environ or {}, assignments=assignments)
    return caught.value


@pytest.mark.parametrize("layers", list(itertools.product([False, True], repeat=4)), ids=str)
def test_the_last_layer_wins_and_is_recorded(layers: Sequence[bool]) -> None:
    preset, environment, assigned, option = layers
    resolved = resolve(
        "gpu" if preset else "default",
        environ={"MNIST_GAN_TRAIN__BATCH_SIZE": "11"} if environment else {},
        assignments=["train.batch_size=12"] if assigned else [],
        options={KEY: (13, "--batch")} if option else {},
    )
    expected = [
        (16, "preset default"),
        *([(256, "preset gpu")] if preset else []),
        *([(11, "environment MNIST_GAN_TRAIN__BATCH_SIZE")] if environment else []),
        *([(12, "--set")] if assigned else []),
        *([(13, "--batch")] if option else []),
    ][-1]
    rows = {key: (value, origin) for key, value, origin, _ in resolved.rows()}
    assert rows[KEY] == expected
    assert resolved.settings.train.batch_size == expected[0]
    assert rows["train.seed"] == (0, "default"), "a key that no layer names"


def test_a_row_of_a_table_is_set_by_its_name() -> None:
    resolved = resolve(
        environ={"MNIST_GAN_KUBEFLOW__RESOURCES__TRAINER__GPU": "2"},
        assignments=["kubeflow.resources.Pusher.cpu=1", "kubeflow.resources.default.gpu=3"],
    )
    rows = {key: (value, origin) for key, value, origin, _ in resolved.rows()}
    row = "kubeflow.resources"
    assert rows[f"{row}.Trainer.gpu"] == (
        2,
        f"environment MNIST_GAN_{row.upper().replace('.', '__')}__TRAINER__GPU",
    )
    assert rows[f"{row}.Trainer.memory_gib"] == (8, "default")
    assert rows[f"{row}.Pusher.cpu"] == (1, "--set")
    assert rows[f"{row}.Pusher.gpu"] == (3, "default"), "of the row `default`"
    assert f"{row}.StatisticsGen.gpu" not in rows


def test_the_later_of_two_assignments_wins() -> None:
    resolved = resolve(environ={}, assignments=["train.seed=1", " train.seed = 2"])
    assert resolved.settings.train.seed == 2


def test_keys_of_one_section_may_come_from_several_layers() -> None:
    resolved = resolve(
        "gpu",
        environ={"MNIST_GAN_TRAIN__SEED": "5", "MNIST_GAN_OUTPUT_DIR": "there", "HOME": "/root"},
        assignments=["evaluation.thresholds.recall=0.4"],
    )
    train, thresholds = resolved.settings.train, resolved.settings.evaluation.thresholds
    assert (train.seed, train.batch_size) == (5, 256)
    assert resolved.settings.output_dir == "there"
    assert (thresholds.conditional_accuracy, thresholds.recall, thresholds.precision) == (
        0.98,
        0.4,
        0.5,
    )


def test_the_data_folder_of_the_environment() -> None:
    short = {"MNIST_DATA_DIR": "/short"}
    resolved = resolve(environ=short)
    assert resolved.settings.data.dir == "/short"
    assert resolved.origins["data.dir"] == "environment MNIST_DATA_DIR"
    resolved = resolve(environ=short | {"MNIST_GAN_DATA__DIR": "/long"})
    assert resolved.settings.data.dir == "/long"
    assert resolved.origins["data.dir"] == "environment MNIST_GAN_DATA__DIR"


def test_an_empty_data_folder_in_the_environment_is_ignored() -> None:
    resolved = resolve(environ={"MNIST_DATA_DIR": ""})
    assert resolved.settings.data.dir is None
    assert "data.dir" not in resolved.origins


def test_without_an_environment_the_process_own_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_GAN_TRAIN__SEED", "77")
    assert resolve().settings.train.seed == 77


def test_the_presets_are_those_documented() -> None:
    assert {"default", "smoke", "few_digits", "best", "gpu", "classic"} == set(preset_names())


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_resolves_to_what_its_file_says(preset: str) -> None:
    resolved = resolve(preset, environ={})
    content = yaml.safe_load((PRESETS_DIR / f"{preset}.yaml").read_text())
    named = {}
    for key, value, origin, _ in resolved.rows():
        node: Any = content
        for part in key.split("."):
            node = node.get(part, KeyError) if isinstance(node, dict) else KeyError
        if node is not KeyError:
            named[key] = value
            assert origin == f"preset {preset}"
            assert list(value) == node if isinstance(value, tuple) else value == node
    assert set(named) == set(resolved.origins), "nothing else comes from the preset"


@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_names_every_value_of_its_recipe(preset: str) -> None:
    """What is left out says how a training is run, and not what is trained."""
    text = (PRESETS_DIR / f"{preset}.yaml").read_text()
    content = yaml.safe_load(text)
    left_out = {
        *("seed", "deterministic", "precision", "xla", "resume", "report_seconds"),
        *("checkpoint_seconds", "warm_start", "warm_start_learning_rate_factor"),
    }
    assert set(TrainSettings.model_fields) - left_out <= content["train"].keys()
    assert content["classifier"].keys() == ClassifierSettings.model_fields.keys()
    assert {"samples", "fid_samples", "deep"} <= content["evaluation"].keys()
    head = text.partition("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in head)
    assert any(line.startswith("#     python local_runner.py run") for line in head)
    assert any(line.startswith("# Expect: ") for line in head)


def test_the_default_preset_is_the_defaults() -> None:
    assert resolve(environ={}).settings == Settings()


@pytest.mark.parametrize(("key", "nearest"), UNKNOWN.items())
def test_an_unknown_key_is_refused_with_the_nearest(key: str, nearest: str) -> None:
    error = refusal(f"{key}=3")
    assert error.what == f"there is no setting {key} (value 3, from --set)"
    assert f"{nearest};" in error.fix


@pytest.mark.parametrize("assignment", REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_the_key(assignment: str) -> None:
    error = refusal(assignment)
    assert assignment.partition("=")[0] in f"{error.where} {error.what}"
    assert "--set" in str(error) or "not YAML" in error.what


def test_a_refusal_says_the_value_its_origin_and_what_is_taken() -> None:
    error = refusal(environ={"MNIST_GAN_TRAIN__LATENT_DIM": "0"})
    field = allowed(known_keys()["train.latent_dim"])
    assert error.what.startswith(
        "train.latent_dim = 0 (from environment MNIST_GAN_TRAIN__LATENT_DIM): "
    )
    assert error.what.endswith(f"; it takes {field}")
    error = refusal(environ={"MNIST_GAN_LATENT_DIM": "8"})
    assert "environment MNIST_GAN_LATENT_DIM" in error.what
    assert "train.latent_dim;" in error.fix


@pytest.mark.parametrize("value", ["auto", "on", "off"])
def test_a_word_that_older_yaml_takes_for_true_is_a_word(value: str) -> None:
    assert resolve(environ={}, assignments=[f"train.xla={value}"]).settings.train.xla == value
    environ = {"MNIST_GAN_TRAIN__XLA": value}
    assert resolve(environ=environ).settings.train.xla == value


@pytest.mark.parametrize(("text", "value"), [("off", False), ("no", False), ("True", True)])
def test_true_and_false_in_other_words(text: str, value: bool) -> None:
    assignments = [f"train.conditional={text}", f"{CONDITIONAL}=null", f"{LOWEST}=null"]
    assert resolve(environ={}, assignments=assignments).settings.train.conditional is value


def test_settings_that_do_not_go_together_are_named_with_their_origins() -> None:
    assert refusal("train.loss=hinge", "train.label_smoothing=0.1").what == (
        "train.label_smoothing applies to cross-entropy, not to train.loss=hinge "
        "(train.label_smoothing from --set, train.loss from --set)"
    )


@pytest.mark.parametrize(
    ("assignments", "keys"),
    [
        (["train.max_seconds=null"], ["train.max_seconds", "train.max_steps"]),
        (["train.conditional=false"], [CONDITIONAL, LOWEST]),
        ([f"{DEEP}=0.9"], ["evaluation.deep", DEEP]),
        (["data.window=all", "data.span=3"], ["data.span", "data.window"]),
    ],
)
def test_of_settings_that_exclude_each_other_all_are_named(
    assignments: list[str], keys: list[str]
) -> None:
    what = refusal(*assignments).what
    assert [key for key in keys if key not in what] == []


@pytest.mark.parametrize(
    "assignments",
    [
        ["train.conditional=false", f"{CONDITIONAL}=null", f"{LOWEST}=null"],
        [f"{DEEP}=0.9", "evaluation.deep=true"],
        ["data.window=rolling:3"],
    ],
)
def test_settings_that_go_together_are_taken(assignments: list[str]) -> None:
    resolved = resolve(environ={}, assignments=assignments)
    assert {each.partition("=")[0] for each in assignments} <= resolved.origins.keys()


def test_an_unknown_preset_is_refused_with_those_there_are() -> None:
    error = refusal(preset="huge")
    assert error.where == "--preset"
    assert [preset for preset in preset_names() if preset not in error.fix] == []


def test_all_refusals_at_once() -> None:
    error = refusal("train.seed=-1", "data.shards=0", "classifier.min_accuracy=2")
    keys = [finding.split(" = ")[0] for finding in error.findings]
    assert keys == ["data.shards", "classifier.min_accuracy", "train.seed"]


@hypothesis_settings(deadline=None, max_examples=150)
@given(
    key=st.sampled_from(sorted(known_keys())) | st.text(),
    value=st.text() | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", fullmatch=True),
)
def test_any_assignment_is_taken_or_refused(key: str, value: str) -> None:
    try:
        resolved = resolve(environ={}, assignments=[f"{key}={value}"])
    except ConfigError as error:
        message = str(error)
    else:
        message = f"{key} is taken"
        assert resolved.origins[key.strip()] == "--set"
    assert key.partition("=")[0].strip() in message


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (
            "train.loss",
            "one of non_saturating, minimax, least_squares, hinge, wasserstein, relativistic",
        ),
        ("train.conditional", "true or false"),
        ("train.seed", "an integer, >= 0, <= 2147483647"),
        ("train.dropout", "a number, >= 0, < 1"),
        ("train.max_steps", "an integer, >= 1, <= 100000000 or null"),
        ("train.generator_channels", "a list"),
        ("data.span", "an integer, >= 0 or null"),
        ("data.dir", "text, length >= 1 or null"),
        ("data.settle_seconds", "a number, >= 0, <= 86400"),
        ("evaluation.thresholds.fid_ratio", "a number, >= 0 or null"),
        ("pipeline_name", "text, matching ^[a-z0-9][a-z0-9-]*$"),
    ],
)
def test_what_a_key_takes_in_words(key: str, text: str) -> None:
    assert allowed(known_keys()[key]) == text


def test_every_key_has_a_meaning_and_a_default_within_its_range() -> None:
    defaults = Settings()
    for key, field in known_keys().items():
        assert field.description, key
    assert Settings.model_validate(defaults.model_dump()) == defaults


@pytest.mark.parametrize("preset", preset_names())
def test_the_settings_shown_are_yaml_of_the_settings(
    preset: str,
) -> None:
    resolved = resolve(
        preset,
        environ={"MNIST_DATA_DIR": "gs://bucket/a: b #c"},
        assignments=[
            "data.cache_dir='null'",
            "data.span=0",
            "train.discriminator_learning_rate=1e-7",
        ],
        options={"output_dir": ("007", "--output-dir")},
    )
    text = "\n".join(settings_lines(resolved))
    assert Settings.model_validate(yaml.safe_load(text)) == resolved.settings
    assert re.search(r"^output_dir: '007'  # --output-dir$", text, re.MULTILINE)
    assert re.search(r"^  span: 0  # --set$", text, re.MULTILINE)
    shown = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    assert sum("  # " in line for line in shown) == len(list(resolved.rows())), (
        "each with its origin"
    )


@hypothesis_settings(deadline=None, max_examples=50)
@given(folder=NOT_CONTROL, mirrors=st.lists(NOT_CONTROL, max_size=3), share=st.floats(1e-9, 0.99))
def test_any_text_and_number_survives_being_shown(
    folder: str, mirrors: list[str], share: float
) -> None:
    options = {
        "data.dir": (folder, "--data-dir"),
        "data.mirrors": (mirrors, "--mirrors"),
        "data.eval_share": (share, "--share"),
    }
    resolved = resolve(environ={}, options=options)
    shown = yaml.safe_load("\n".join(settings_lines(resolved)))
    assert Settings.model_validate(shown) == resolved.settings


def test_the_password_of_the_metadata_store_is_no_setting_and_never_shown():
    variable = {"MNIST_GAN_METADATA_PASSWORD": "hush", "MNIST_GAN_METADATA_PASSWORD_FILE": "/p"}
    assert "hush" not in str(resolve(environ=variable))
    error = refusal(environ={"MNIST_GAN_METADATA__URL": "mysql://gan:hush@host/db"})
    assert error.what.startswith("metadata.url = ")
    assert "hush" not in str(error)
