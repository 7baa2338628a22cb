"""The search: what it tries, what it survives, and how it goes on after an interruption.

Trainings are replaced by a function from settings to FID, but for none of what is around them.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import keras_tuner
import numpy as np
import pytest
from pydantic import ValidationError

from models.gan import tuning
from models.gan.device_loop import NonFiniteLossError
from models.gan.interruption import StopRequest
from models.gan.settings import TrainSettings
from models.gan.training import InterruptedTrainingError
from models.gan.tuning_settings import (
    SPACE,
    LogRange,
    Parameter,
    TuneSettings,
    describe,
    to_scalar,
    with_hyperparameters,
)
from models.gan.validation import ValidationMetrics
from pipeline.settings.resolution import ConfigError, resolve

IMAGES = np.random.default_rng(0).integers(0, 256, [40, 28, 28, 1]).astype(np.uint8)


# A minute in all, for what is off by default.
pytestmark = pytest.mark.slow


class Searches:
    """Searches in one folder; `trained` are the settings of each training that was begun."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.images = IMAGES
        self.trained: list[TrainSettings] = []
        self.fid: Callable[[TrainSettings], float] = lambda settings: float(settings.latent_dim)
        monkeypatch.setattr(tuning, "prepare_training", self._prepare)
        monkeypatch.setattr(tuning, "train", lambda training, checkpoints: training.train())
        monkeypatch.setattr(tuning, "FeatureExtractor", lambda model: _extract)
        monkeypatch.setattr(
            tuning, "load_split", lambda files: (self.images, np.arange(len(self.images)) % 10)
        )
        # Half a second of garbage collection after each.
        monkeypatch.setattr(tuning.keras.utils, "clear_session", lambda: None)
        self.write_classifier("weights")

    def write_classifier(self, weights: str) -> None:
        path = self.folder / "classifier" / "variables" / "variables.data-00000-of-00001"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(weights)

    def run(self, train: dict[str, Any] | None = None, **tune: Any) -> Any:
        """Searches as TFX does; returns the tuner."""
        self.trained = []
        arguments = SimpleNamespace(
            custom_config={
                "train": train or {},
                "tune": {"enabled": True, "trials": 5} | tune,
                "checkpoints": str(self.folder / "checkpoints"),
            },
            train_files=["files"],
            base_model=str(self.folder / "classifier"),
            working_dir=str(self.folder / "working"),
        )
        tuner, fit_kwargs = tuning.tuner_fn(arguments)
        tuner.search(**fit_kwargs)
        return tuner

    def files(self) -> list[Path]:
        return sorted((self.folder / "checkpoints" / "tune").glob("*/*"))

    def _prepare(self, settings: TrainSettings, images: Any, labels: Any, **others: Any) -> Any:
        assert len(others["validation_set"].labels) + len(images) == len(self.images)
        assert len(labels) == len(images)

        def train() -> Any:
            self.trained.append(settings)
            metrics = ValidationMetrics(self.fid(settings), 1.0, (0.1,) * 10, 1.0, 0.1)
            yield SimpleNamespace(validation=metrics)

        return SimpleNamespace(variables=dict, train=train, stop=StopRequest())


