"""Numbers of the report in words, and the command that reproduces a run."""

import shlex

import pytest

from evaluation.report.render import interval, number, reproduction_command
from pipeline.settings.resolution import preset_names, resolve

ODD = [
    "train.xla=on",
    "train.augmentation=[translation]",
    "train.generator_learning_rate=1e-05",
    "evaluation.thresholds.density=0.5",
    "evaluation.tolerances.others=null",
]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.15321, "0.1532"),
        (1234.5, "1234"),
        (6.2951e-05, "6.3×10⁻⁵"),
        (-2e-07, "-2×10⁻⁷"),
        (1.5e12, "1.5×10¹²"),
    ],
)
def test_numbers(value, shown):
    assert number(value) == shown


def test_intervals():
    assert interval((0.12345, 0.2)) == "0.123 to 0.2"
    assert interval(None) == ""


@pytest.mark.parametrize("assignments", [[], ODD], ids=["preset", "odd"])
@pytest.mark.parametrize("preset", preset_names())
def test_the_command_of_a_report_makes_the_same_settings(preset, assignments):
    settings = resolve(preset, environ={}, assignments=assignments).settings
    names = ("classifier", "train", "evaluation")
    about = {name: getattr(settings, name).model_dump(mode="json") for name in names}
    data = {"spans": [{"span": 2}, {"span": 5}]}
    command = reproduction_command(about | {"data": {"span": 5}}, data)
    program, *arguments = shlex.split(command.replace("\\\n", ""))
    assert [program, *arguments[:3]] == ["python", "local_runner.py", "run", "--no-cache"]
    assert set(arguments[3::2]) == {"--set"}
    again = resolve(environ={}, assignments=arguments[4::2]).settings
    assert {name: getattr(again, name) for name in names} == {
        name: getattr(settings, name) for name in names
    }
    assert again.data.window == "static:2,5"


def test_what_a_search_found_is_in_the_command():
    about = {"train": {"latent_dim": 64, "seed": 3}, "tuned": {"latent_dim": 32, "dropout": 0.0}}
    assert reproduction_command(about | {"data": {"span": 1}}, None).splitlines()[2:] == [
        "  --set train.latent_dim=32 \\",
        "  --set train.seed=3",
    ]


def test_the_command_leaves_out_what_is_the_default():
    settings = resolve(environ={}).settings
    about = {"train": settings.train.model_dump(mode="json"), "data": {"span": 1}}
    assert reproduction_command(about, None) == (
        "python local_runner.py run --no-cache \\\n  --set data.window=static:1"
    )
