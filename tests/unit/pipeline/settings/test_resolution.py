"""Where settings come from, what they refuse, and what they say about it."""

import itertools
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from yaml_bomb import bomb

from models.digit_classifier.settings import ClassifierSettings
from models.gan.settings import TrainSettings
from pipeline.cli.config import settings_lines
from pipeline.settings.resolution import (
    PRESETS_DIR,
    ConfigError,
    allowed,
    environment_notices,
    known_keys,
    preset_names,
    resolve,
)
from pipeline.settings.sections import Settings

KEY = "train.batch_size"  # the preset `gpu` sets it to 256
NOT_CONTROL = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1)


REFUSALS: dict[str, tuple[str, list[str]]] = {
    "unknown key": (
        "train.max_stepz=3",
        ["--set: there is no setting train.max_stepz", "nearest is train.max_steps;"],
    ),
    "unknown section": (
        "trian.loss=hinge",
        ["no setting trian.loss", "nearest is train.loss;"],
    ),
    "unknown section key": (
        "evaluation.thresholds.percision=0.4",
        [
            "no setting evaluation.thresholds.percision",
            "nearest is evaluation.thresholds.precision;",
        ],
    ),
    "below a key": (
        "train.seed.x=1",
        ["no setting train.seed.x", "nearest is train.seed;"],
    ),
    "key without section": ("batch_size=3", ["nearest is train.batch_size;"]),
    "nothing near": ("zzzzzz=3", ["no setting zzzzzz; `local_runner.py config`"]),
    "no key": ("=3", ["--set: *** is not section.key=value"]),
    "section given a value": (
        "serving_check=3",
        ["--set: serving_check is a section", "serving_check.memory_gib"],
    ),
    "section given a mapping": ("push={model_name: a}", ["push", "push.model_name"]),
    "text for a number": (
        "train.max_seconds=soon",
        ["--set: train.max_seconds = 'soon'", "a number, > 0, <= 864000 or null"],
    ),
    "fraction for an integer": (
        "train.seed=1.5",
        ["train.seed = 1.5", "an integer, >= 0, <= 2147483647"],
    ),
    "text for true or false": (
        "train.conditional=maybe",
        ["train.conditional = 'maybe'", "it takes true or false"],
    ),
    "number for text": ("output_dir=3", ["output_dir = 3", "it takes text"]),
    "mapping for a number": ("train.seed={a: 1}", ["train.seed = {'a': 1}", "an integer"]),
    "list member": (
        "train.generator_channels=[1, 2, wide]",
        ["train.generator_channels = 'wide'", "it takes a list"],
    ),
    "too low": ("tune.trials=0", ["tune.trials = 0", "an integer, >= 1, <= 10000"]),
    "too high": ("tune.trials=10001", ["tune.trials = 10001", "an integer, >= 1, <= 10000"]),
    "bound not included": ("data.eval_share=1", ["data.eval_share = 1", "> 0, < 1"]),
    "not a number": ("train.dropout=.nan", ["train.dropout = nan", ">= 0, < 1"]),
    "null": ("train.seed=null", ["train.seed = None", "an integer, >= 0"]),
    "empty text": ("output_dir=''", ["output_dir = ''", "length >= 1"]),
    "pattern": (
        "pipeline_name=My Pipe",
        ["pipeline_name = 'My Pipe'", "matching ^[a-z0-9][a-z0-9-]*$"],
    ),
    "bad literal": (
        "train.optimizer=adamw",
        ["train.optimizer = 'adamw'", "it takes one of sgd, momentum, adam, rmsprop"],
    ),
    "not YAML": ("train.seed=[", ["train.seed: '['", "not YAML"]),
    "impossible date": ("output_dir=2024-13-45", ["output_dir: '2024-13-45'", "not YAML"]),
    "no equals sign": (
        "train.seed",
        ["--set: 'train.seed' is not section.key=value", "for example --set train."],
    ),
    "no budget": ("train.max_seconds=null", ["train.max_seconds and train.max_steps"]),
    "below a row": (
        "kubeflow.resources.Trainer.gpus=1",
        ["no setting kubeflow.resources.Trainer.gpus", "nearest is kubeflow.resources.<name>.gpu"],
    ),
    "a row's range": (
        "kubeflow.resources.Pusher.cpu=0",
        ["--set: kubeflow.resources.Pusher.cpu = 0", "a number, > 0, <= 1024"],
    ),
    "no channels": ("train.generator_channels=[4, 0, 4]", ["train.generator_channels and train."]),
}