def _extract(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features = images[:, ::7, ::7, 0].reshape(len(images), -1).astype(np.float32)
    return features, features[:, :10]


@pytest.fixture
def searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Searches:
    return Searches(tmp_path, monkeypatch)


def best(tuner: Any) -> dict[str, Any]:
    """What TFX's executor hands to the Trainer."""
    return tuner.get_best_hyperparameters()[0].get_config()["values"]


def in_turn(outcomes: list[float | Exception]) -> Callable[[TrainSettings], float]:
    waiting = iter(outcomes)

    def fid(settings: TrainSettings) -> float:
        outcome = next(waiting)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return fid


# The settings and the space.


def test_every_parameter_has_a_place_in_the_space() -> None:
    assert list(SPACE) == list(get_args(Parameter))


@pytest.mark.parametrize("name", SPACE)
def test_every_value_of_the_space_can_be_trained(name: Parameter) -> None:
    options = SPACE[name]
    values = (options.low, options.high) if isinstance(options, LogRange) else options
    assert len(set(values)) == len(values) > 1
    for value in values:
        found = with_hyperparameters(TrainSettings(), {name: to_scalar(value)})
        assert getattr(found, name) == value
        assert found.model_dump(exclude={name}) == TrainSettings().model_dump(exclude={name})


@pytest.mark.parametrize(
    "values",
    [
        {"loss": "hinge"},  # with label smoothing
        {"latent_dim": 0},
        {"latent_dims": 8},
        {"generator_channels": "8-0-8"},
        {"generator_channels": "8-8"},
        {"augmentation": "rotation"},
    ],
)
def test_hyperparameters_are_checked(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        with_hyperparameters(TrainSettings(label_smoothing=0.1), values)


def test_hyperparameters_in_words() -> None:
    train = TrainSettings(latent_dim=64, beta_1=0.5)
    values = {"latent_dim": 64, "beta_1": 0.123456, "augmentation": "translation-cutout"}
    assert describe(train, values) == "beta_1 0.123, augmentation translation-cutout"
    assert describe(train, {"latent_dim": 64}) == "the current settings"


@pytest.mark.parametrize(
    "assignment",
    [
        "tune.seconds=null",
        "tune.trials=0",
        "tune.parameters=[]",
        "tune.parameters=[dropout]",
        "tune.algorithm=grid",
    ],
)
def test_refused_settings(assignment: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(environ={}, assignments=[assignment])
    assert assignment.partition("=")[0] in caught.value.what


def test_the_budget_of_a_trial() -> None:
    train = TrainSettings(deterministic=True, max_steps=9, max_seconds=None, patience=3)
    by_time = TuneSettings(seconds=7.0).of_a_trial(train)
    assert (by_time.max_seconds, by_time.max_steps, by_time.deterministic) == (7.0, None, False)
    by_steps = TuneSettings(seconds=None, steps=5).of_a_trial(train)
    assert (by_steps.max_seconds, by_steps.max_steps, by_steps.deterministic) == (None, 5, True)
    assert (by_steps.evaluations, by_steps.patience) == (1, None)


# The search.


@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
def test_the_first_trial_is_the_current_settings(searches: Searches, algorithm: str) -> None:
    """Also where the table has other values; and each trial is another."""
    train = {"latent_dim": 7, "generator_channels": [5, 4, 3], "generator_learning_rate": 1e-6}
    searches.run(train, algorithm=algorithm)
    assert searches.trained[0] == TuneSettings().of_a_trial(TrainSettings.model_validate(train))
    assert len({settings.model_dump_json() for settings in searches.trained}) == 5


def test_the_lowest_fid_wins(searches: Searches) -> None:
    searches.fid = in_turn([5.0, 7.0, 3.0, 4.0, float("nan")])
    values = best(searches.run())
    first = TuneSettings().of_a_trial(TrainSettings())
    assert with_hyperparameters(first, values) == searches.trained[2]


def test_the_current_settings_win_when_nothing_is_better(searches: Searches) -> None:
    searches.fid = in_turn([1.0, 2.0, 3.0, 4.0, 5.0])
    assert with_hyperparameters(TrainSettings(), best(searches.run())) == TrainSettings()


def test_only_what_is_named_is_searched(searches: Searches) -> None:
    """And a space that is used up ends the search."""
    tuner = searches.run(parameters=["latent_dim"], trials=20)
    assert sorted(settings.latent_dim for settings in searches.trained) == [32, 64, 128]
    assert best(tuner) == {"latent_dim": 32}


def test_the_seed_chooses_the_trials(searches: Searches) -> None:
    chosen = []
    for seed in (0, 0, 1):
        searches.run({"resume": False, "seed": seed})
        chosen.append(searches.trained)
    assert chosen[0] == chosen[1] != chosen[2]


def test_what_cannot_work_is_not_tried(searches: Searches) -> None:
    train = {"label_smoothing": 0.1, "discriminator_normalization": "batch", "r1_weight": 0.0}
    tuner = searches.run(train, trials=20)
    assert len(searches.trained) == len(tuner.oracle.trials) == 20
    assert {settings.loss for settings in searches.trained} == {"non_saturating"}


def test_a_refused_combination_is_a_failed_trial(
    searches: Searches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_is_valid", lambda first, values: True)
    tuner = searches.run({"label_smoothing": 0.1}, parameters=["loss"], trials=9)
    assert [settings.loss for settings in searches.trained] == ["non_saturating"]
    assert len(tuner.oracle.trials) == 4
    assert best(tuner) == {"loss": "non_saturating"}


def test_trials_that_diverge_do_not_end_the_search(searches: Searches) -> None:
    diverged = NonFiniteLossError("training diverged before step 3\nlower the rate")
    searches.fid = in_turn([diverged, 9.0, diverged, diverged, diverged, diverged, 8.0])
    tuner = searches.run(trials=7)
    first = TuneSettings().of_a_trial(TrainSettings())
    assert with_hyperparameters(first, best(tuner)) == searches.trained[6]


def test_a_search_without_any_result_is_an_error(searches: Searches) -> None:
    searches.fid = in_turn([NonFiniteLossError("training diverged"), float("inf")])
    with pytest.raises(tuning.SearchError) as caught:
        searches.run(trials=2)
    assert str(caught.value) == (
        "all 2 trials failed: training diverged; the validation FID is not finite"
    )


def test_progress(searches: Searches, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mnist_gan.progress")
    searches.fid = in_turn([5.0, NonFiniteLossError("training diverged"), 3.0])
    searches.run(parameters=["latent_dim"], trials=3)
    second, third = ("latent_dim 32", "latent_dim 128")
    if searches.trained[1].latent_dim == 128:
        second, third = third, second
    of_first = "best so far FID 5.00, trial 1 (the current settings)"
    of_third = f"best so far FID 3.00, trial 3 ({third})"
    assert caplog.messages == [
        "trial 1 of 3: the current settings ...",
        f"trial 1 of 3: the current settings: FID 5.00; {of_first}",
        f"trial 2 of 3: {second} ...; {of_first}",
        f"trial 2 of 3: {second}: training diverged; {of_first}",
        f"trial 3 of 3: {third} ...; {of_first}",
        f"trial 3 of 3: {third}: FID 3.00; {of_third}",
        of_third,
    ]


# Interruptions.


@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
@pytest.mark.parametrize("ended", [0, 1, 4])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(
    searches: Searches, algorithm: str, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_RANDOM_TRIALS", 3)

    def fid(settings: TrainSettings) -> float:
        if settings.batch_size == 256:
            raise NonFiniteLossError("training diverged")
        return settings.latent_dim + 1e3 * settings.generator_learning_rate

    def fid_until_cut_off(settings: TrainSettings) -> float:
        if len(searches.trained) > ended:
            raise InterruptedTrainingError("SIGTERM")
        return fid(settings)

    parameters = ["latent_dim", "generator_learning_rate", "batch_size"]
    tune = {"algorithm": algorithm, "trials": 6, "parameters": parameters}
    searches.fid = fid
    values = best(searches.run({"resume": False}, **tune))
    whole = [settings.model_copy(update={"resume": True}) for settings in searches.trained]
    for path in searches.files():
        path.unlink()

    searches.fid = fid_until_cut_off
    with pytest.raises(keras_tuner.errors.FatalError):
        searches.run(**tune)
    assert searches.trained == whole[: ended + 1]
    searches.fid = fid
    assert best(searches.run(**tune)) == values
    assert searches.trained == whole[ended:]


def test_a_complete_search_trains_nothing_and_takes_more_trials(searches: Searches) -> None:
    values = best(searches.run(trials=4))
    assert [path.name for path in searches.files()] == ["search.json"]
    assert best(searches.run(trials=4)) == values
    assert searches.trained == []
    searches.run(trials=12)
    assert len(searches.trained) == 8
    searches.run({"resume": False}, trials=4)
    assert len(searches.trained) == 4, "afresh"


@pytest.mark.parametrize("change", ["train", "tune", "data", "classifier"])
def test_another_search_starts_at_its_beginning(searches: Searches, change: str) -> None:
    searches.run()
    if change == "data":
        searches.images = IMAGES[::-1].copy()
    if change == "classifier":
        searches.write_classifier("other weights")
    train = {"dropout": 0.1} if change == "train" else {}
    searches.run(train, **({"algorithm": "bayesian"} if change == "tune" else {}))
    assert len(searches.trained) == 5
    assert len(searches.files()) == 2


def test_settings_without_effect_do_not_start_another_search(searches: Searches) -> None:
    searches.run()
    searches.run({"report_seconds": 1.0, "max_seconds": 5.0})  # the Trainer's budget
    assert searches.trained == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"oracle": {}, "trials": [{}]}'])
def test_a_damaged_file_starts_the_search_afresh(searches: Searches, content: str) -> None:
    searches.run()
    [path] = searches.files()
    path.write_text(content)
    searches.run()
    assert len(searches.trained) == 5
    assert json.loads(path.read_text())["trials"]


def test_what_a_kill_while_saving_leaves_is_passed_over(searches: Searches) -> None:
    searches.run()
    [path] = searches.files()
    path.with_name("partial-search.json").write_text('{"oracle": ')
    searches.run()
    assert searches.trained == []


def test_an_error_of_ours_ends_the_search_and_counts_for_no_trial(searches: Searches) -> None:
    searches.fid = in_turn([1.0, KeyError("a mistake")])
    with pytest.raises(keras_tuner.errors.FatalError, match="a mistake"):
        searches.run()
    searches.fid = lambda settings: 2.0
    assert len(searches.run().oracle.trials) == 5
    assert len(searches.trained) == 4


def test_a_search_that_cannot_be_kept_says_so(searches: Searches) -> None:
    def fid(settings: TrainSettings) -> float:
        for path in searches.files():  # of the first trial, in the second
            path.unlink()
            path.mkdir()
        return 1.0

    searches.fid = fid
    with pytest.raises(tuning.SearchError) as caught:
        searches.run()
    assert caught.value.where.startswith(str(searches.folder / "checkpoints" / "tune"))
    assert len(searches.trained) == 2