def refusal(
    *assignments: str, preset: str = "default", environ: Mapping[str, str] | None = None
) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(preset, environ=environ or {}, assignments=assignments)
    return str(caught.value)


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
        (32, "preset default"),
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
        *("checkpoint_seconds", "warm_start"),
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


@pytest.mark.parametrize(("assignment", "fragments"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_says_what_and_why(assignment: str, fragments: Sequence[str]) -> None:
    message = refusal(assignment)
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize("value", ["auto", "on", "off"])
def test_a_word_that_older_yaml_takes_for_true_is_a_word(value: str) -> None:
    assert resolve(environ={}, assignments=[f"train.xla={value}"]).settings.train.xla == value
    environ = {"MNIST_GAN_TRAIN__XLA": value}
    assert resolve(environ=environ).settings.train.xla == value


@pytest.mark.parametrize(("text", "value"), [("off", False), ("no", False), ("True", True)])
def test_true_and_false_in_other_words(text: str, value: bool) -> None:
    assignments = [f"train.conditional={text}", "evaluation.thresholds.conditional_accuracy=null"]
    assignments.append("evaluation.thresholds.lowest_conditional_accuracy=null")
    settings = resolve(environ={}, assignments=assignments).settings
    assert settings.train.conditional is value


def test_a_combination_that_cannot_work() -> None:
    message = refusal("train.loss=hinge", "train.label_smoothing=0.1")
    assert message == (
        "train.label_smoothing from --set, train.loss from --set: "
        "train.label_smoothing applies to cross-entropy, not to train.loss=hinge"
    )


def test_settings_that_do_not_go_together_are_named_by_their_keys() -> None:
    assert refusal("train.max_seconds=null") == (
        "train.max_seconds from --set, train.max_steps from preset default: "
        "train.max_seconds and train.max_steps are both null: training would never end"
    )


def test_an_unknown_preset_names_those_there_are() -> None:
    message = refusal(preset="huge")
    assert "no preset 'huge'" in message
    for preset in preset_names():
        assert preset in message


def test_a_refusal_names_the_variable() -> None:
    message = refusal(environ={"MNIST_GAN_TRAIN__LATENT_DIM": "0"})
    assert message.startswith("environment MNIST_GAN_TRAIN__LATENT_DIM: train.latent_dim = 0: ")
    message = refusal(environ={"MNIST_GAN_METADATA__PASSWORD": "[S3CRET"})
    assert "environment MNIST_GAN_METADATA__PASSWORD" in message
    assert "S3CRET" not in message


def test_variables_that_are_no_settings_change_nothing() -> None:
    environ = {
        "MNIST_GAN_SERVING_PORT": "tcp://10.96.14.7:8501",
        "MNIST_GAN_SERVING_PORT_8501_TCP_ADDR": "10.96.14.7",
        "MNIST_GAN_DATA": "x",
        "MNIST_GAN_METADATA_PASSWORD": "S3CRET",
        "MNIST_GAN_TRAIN_SEED": "S3CRET",
    }
    assert resolve(environ=environ) == resolve(environ={})
    [notice] = environment_notices(environ)
    assert "MNIST_GAN_TRAIN__SEED" in notice
    assert "S3CRET" not in notice


def test_a_home_folder_is_meant_by_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    named = {"output_dir": ("~/out", "--output-dir")}
    settings = resolve(environ={"MNIST_DATA_DIR": "~/data"}, options=named).settings
    assert (settings.output_dir, settings.data.dir) == ("/home/ann/out", "/home/ann/data")


def test_all_refusals_at_once() -> None:
    assignments = ["train.seed=-1", "tune.trials=0", "classifier.min_accuracy=2"]
    with pytest.raises(ConfigError) as caught:
        resolve(environ={}, assignments=assignments)
    assert [finding.split(" = ")[0] for finding in caught.value.findings] == [
        "--set: classifier.min_accuracy",
        "--set: tune.trials",
        "--set: train.seed",
    ]


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
        ("train.discriminator_normalization", "one of none, batch, spectral"),
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


def test_an_unconditional_generator_has_no_conditional_accuracy():
    with pytest.raises(
        ConfigError, match=r"\.conditional_accuracy and .*lowest_conditional_accuracy cannot be"
    ):
        resolve(environ={}, assignments=["train.conditional=false"])
    settings = resolve(
        environ={},
        assignments=[
            "train.conditional=false",
            "evaluation.thresholds.conditional_accuracy=null",
            "evaluation.thresholds.lowest_conditional_accuracy=null",
        ],
    ).settings
    assert not settings.train.conditional


def test_a_threshold_on_a_metric_that_is_not_measured_is_refused():
    bound = "evaluation.thresholds.two_sample_accuracy=0.9"
    with pytest.raises(ConfigError, match=r"evaluation.deep=false, .*two_sample_accuracy cannot"):
        resolve(environ={}, assignments=[bound])
    assert resolve(environ={}, assignments=[bound, "evaluation.deep=true"]).settings.evaluation.deep


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_a_bound_is_a_finite_number(value: str):
    message = refusal(f"evaluation.thresholds.density={value}")
    assert "input should be a finite number; it takes a number, >= 0 or null" in message


def test_a_window_is_checked_and_goes_without_a_span() -> None:
    assert resolve(environ={}, assignments=["data.window=rolling:3"]).settings.data.window
    with pytest.raises(ConfigError, match=r"data.window = 'newest': .*is no window of spans"):
        resolve(environ={}, assignments=["data.window=newest"])
    with pytest.raises(ConfigError, match=r"data.span names one, so data.window has to be latest"):
        resolve(environ={}, assignments=["data.window=all", "data.span=3"])


def test_the_password_of_the_metadata_store_is_no_setting():
    variable = {"MNIST_GAN_METADATA_PASSWORD": "hush", "MNIST_GAN_METADATA_PASSWORD_FILE": "/p"}
    assert "hush" not in str(resolve(environ=variable))


@pytest.mark.parametrize(
    "assignment",
    [
        "metadata.password=HUSH",
        "metadata.password={HUSH: [",
        "metadata.url=mysql://u:HUSH@h/db",
        "metadata.url=mysql://u:HUSH/HUSH@h/db",
        "metadata.url=mysql://u:p@HUSH@h/db",
        "metadata.url=mysql://u:HUSH",
        "metadata.url=HUSH {: [",
        "metadata.url=postgresql://u@h/db?password=HUSH",
        "kubeflow.s3_endpoint=https://u:HUSH@h",
        "kubeflow.pipeline_root=https://u:HUSH HUSH@h?k=HUSH&HUSH",
        "data.mirrors={a: 'https://u:HUSH@h'}",
        "tune.trials=https://u:HUSH@h",
        "train.unknown=HUSH",
        "train.unknown={HUSH: [",
    ],
)
def test_a_secret_is_in_no_refusal(assignment: str) -> None:
    key, _, value = assignment.partition("=")
    variable = f"MNIST_GAN_{key.replace('.', '__').upper()}"
    for layer in ({"assignments": [assignment]}, {"environ": {variable: value}}):
        with pytest.raises(ConfigError) as caught:
            resolve(**{"environ": {}, **layer})
        assert "HUSH" not in str(caught.value)
        assert "HUSH" not in repr(caught.value)


def test_an_assignment_that_is_none_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        resolve(environ={}, assignments=["metadata.pasword HUSH"])
    assert "HUSH" not in str(caught.value)


def test_the_settings_are_shown_without_secrets():
    resolved = resolve(environ={}, assignments=["data.mirrors=['https://u:HUSH@h/a?t=HUSH']"])
    assert resolved.settings.data.mirrors == ("https://u:HUSH@h/a?t=HUSH",)
    assert "HUSH" not in "\n".join(settings_lines(resolved))


@pytest.mark.parametrize(
    "value", ["[" * 100_000, "{a: " * 10_000, "&a [*a]", "x" * 2_000_000, bomb(9)]
)
def test_a_value_that_costs_more_than_it_says_is_refused(value: str):
    started = time.monotonic()
    with pytest.raises(ConfigError):
        resolve(environ={}, assignments=[f"data.mirrors={value}"])
    assert time.monotonic() - started < 5


def test_a_recipe_is_what_differs_from_its_preset():
    steps = resolve("smoke", environ={}).settings.train.max_steps
    assignments = [f"train.max_steps={steps}", "data.span=3"]
    same = resolve("smoke", environ={}, assignments=assignments)
    assert same.recipe() == {"preset": "smoke", "changed": {}}
    other = resolve("smoke", environ={"MNIST_GAN_TRAIN__MAX_STEPS": "20"}, assignments=[])
    assert other.recipe() == {"preset": "smoke", "changed": {"train.max_steps": 20}}
